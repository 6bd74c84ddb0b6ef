//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{
    Request, Response, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    body::{Received, Sent},
    pulse::Pulse,
};

/// How long a connection is read on after an answer that left a part of its request unread. Closing a socket that
/// holds unread bytes resets it, and the peer may lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// How long a request may be on its way to a connection that was there when draining began. One that finds it closed is
/// lost, and a balancer cannot send a write again.
const LAST_CALL: Duration = Duration::from_secs(1);

/// The most bytes that a connection keeps for itself, either way. Also the longest head of a request.
const BUFFER: usize = 32 * 1024;
/// How many requests a peer may have at one time on a connection of HTTP/2, and how much it may send ahead of what is
/// taken of each. The connection has room for all of them: requests that wait for memory, and are left unread meanwhile,
/// must not hold up those that have it and that they wait for.
const STREAMS: u32 = 16;
const WINDOW: u32 = 64 * 1024;

/// Serves a connection until it ends, stalls, or was told to drain and has.
pub(super) async fn serve<I>(io: I, peer: SocketAddr, router: Router, idle: Duration, drain: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let pulse = Pulse::new();
    let io = TokioIo::new(Watched { io, pulse: Arc::clone(&pulse), linger: None });
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| answer(&router, request, peer, idle, Arc::clone(&pulse), drain.clone()));

    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `half_close`: a client that sends its request and closes its writing side still gets its answer, and hyper
    // doesn't drop the handler. The time-out of the header also bounds the wait for the next request.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).half_close(true).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(STREAMS * WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(BUFFER);

    let mut connection = pin!(builder.serve_connection(io, service));
    let mut leave = pin!(async {
        drain.cancelled().await;
        sleep(LAST_CALL).await;
    });
    let mut leaving = false;
    loop {
        tokio::select! {
            // What has arrived is read before anything is closed.
            biased;
            result = &mut connection => {
                if let Err(error) = result {
                    debug!(%peer, error, "connection failed");
                }
                return;
            }
            () = pulse.stalled(idle) => {
                debug!(%peer, "connection stalled");
                return;
            }
            () = &mut leave, if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Has a request answered while the pulse knows of it.
fn answer(
    router: &TowerToHyperService<Router>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    idle: Duration,
    pulse: Arc<Pulse>,
    drain: CancellationToken,
) -> impl Future<Output = Result<Response<Sent>, Infallible>> + use<> {
    let work = pulse.work();
    let may_close = request.version() < Version::HTTP_2;
    request.extensions_mut().insert(ConnectInfo(peer));
    let answer = router.call(request.map(|body| Body::new(Received::new(body, Arc::clone(&pulse), idle))));
    async move {
        let mut response = answer.await?;
        drop(work);
        if drain.is_cancelled() && may_close {
            // So that no request follows.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| Sent::new(body, pulse)))
    }
}

/// Reports every byte that moves, and lingers when it is shut down before the peer was heard out.
struct Watched<I> {
    io: I,
    pulse: Arc<Pulse>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.beat();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.pulse.beat();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bytes))?;
        self.pulse.beat();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        if !this.pulse.is_left_unread() {
            return Poll::Ready(Ok(()));
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; 8 * 1024];
        loop {
            let mut discarded = ReadBuf::new(&mut scratch);
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut discarded))?;
            if discarded.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
