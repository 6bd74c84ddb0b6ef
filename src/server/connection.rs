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
/// How much a peer may send ahead over HTTP/2 of what is taken from it.
const WINDOW: u32 = 256 * 1024;

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
        .initial_connection_window_size(WINDOW)
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
mod tests {
    use axum::{
        body::{Bytes, to_bytes},
        extract::ConnectInfo,
        http::StatusCode,
        routing::{get, post},
    };
    use futures_util::stream;
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http2;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinHandle,
    };

    use super::*;

    const IDLE: Duration = Duration::from_mins(1);
    /// A pause that a connection survives.
    const PAUSE: Duration = Duration::from_secs(50);
    /// Far less than an answer of [`LARGE`].
    const PIPE: usize = 1024;
    const LARGE: usize = 1024 * 1024;
    const GET: &[u8] = b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

    /// A client's end of a connection to a router, and the task that serves it. All clocks are paused in these tests:
    /// they jump as soon as everybody waits.
    fn connect(router: Router) -> (DuplexStream, JoinHandle<()>) {
        let (client, io) = duplex(PIPE);
        let peer = SocketAddr::from(([192, 0, 2, 1], 4242));
        let served = tokio::spawn(serve(io, peer, router, IDLE, CancellationToken::new()));
        (client, served)
    }

    fn large() -> Router {
        Router::new().route("/large", get(|| async { vec![b'x'; LARGE] }))
    }

    /// Reads to the end and returns the body. The answer must be whole.
    async fn answer_of(client: &mut DuplexStream) -> (String, String) {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_sends_anything_is_closed() {
        let (_client, served) = connect(large());
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_dribbles_its_header_is_closed() {
        let (mut client, served) = connect(large());
        let dribble = tokio::spawn(async move {
            client.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
            for _ in 0..10 * IDLE.as_secs() {
                if client.write_all(b"x").await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
            panic!("a header was taken for ten minutes");
        });
        served.await.unwrap();
        dribble.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_that_is_not_used_is_closed() {
        let (mut client, served) = connect(Router::new());
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let (head, _) = answer_of(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_its_answer_unread_is_cut() {
        let (mut client, served) = connect(large());
        client.write_all(GET).await.unwrap();
        served.await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() <= PIPE, "{} bytes were sent", answer.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_never_cut() {
        let (mut client, _served) = connect(large());
        client.write_all(GET).await.unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; PIPE];
        loop {
            match client.read(&mut buffer).await.unwrap() {
                0 => break,
                read => answer.extend_from_slice(&buffer[..read]),
            }
            sleep(PAUSE).await;
        }
        assert!(answer.ends_with(&vec![b'x'; LARGE]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_or_a_response_body_that_takes_long_is_never_cut() {
        let slow = || async {
            sleep(10 * IDLE).await;
            Body::from_stream(stream::unfold(0, |n| async move {
                sleep(10 * IDLE).await;
                (n < 3).then_some((Ok::<_, Infallible>("slow "), n + 1))
            }))
        };
        let (mut client, _served) = connect(Router::new().route("/", get(slow)));
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(answer_of(&mut client).await.1, "slow slow slow ");
    }

    /// Answers with the length of the body, or says that it stopped arriving.
    async fn measure(body: Body) -> (StatusCode, String) {
        match to_bytes(body, usize::MAX).await {
            Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
            Err(error) => {
                let timed_out = |error: &(dyn std::error::Error + 'static)| {
                    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
                };
                let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
                while let Some(error) = cause {
                    if timed_out(error) {
                        return (StatusCode::REQUEST_TIMEOUT, "timed out".to_owned());
                    }
                    cause = error.source();
                }
                (StatusCode::BAD_REQUEST, error.to_string())
            }
        }
    }

    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 100\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_handler_whose_request_body_stops_arriving_is_told_and_can_answer() {
        let (mut client, _served) = connect(Router::new().route("/", post(measure)));
        client.write_all(POST).await.unwrap();
        client.write_all(&[b'x'; 99]).await.unwrap();
        let (head, body) = answer_of(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 408"), "{head}");
        assert_eq!(body, "timed out");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_body_that_arrives_slowly_is_never_cut() {
        let (mut client, _served) = connect(Router::new().route("/", post(measure)));
        client.write_all(POST).await.unwrap();
        for _ in 0..100 {
            sleep(PAUSE).await;
            client.write_all(b"x").await.unwrap();
        }
        assert_eq!(answer_of(&mut client).await.1, "100");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_a_handler_asks_for_no_more_of_a_request_body_is_not_the_clients() {
        let busy = |mut body: Body| async move {
            body.frame().await.unwrap().unwrap();
            sleep(2 * IDLE).await;
            measure(body).await
        };
        let (mut client, _served) = connect(Router::new().route("/", post(busy)));
        client.write_all(POST).await.unwrap();
        client.write_all(&[b'x'; 50]).await.unwrap();
        sleep(IDLE).await;
        client.write_all(&[b'x'; 50]).await.unwrap();
        assert_eq!(answer_of(&mut client).await.1, "50");
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_answer_reaches_a_client_that_first_sends_all_of_its_body() {
        let refuse = || async { (StatusCode::RANGE_NOT_SATISFIABLE, "no") };
        let (mut client, served) = connect(Router::new().route("/", post(refuse)));
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGE}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; LARGE]).await.unwrap();
        let (head, body) = answer_of(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 416"), "{head}");
        assert_eq!(body, "no");
        drop(client);
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_closes_its_writing_side_still_gets_its_answer() {
        let slow = || async {
            sleep(IDLE / 2).await;
            "late"
        };
        let (mut client, _served) = connect(Router::new().route("/", get(slow)));
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(answer_of(&mut client).await.1, "late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_carries_the_address_of_its_peer() {
        let echo = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
        let (mut client, _served) = connect(Router::new().route("/", get(echo)));
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(answer_of(&mut client).await.1, "192.0.2.1:4242");
    }

    #[tokio::test(start_paused = true)]
    async fn http2_is_spoken_and_a_connection_whose_streams_are_left_unread_is_cut() {
        let (client, served) = connect(large());
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(u32::try_from(PIPE).unwrap())
            .handshake::<_, Empty<Bytes>>(TokioIo::new(client))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = || Request::get("http://h/large").body(Empty::new()).unwrap();

        let read = sender.send_request(request()).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(read.to_bytes().len(), LARGE);

        let unread = sender.send_request(request()).await.unwrap().into_body();
        served.await.unwrap();
        unread.collect().await.expect_err("the answer went through without being read");
    }
}
