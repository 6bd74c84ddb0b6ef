//! The only room that says method, header or status: it translates requests into calls of the registry, and what these
//! return into answers.
//!
//! `Route` says what a path names; `dispatch` says what each method does there; one short handler for
//! each, in the file named after its noun, parses, calls and answers. What all answers have in common is put on in
//! `serve`.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, response::Builder},
    response::Response,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use tracing::Instrument as _;

use self::{
    access::{Line, RequestId},
    body::Incoming,
    error::Failure,
    query::Query,
    route::Route,
};
use crate::registry::{Registry, on_behalf_of};

mod access;
mod blobs;
mod body;
mod catalog;
mod conditional;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod manifests;
mod multipart;
mod networks;
mod opening;
mod page;
mod query;
mod redirect;
mod referrers;
mod route;
mod tags;
mod uploads;

pub use networks::Networks;
pub use opening::Opening;
pub use redirect::Redirects;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether manifests, tags and blobs can be deleted.
    pub deletes: bool,
    /// Who fetches blobs from the store itself.
    pub redirects: Redirects,
    /// Proxies that may say for whom they ask.
    pub proxies: Networks,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deletes: true, redirects: Redirects::default(), proxies: Networks::default() }
    }
}

/// The registry over HTTP. Until it is open, requests are put off.
pub fn router(registry: impl Into<Opening>, settings: Settings) -> Router {
    Router::new().fallback(serve).with_state(Service { opening: registry.into(), settings: Arc::new(settings) })
}

#[derive(Clone)]
struct Service {
    opening: Opening,
    settings: Arc<Settings>,
}

/// What a handler has to work with: one request, its body not yet begun.
struct Call {
    registry: Arc<Registry>,
    /// Who sent it, as far as that is known: a proxy that is not trusted speaks for itself.
    client: Option<IpAddr>,
    headers: HeaderMap,
    query: Query,
    body: Incoming,
}

async fn serve(State(service): State<Service>, request: Request) -> Response {
    let id = RequestId::fresh();
    let (head, body) = request.into_parts();
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.ip());
    let client = peer.and_then(|peer| networks::client(peer, &head.headers, &service.settings.proxies));
    let line = Line::new(id, &head, client);
    let body = Incoming::new(body, &head.headers);
    let route = Route::parse(head.uri.path());

    let answering = async {
        let Some(registry) = service.opening.registry().cloned() else {
            return opening::put_off(&route?, &head.method);
        };
        let call = Call { registry, client, query: Query::parse(head.uri.query()), headers: head.headers, body };
        let by = client.map(|client| client.to_string().into());
        on_behalf_of(by, dispatch(route?, head.method, call, &service.settings)).await
    };
    let answering = answering.instrument(tracing::info_span!("request", %id));
    let answer = AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_| Err(Failure::panicked()));

    let mut response = answer.unwrap_or_else(|failure| failure.into_response(&id));
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(id.header().map(|id| (REQUEST_ID, id)));
    line.follow(response)
}

/// What each method does at each route.
async fn dispatch(route: Route, method: Method, call: Call, settings: &Settings) -> Result<Response, Failure> {
    let allow = route.allow(settings.deletes);
    match (route, method) {
        (Route::Alive, Method::GET | Method::HEAD) => text("ok\n"),
        (Route::Ready, Method::GET | Method::HEAD) => match call.registry.ready().await {
            Ok(()) => text("ok\n"),
            Err(why) => error::not_ready(why),
        },
        (Route::Ping, Method::GET | Method::HEAD) => json("{}"),
        (Route::Extensions, Method::GET | Method::HEAD) => json(r#"{"extensions":[]}"#),
        (Route::Catalog, Method::GET | Method::HEAD) => catalog::list(call).await,
        (Route::Tags(repository), Method::GET | Method::HEAD) => tags::list(call, repository).await,
        (Route::History(repository, tag), Method::GET | Method::HEAD) => {
            tags::history(call, repository, tags::held(tag)?).await
        }
        (Route::Referrers(repository, subject), Method::GET | Method::HEAD) => {
            referrers::list(call, repository, subject).await
        }

        (Route::Blob(repository, digest), Method::HEAD) => blobs::head(call, repository, blobs::held(digest)?).await,
        (Route::Blob(repository, digest), Method::GET) => {
            blobs::get(call, repository, blobs::held(digest)?, &settings.redirects).await
        }
        (Route::Blob(repository, digest), Method::DELETE) if settings.deletes => {
            blobs::delete(call, repository, blobs::held(digest)?).await
        }

        (Route::Uploads(repository), Method::POST) => uploads::start(call, repository).await,
        (Route::Upload(repository, id), Method::GET | Method::HEAD) => {
            uploads::status(call, repository, uploads::issued(id)?).await
        }
        (Route::Upload(repository, id), Method::PATCH) => uploads::append(call, repository, uploads::issued(id)?).await,
        (Route::Upload(repository, id), Method::PUT) => uploads::finish(call, repository, uploads::issued(id)?).await,
        (Route::Upload(repository, id), Method::DELETE) => {
            uploads::cancel(call, repository, uploads::issued(id)?).await
        }

        (Route::Manifest(repository, reference), Method::HEAD) => {
            manifests::head(call, repository, manifests::held(reference)?).await
        }
        (Route::Manifest(repository, reference), Method::GET) => {
            manifests::get(call, repository, manifests::held(reference)?).await
        }
        (Route::Manifest(repository, reference), Method::PUT) => {
            manifests::put(call, repository, manifests::pushed(reference)?).await
        }
        (Route::Manifest(repository, reference), Method::DELETE) if settings.deletes => {
            manifests::delete(call, repository, manifests::held(reference)?).await
        }

        _ => Err(Failure::method(allow)),
    }
}

fn json(body: impl Into<Body>) -> Result<Response, Failure> {
    content("application/json", body)
}

fn text(body: impl Into<Body>) -> Result<Response, Failure> {
    content("text/plain; charset=utf-8", body)
}

/// 200, for a body held in memory.
fn content(media_type: &str, body: impl Into<Body>) -> Result<Response, Failure> {
    Ok(Response::builder().header(header::CONTENT_TYPE, media_type).body(body.into())?)
}

/// 204, which must not say a length. Of an empty body axum would say that it is 0.
fn no_content() -> Result<Response, Failure> {
    let nothing = stream::empty::<Result<Bytes, Infallible>>();
    Ok(empty(StatusCode::NO_CONTENT).body(Body::from_stream(nothing))?)
}

/// An answer that is all in its head.
fn empty(status: StatusCode) -> Builder {
    Response::builder().status(status)
}
