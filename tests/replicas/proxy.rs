//! Between the registry and its store: passes requests on, late, or answers them itself, or loses the answer.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, Uri, body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::load::content::Random;

/// What becomes of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weather {
    Fair,
    /// Each takes this much longer.
    Slow(Duration),
    /// This many of a hundred are refused as too many.
    SlowDown(usize),
    /// This many of a hundred find no way to the store, and are told so by who stands before it.
    Astray(usize),
    /// Of this many of a hundred the answer is lost, after they were done.
    Cut(usize),
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    store: SocketAddr,
    client: Client<HttpConnector, Incoming>,
    weather: Mutex<Weather>,
    random: Mutex<Random>,
    /// How many requests did not go as they should.
    spoilt: AtomicU64,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

impl Proxy {
    /// It works until the process ends.
    pub(crate) fn start(store: SocketAddr, seed: u64) -> Self {
        let (address, listening) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared {
            store,
            client: Client::builder(TokioExecutor::new()).build_http(),
            weather: Mutex::new(Weather::Fair),
            random: Mutex::new(Random(seed)),
            spoilt: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            Runtime::new().unwrap().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                accept(listener, serving).await;
            });
        });
        Self { address: listening.recv().unwrap(), shared }
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    pub(crate) fn spoilt(&self) -> u64 {
        self.shared.spoilt.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        tokio::spawn(async move {
            // An answer that is lost ends the connection.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, mut request: Request<Incoming>) -> io::Result<Answer> {
    let weather = *shared.weather.lock().unwrap();
    let hits = |percent| shared.random.lock().unwrap().below(100) < percent;
    match weather {
        Weather::Slow(time) => tokio::time::sleep(time).await,
        Weather::SlowDown(percent) if hits(percent) => {
            shared.spoilt.fetch_add(1, Ordering::Relaxed);
            return Ok(slow_down());
        }
        Weather::Astray(percent) if hits(percent) => {
            shared.spoilt.fetch_add(1, Ordering::Relaxed);
            return Ok(refused(hyper::StatusCode::NOT_FOUND, "404 page not found\n"));
        }
        _ => {}
    }
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(hyper::http::uri::Scheme::HTTP);
    uri.authority = Some(shared.store.to_string().parse().map_err(io::Error::other)?);
    *request.uri_mut() = Uri::from_parts(uri).map_err(io::Error::other)?;
    let answer = shared.client.request(request).await.map_err(io::Error::other)?;
    if matches!(weather, Weather::Cut(percent) if hits(percent)) {
        // It is done to its end.
        answer.into_body().collect().await.map_err(io::Error::other)?;
        shared.spoilt.fetch_add(1, Ordering::Relaxed);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(answer.map(BodyExt::boxed))
}

/// As MinIO and AWS say it.
fn slow_down() -> Answer {
    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    refused(hyper::StatusCode::SERVICE_UNAVAILABLE, body)
}

fn refused(status: hyper::StatusCode, body: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = status;
    answer
}
