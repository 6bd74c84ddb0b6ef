use axum::{
    body::{Body, Bytes, to_bytes},
    extract::ConnectInfo,
    http::StatusCode,
    routing::{get, post},
};
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full};
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

#[tokio::test(start_paused = true)]
async fn requests_of_http2_that_are_left_unread_hold_up_no_other() {
    let unread = post(|body: Body| async move {
        std::future::pending::<()>().await;
        drop(body);
    });
    let read = post(|body: Body| async move { to_bytes(body, LARGE).await.unwrap().len().to_string() });
    let (client, _served) = connect(Router::new().route("/unread", unread).route("/read", read));
    let handshake = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = |path| Request::post(path).body(Full::from(vec![b'x'; LARGE])).unwrap();

    let unread: Vec<_> = (1..STREAMS).map(|_| sender.send_request(request("http://h/unread"))).collect();
    sleep(PAUSE / 2).await;
    let answer = sender.send_request(request("http://h/read")).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), LARGE.to_string());
    drop(unread);
}
