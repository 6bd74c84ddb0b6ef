//! A server that speaks S3, in this process: requests are signed and checked, state changes are atomic, calls are
//! counted, and it fails as told.

mod bucket;

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, body::Frame, header, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{net::TcpListener, task::JoinSet};

use self::bucket::Bucket;
use super::{Credentials, ListOrder, S3Settings, S3Store};
use crate::store::{Limits, memory::TINY_PARTS};

pub(crate) const BUCKET: &str = "bucket";
const KEY_ID: &str = "key-id";
const SECRET: &str = "the-secret";

/// How a store differs from S3.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quirks {
    /// MinIO lists no `p/q` while there is a `p`.
    pub(crate) hides_below_objects: bool,
    /// MinIO deletes whatever `If-Match` says.
    pub(crate) deletes_anyway: bool,
    /// Garage writes whatever `If-Match` and `If-None-Match` say.
    pub(crate) writes_anyway: bool,
    pub(crate) list_order: ListOrder,
    /// What completing answers the second time.
    pub(crate) second_complete: StatusCode,
    /// What `If-Match` answers where there is nothing.
    pub(crate) no_match: StatusCode,
    /// What aborting answers the second time.
    pub(crate) second_abort: StatusCode,
    /// Before every answer.
    pub(crate) latency: Duration,
}

impl Quirks {
    pub(crate) const S3: Self = Self {
        hides_below_objects: false,
        deletes_anyway: false,
        writes_anyway: false,
        list_order: ListOrder::Bytes,
        second_complete: StatusCode::OK,
        no_match: StatusCode::NOT_FOUND,
        second_abort: StatusCode::NOT_FOUND,
        latency: Duration::ZERO,
    };
    pub(crate) const MINIO: Self = Self {
        hides_below_objects: true,
        deletes_anyway: true,
        second_complete: StatusCode::NOT_FOUND,
        second_abort: StatusCode::NO_CONTENT,
        ..Self::S3
    };
    pub(crate) const GARAGE: Self = Self {
        deletes_anyway: true,
        writes_anyway: true,
        second_complete: StatusCode::NOT_FOUND,
        second_abort: StatusCode::NO_CONTENT,
        ..Self::S3
    };
    pub(crate) const SEAWEED: Self = Self {
        list_order: ListOrder::Paths,
        no_match: StatusCode::PRECONDITION_FAILED,
        second_abort: StatusCode::NO_CONTENT,
        ..Self::S3
    };
}

/// What clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Get,
    Head,
    Put,
    Delete,
    List,
    Begin,
    Part,
    Complete,
    Abort,
    /// Nothing that we should ever send.
    Other,
}

/// How one request goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is not done, and this is answered.
    Refused(StatusCode, &'static str),
    /// It is done, and this is answered.
    DoneBut(StatusCode, &'static str),
    /// It is done, and the connection ends without an answer.
    Unanswered,
    /// It is done, and the answer lacks its `ETag`.
    NoETag,
    /// It is done, and the answer says that it is this time.
    Dated(&'static str),
    /// The body of the answer breaks off in its middle.
    Torn,
    /// The body of the answer goes no further than its middle.
    Stalled,
}

impl Fault {
    pub(crate) const SLOW_DOWN: Self =
        Self::Refused(StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>SlowDown</Code></Error>");
}

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    quirks: Quirks,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    service: S3Service,
    latency: Duration,
    calls: Mutex<BTreeMap<Operation, u64>>,
    last: Mutex<BTreeMap<Operation, HeaderMap>>,
    /// What becomes of the next requests.
    plans: Mutex<BTreeMap<Operation, VecDeque<Option<Fault>>>>,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl Server {
    pub(crate) async fn start(quirks: Quirks) -> Self {
        let mut service = S3ServiceBuilder::new(Bucket::new(quirks, TINY_PARTS.min_part));
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let shared = Arc::new(Shared {
            service: service.build(),
            latency: quirks.latency,
            calls: Mutex::default(),
            last: Mutex::default(),
            plans: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, quirks, shared, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The settings of a driver that knows this server.
    pub(crate) fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(format!("http://{}", self.address)),
            path_style: true,
            credentials: Credentials::Static {
                access_key_id: KEY_ID.into(),
                secret_access_key: SECRET.into(),
                session_token: None,
            },
            backoff: Duration::from_millis(1),
            conditional_delete: !self.quirks.deletes_anyway,
            list_order: self.quirks.list_order,
            ..S3Settings::new(BUCKET)
        }
    }

    /// A driver with parts of a few bytes, so that small tests cross every edge.
    pub(crate) async fn store(&self) -> S3Store {
        self.store_with(self.settings()).await
    }

    /// A driver that knows nothing of what kind of store this is.
    pub(crate) async fn unknown_store(&self) -> S3Store {
        let of_s3 = S3Settings::new(BUCKET);
        let (conditional_delete, list_order) = (of_s3.conditional_delete, of_s3.list_order);
        self.store_with(S3Settings { conditional_delete, list_order, ..self.settings() }).await
    }

    pub(crate) async fn store_with(&self, settings: S3Settings) -> S3Store {
        let limits = Limits { conditional_delete: settings.conditional_delete, ..TINY_PARTS };
        S3Store::open_with(settings, limits).await
    }

    /// The next `times` requests of this kind go wrong.
    pub(crate) fn fail(&self, operation: Operation, fault: &Fault, times: usize) {
        let faults = std::iter::repeat_n(Some(fault.clone()), times);
        self.shared.plans.lock().unwrap().entry(operation).or_default().extend(faults);
    }

    /// The next `well` requests of this kind go well, and the one after them does not.
    pub(crate) fn fail_later(&self, operation: Operation, well: usize, fault: &Fault) {
        let plan = std::iter::repeat_n(None, well).chain([Some(fault.clone())]);
        self.shared.plans.lock().unwrap().entry(operation).or_default().extend(plan);
    }

    /// How often each operation was asked for, faults included. Counting starts again.
    pub(crate) fn take_calls(&self) -> BTreeMap<Operation, u64> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }

    /// A header of the last request of this kind.
    pub(crate) fn header(&self, operation: Operation, name: &str) -> Option<String> {
        let requests = self.shared.last.lock().unwrap();
        requests[&operation].get(name).map(|value| value.to_str().unwrap().to_owned())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // A connection that ends badly ended as told, or its client is gone.
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: Arc<Shared>, request: Request<hyper::body::Incoming>) -> io::Result<Answer> {
    let operation = Operation::of(request.method(), request.uri());
    *shared.calls.lock().unwrap().entry(operation).or_default() += 1;
    shared.last.lock().unwrap().insert(operation, request.headers().clone());
    tokio::time::sleep(shared.latency).await;
    let fault = shared.plans.lock().unwrap().get_mut(&operation).and_then(VecDeque::pop_front).flatten();
    if let Some(Fault::Refused(status, body)) = fault {
        request.into_body().collect().await.map_err(io::Error::other)?;
        return Ok(told(status, body));
    }
    let done = shared
        .service
        .call(request.map(s3s::Body::from))
        .await
        .map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut done = done.map(|body| body.map_err(io::Error::other).boxed_unsync());
    match fault {
        None | Some(Fault::Refused(..)) => Ok(done),
        Some(Fault::DoneBut(status, body)) => Ok(told(status, body)),
        Some(Fault::Unanswered) => Err(io::Error::other("as told")),
        Some(Fault::NoETag) => {
            done.headers_mut().remove(header::ETAG);
            Ok(done)
        }
        Some(Fault::Dated(date)) => {
            done.headers_mut().insert(header::DATE, header::HeaderValue::from_static(date));
            Ok(done)
        }
        Some(Fault::Torn) => {
            half(done, async {
                // What there is goes out first.
                tokio::task::yield_now().await;
                Err(io::Error::other("as told"))
            })
            .await
        }
        Some(Fault::Stalled) => half(done, std::future::pending()).await,
    }
}

/// The answer up to the middle of its body, and then this.
async fn half(
    done: Answer,
    then: impl Future<Output = io::Result<Frame<Bytes>>> + Send + 'static,
) -> io::Result<Answer> {
    let (head, body) = done.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let first = stream::iter([Ok(Frame::data(bytes.slice(..bytes.len() / 2)))]);
    Ok(Response::from_parts(head, StreamBody::new(first.chain(stream::once(then))).boxed_unsync()))
}

fn told(status: StatusCode, body: &'static str) -> Answer {
    let body = Full::from(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

impl Operation {
    fn of(method: &Method, uri: &Uri) -> Self {
        let on_object = uri.path().trim_matches('/').contains('/');
        let asks = |name: &str| {
            let query = uri.query().unwrap_or_default();
            form_urlencoded::parse(query.as_bytes()).any(|(it, _)| it == name)
        };
        match *method {
            Method::GET if !on_object && asks("list-type") => Self::List,
            Method::GET if on_object => Self::Get,
            Method::HEAD if on_object => Self::Head,
            Method::PUT if asks("partNumber") => Self::Part,
            Method::PUT if on_object => Self::Put,
            Method::POST if asks("uploads") => Self::Begin,
            Method::POST if asks("uploadId") => Self::Complete,
            Method::DELETE if asks("uploadId") => Self::Abort,
            Method::DELETE if on_object => Self::Delete,
            _ => Self::Other,
        }
    }
}
