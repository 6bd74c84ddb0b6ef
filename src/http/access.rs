//! Each request has an id, and leaves one line in the log when its answer has gone out.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Method, StatusCode, request},
    response::Response,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use uuid::Uuid;

use crate::store::Causes;

/// Names one request, in its answer and in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId(Uuid);

impl RequestId {
    pub(super) fn fresh() -> Self {
        Self(random())
    }

    pub(super) fn header(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random enough to tell things apart. Nothing that must not be guessed hangs on it, so zeros would do at worst.
pub(super) fn random() -> Uuid {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// In the log: the connection was gone before there was an answer. The number is nginx's.
const UNANSWERED: u16 = 499;

/// The line of one request: written when this is dropped.
#[derive(Debug)]
pub(super) struct Line {
    id: RequestId,
    method: Method,
    path: String,
    remote: Option<SocketAddr>,
    client: Option<IpAddr>,
    started: Instant,
    status: Option<StatusCode>,
    sent: u64,
}

impl Line {
    /// `client`: for whom the peer asks.
    pub(super) fn new(id: RequestId, head: &request::Parts, client: Option<IpAddr>) -> Self {
        Self {
            id,
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            remote: head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0),
            client,
            started: Instant::now(),
            status: None,
            sent: 0,
        }
    }

    /// Lets the line wait until the body of its answer is gone, or given up.
    pub(super) fn follow(mut self, response: Response) -> Response {
        self.status = Some(response.status());
        response.map(|body| Body::new(Followed { body, line: self }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        tracing::info!(
            request = %self.id,
            method = %self.method,
            path = self.path,
            status = self.status.map_or(UNANSWERED, |status| status.as_u16()),
            bytes = self.sent,
            milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            remote = self.remote.map(tracing::field::display),
            client = self.client.map(tracing::field::display),
            "request"
        );
    }
}

struct Followed {
    body: Body,
    line: Line,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.line.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64),
            Poll::Ready(Some(Err(error))) => {
                tracing::error!(request = %self.line.id, error = %Causes(error), "an answer broke off");
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn lines(&self) -> Vec<Value> {
            self.0.lock().unwrap().split(|it| *it == b'\n').filter_map(|it| serde_json::from_slice(it).ok()).collect()
        }
    }

    #[tokio::test]
    async fn a_request_leaves_one_line_when_its_answer_is_gone() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        let _logging = tracing::subscriber::set_default(subscriber.finish());

        let request = Request::get("/v2/a?secret=x").extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4242))));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let (id, gone) = (RequestId::fresh(), RequestId::fresh());
        let client = Some(IpAddr::from([198, 51, 100, 1]));
        let response = Line::new(id, &head, client).follow(Response::new(Body::from("hello")));
        assert_eq!(log.lines(), [Value::Null; 0]);
        response.into_body().collect().await.unwrap();
        drop(Line::new(gone, &head, None));

        let lines = log.lines();
        assert_eq!(lines.len(), 2);
        for (field, value) in [
            ("request", Value::from(id.to_string())),
            ("method", "GET".into()),
            ("path", "/v2/a".into()),
            ("status", 200.into()),
            ("bytes", 5.into()),
            ("remote", "192.0.2.1:4242".into()),
            ("client", "198.51.100.1".into()),
        ] {
            assert_eq!(lines[0][field], value, "{field}");
        }
        assert!(lines[0]["milliseconds"].is_u64());
        // The client of the other did not wait for its answer.
        assert_eq!((&lines[1]["request"], &lines[1]["status"]), (&Value::from(gone.to_string()), &Value::from(499)));
    }
}
