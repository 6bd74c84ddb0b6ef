//! Listens, serves and drains.
//!
//! An accept loop of our own, because the ready-made one has no bound on connections, no time-out for a client that
//! falls silent, and no drain that ends.

use std::{io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

mod body;
mod connection;
pub mod health;
pub mod log;
mod pulse;
mod stop;

pub use stop::Stop;

/// How long accepting rests after an error of this process, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// How connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long nothing may move on a connection while it is the peer's turn.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish after [`Stop`] was asked for.
    pub drain: Duration,
    /// Most connections at one time; further ones wait in the kernel's queue.
    pub max_connections: NonZeroU32,
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was finished.
    Drained,
    /// This many connections were cut, since the time to drain was over or a second signal came.
    Cut { connections: usize },
}

/// Why serving did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
}

/// Takes the address. From here on connections queue up.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Serves HTTP/1.1 and HTTP/2 (with prior knowledge) until `stop` is asked for and the drain is over.
///
/// Requests carry their peer's address as [`axum::extract::ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, settings: Settings, stop: Stop) -> Ended {
    let slots = Arc::new(Semaphore::new(settings.max_connections.get() as usize));
    let floor =
        Floor { router, idle: settings.idle_timeout, stop, cut: CancellationToken::new(), tasks: TaskTracker::new() };
    loop {
        let next = async {
            // Taken first: a connection that has no slot is not accepted. The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot.ok(), accept(&listener).await)
        };
        tokio::select! {
            (slot, (stream, peer)) = next => floor.take(stream, peer, slot),
            () = floor.stop.drain.cancelled() => break,
        }
    }
    for (stream, peer) in queued(listener) {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { break };
        floor.take(stream, peer, Some(slot));
    }
    info!(connections = floor.tasks.len(), "draining");
    floor.tasks.close();
    tokio::select! {
        () = floor.tasks.wait() => return Ended::Drained,
        () = time::sleep(settings.drain) => {}
        () = floor.stop.now.cancelled() => {}
    }
    let connections = floor.tasks.len();
    warn!(connections, "cutting what is left");
    floor.cut.cancel();
    floor.tasks.wait().await;
    Ended::Cut { connections }
}

/// Where connections are served.
struct Floor {
    router: Router,
    idle: Duration,
    stop: Stop,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Floor {
    fn take(&self, stream: TcpStream, peer: SocketAddr, slot: Option<OwnedSemaphorePermit>) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let connection = connection::serve(stream, peer, self.router.clone(), self.idle, self.stop.drain.clone());
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            cut.run_until_cancelled(connection).await;
            drop(slot);
        });
    }
}

/// Closes the listener and gives out what is in the kernel's queue: they are connected, and may have sent a request.
fn queued(listener: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let listener = listener.into_std().ok();
    std::iter::from_fn(move || {
        let (stream, peer) = listener.as_ref()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    })
}

/// The next connection. Errors are logged and outlived: they concern one peer, or pass when files are closed.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                error!(%error, "cannot accept connections");
                time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Bytes, routing::post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
    };

    use super::*;

    /// No test waits for it.
    const LONG: Duration = Duration::from_hours(1);

    struct Server {
        address: SocketAddr,
        stop: Stop,
        ended: JoinHandle<Ended>,
    }

    /// Serves a router that echoes what it is sent.
    async fn start(drain: Duration, max_connections: u32) -> Server {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(|body: Bytes| async move { body }));
        let max_connections = NonZeroU32::new(max_connections).unwrap();
        let settings = Settings { idle_timeout: LONG, drain, max_connections };
        let stop = Stop::default();
        Server { address, stop: stop.clone(), ended: tokio::spawn(serve(listener, router, settings, stop)) }
    }

    /// A connection with a request in flight, whose body is still to be sent.
    async fn begin(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            .await
            .unwrap();
        let mut interim = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        client.read_exact(&mut interim).await.unwrap();
        assert!(interim.starts_with(b"HTTP/1.1 100"), "the handler does not read");
        client
    }

    async fn finish(client: &mut TcpStream) -> String {
        client.write_all(b"abc").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_taken_address_is_named_in_the_error() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(bind(address).await.unwrap_err().to_string(), format!("cannot listen on {address}"));
    }

    #[tokio::test]
    async fn draining_finishes_what_is_in_flight_and_takes_nothing_new() {
        let server = start(LONG, 10).await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        let mut client = begin(server.address).await;
        server.stop.ask();

        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "an idle connection is closed");
        TcpStream::connect(server.address).await.expect_err("a new connection was taken");
        let answer = finish(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("abc"), "{answer}");
        assert_eq!(server.ended.await.unwrap(), Ended::Drained);
    }

    #[tokio::test]
    async fn a_request_that_is_on_its_way_when_draining_begins_is_answered() {
        let server = start(LONG, 10).await;
        let mut kept = begin(server.address).await;
        kept.write_all(b"abc").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"abc") {
            answer.push(kept.read_u8().await.unwrap());
        }
        let mut accepted = TcpStream::connect(server.address).await.unwrap();
        // They are accepted one after the other.
        let mut busy = begin(server.address).await;
        // The server cannot see this one before it is asked to stop: nobody waits in between.
        let queued = std::net::TcpStream::connect(server.address).unwrap();
        queued.set_nonblocking(true).unwrap();
        let mut queued = TcpStream::from_std(queued).unwrap();
        server.stop.ask();

        let request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
        for client in [&mut kept, &mut accepted, &mut queued] {
            client.write_all(request).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("abc"), "{answer}");
            assert!(answer.contains("connection: close"), "the next request would be lost: {answer}");
        }
        finish(&mut busy).await;
        assert_eq!(server.ended.await.unwrap(), Ended::Drained);
    }

    #[tokio::test]
    async fn draining_ends_when_its_time_is_over() {
        let server = start(Duration::from_millis(1), 10).await;
        let mut client = begin(server.address).await;
        server.stop.ask();
        assert_eq!(server.ended.await.unwrap(), Ended::Cut { connections: 1 });
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)), "an answer was sent");
    }

    #[tokio::test]
    async fn being_asked_twice_ends_at_once() {
        let server = start(LONG, 10).await;
        let _client = begin(server.address).await;
        server.stop.ask();
        server.stop.ask();
        assert_eq!(server.ended.await.unwrap(), Ended::Cut { connections: 1 });
    }

    #[tokio::test]
    async fn connections_beyond_the_most_wait_for_their_turn() {
        let server = start(LONG, 1).await;
        let first = begin(server.address).await;
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
        // The answer would come at once if the connection had been accepted.
        let early = time::timeout(Duration::from_millis(100), second.read(&mut [0])).await;
        assert!(early.is_err(), "two connections were served at one time");
        drop(first);
        let mut status = [0; 12];
        second.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn asking_once_drains_and_asking_again_ends() {
        let stop = Stop::default();
        stop.ask();
        assert!(stop.drain.is_cancelled() && !stop.now.is_cancelled());
        stop.ask();
        assert!(stop.now.is_cancelled());
    }
}
