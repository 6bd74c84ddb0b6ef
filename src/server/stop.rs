//! Being asked to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Error;

/// A request to stop, shared by all who heed it. Asked once, the server drains; asked again, it ends at once.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Take no new work and finish what is in flight.
    pub drain: CancellationToken,
    /// Finish nothing.
    pub now: CancellationToken,
}

impl Stop {
    /// Asks whenever this process gets `SIGTERM` or `SIGINT`. From here on they no longer end it by themselves.
    pub fn on_signals() -> Result<Self, Error> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let stop = Self::default();
        let asked = stop.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                info!(signal = name, "asked to stop");
                asked.ask();
            }
        });
        Ok(stop)
    }

    pub fn ask(&self) {
        if self.drain.is_cancelled() {
            self.now.cancel();
        }
        self.drain.cancel();
    }
}
