//! The command that verifies what is stored, and mends it.

use std::{
    error::Error,
    io::{self, IsTerminal, Stderr, Stdout, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use marina_distribution::{
    config::{Checking, Config},
    registry::check::{Check, News, Share, Summary},
    server::Stop,
    store::{Causes, Key},
};
use serde_json::json;
use tokio::time::Instant;

use super::{NOT_WELL, open_over, stores};

/// How often a terminal is told how far it is.
const PROGRESS: Duration = Duration::from_millis(200);

const NO_KEY: &str = "--after: expected a key of this registry, as an earlier check has printed it";

/// One line for each finding and for what was done about it, then what was counted. Asked to stop, it says where to go on.
pub(super) async fn check(config: Config, checking: Checking) -> Result<ExitCode, Box<dyn Error>> {
    let Checking { deep, sample, rate, after, repair, json } = checking;
    let share = sample.map_or(Some(Share::ALL), |sample| Share::parse(&sample));
    let share = share.ok_or("expected a percentage such as 10%, or a part such as 3/10")?;
    let mut up_to = after.map(|key| Key::parse(key).ok_or(NO_KEY)).transpose()?;
    let store = stores::open_existing(&config).await?;
    let mut check = Check::new(Arc::clone(&store));
    if let Some(after) = up_to.clone() {
        check = check.after(after).await?.ok_or(NO_KEY)?;
    }
    if deep {
        check = check.deep(share, rate);
    }
    if repair {
        check = check.repair(open_over(&config, store).await?);
    }
    let stop = Stop::on_signals()?;
    let mut report = Report::new(json, stop.clone());
    let checked = tokio::select! {
        checked = check.run(|news| report.tell(news, &mut up_to)) => checked.map_err(Into::into),
        () = stop.drain.cancelled() => Err(Box::<dyn Error>::from("stopped")),
    };
    std::mem::replace(&mut report.told, Ok(()))?;
    match checked {
        Ok(summary) => {
            report.end(&summary)?;
            Ok(if summary.findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
        }
        Err(error) => {
            report.clear()?;
            Err(go_on(error, up_to.as_ref()))
        }
    }
}

/// Why it ended early, and how to go on from there.
fn go_on(error: Box<dyn Error>, after: Option<&Key>) -> Box<dyn Error> {
    match after {
        Some(after) => format!("{}; to go on from there: --after {after}", Causes(error.as_ref())).into(),
        None => error,
    }
}

/// Lines on the standard output, and one that comes and goes on the terminal.
struct Report {
    json: bool,
    out: Stdout,
    /// What went wrong with the output, if anything. Then nobody needs the rest.
    told: io::Result<()>,
    stop: Stop,
    terminal: Option<Stderr>,
    /// When the terminal was told.
    at: Instant,
}

impl Report {
    fn new(json: bool, stop: Stop) -> Self {
        let terminal = Some(io::stderr()).filter(IsTerminal::is_terminal);
        Self { json, out: io::stdout(), told: Ok(()), stop, terminal, at: Instant::now() }
    }

    fn tell(&mut self, news: News<'_>, up_to: &mut Option<Key>) {
        let line = match news {
            News::UpTo(key, summary) => {
                *up_to = Some(key.clone());
                return self.progress(key, summary);
            }
            News::Finding(finding) if self.json => {
                let (key, reason) = (finding.key.as_str(), &finding.reason);
                json!({"finding": {"invariant": finding.invariant.to_string(), "key": key, "reason": reason}})
                    .to_string()
            }
            News::Finding(finding) => finding.to_string(),
            News::Mended(mend) if self.json => {
                let (key, done, whole) = (mend.key.as_str(), &mend.what, mend.is_whole);
                json!({"mended": {"key": key, "done": done, "whole": whole}}).to_string()
            }
            News::Mended(mend) => mend.to_string(),
        };
        if self.told.is_ok() {
            self.told = self.clear().and_then(|()| writeln!(self.out, "{line}"));
            if self.told.is_err() {
                self.stop.ask();
            }
        }
    }

    fn end(mut self, summary: &Summary) -> io::Result<()> {
        self.clear()?;
        if self.json { writeln!(self.out, "{}", json!({"summary": summary})) } else { writeln!(self.out, "{summary}") }
    }

    fn progress(&mut self, key: &Key, summary: &Summary) {
        let Some(terminal) = &mut self.terminal else { return };
        if self.at.elapsed() >= PROGRESS {
            self.at = Instant::now();
            let Summary { manifests, blobs, hashed_bytes, findings, .. } = summary;
            // Nothing is lost with it.
            let _ = write!(
                terminal,
                "\r\x1b[K{manifests} manifests, {blobs} blobs, {hashed_bytes} bytes hashed, {findings} findings; up to {key}"
            );
        }
    }

    /// Takes the line of progress away.
    fn clear(&mut self) -> io::Result<()> {
        self.terminal.as_mut().map_or(Ok(()), |terminal| write!(terminal, "\r\x1b[K"))
    }
}
