//! Clients that are sent to the store for the bytes of blobs.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, Request, StatusCode, header, request::Builder},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::service::Service as _;
use hyper_util::{client::legacy, rt::TokioExecutor, service::TowerToHyperService};

use super::{Client, client, client_of, image};
use crate::{
    http::{self, Networks, Redirects},
    oci::{Algorithm, Digest},
    store::{
        Condition, Put, Store,
        memory::{MemoryStore, TINY_PARTS},
        s3::testing::{Operation, Quirks, Server},
    },
};

const LAYER: &[u8] = b"0123456789abcdefghij";
const INSIDE: [u8; 4] = [10, 0, 0, 7];
const OUTSIDE: [u8; 4] = [192, 0, 2, 7];
const PROXY: [u8; 4] = [172, 16, 0, 1];

/// An answer, and what it took to give it.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is_redirect(&self) -> bool {
        self.status == StatusCode::TEMPORARY_REDIRECT
    }
}

/// Redirects answers of ten bytes and more to clients from within.
fn redirects() -> Redirects {
    Redirects {
        clients: Networks::new([("10.0.0.0/8".parse().unwrap(), true)]),
        min_size: 10,
        life: Duration::from_mins(20),
    }
}

async fn send(client: &Client, redirects: Redirects, from: [u8; 4], request: Builder) -> Answer {
    let proxies = Networks::new([("172.16.0.0/16".parse().unwrap(), true)]);
    let settings = http::Settings { redirects, proxies, ..http::Settings::default() };
    let router = http::router(Arc::clone(&client.registry), settings);
    let peer = ConnectInfo(SocketAddr::from((from, 4242)));
    let request = request.extension(peer).body(Body::empty()).unwrap();
    let (head, body) = TowerToHyperService::new(router).call(request).await.unwrap().into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

/// Asks the store, as a client without credentials.
async fn follow(answer: &Answer, request: Builder) -> Answer {
    let request = request.uri(answer.header(header::LOCATION).unwrap()).body(Empty::<Bytes>::new()).unwrap();
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

fn get(digest: &Digest) -> Builder {
    Request::get(format!("/v2/library/some-image/blobs/{digest}"))
}

// REDIR-1, REDIR-2
#[tokio::test]
async fn a_client_that_is_sent_to_the_store_finds_the_blob_there() {
    let server = Server::start(Quirks::S3).await;
    let (client, store) = client(&server).await;
    let digest = client.push(LAYER, None).await.unwrap();
    client.registry.settle().await;
    store.take();
    server.take_calls();
    let answer = send(&client, redirects(), INSIDE, get(&digest)).await;
    assert!(answer.is_redirect(), "{answer:?}");
    assert_eq!(server.take_calls(), BTreeMap::from([(Operation::Get, 1)]), "the holder, and no byte of the blob");
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest.to_string()));
    assert_eq!(answer.header(header::CACHE_CONTROL), Some("no-store"), "what expires was to be kept");
    assert_eq!((answer.header(header::ETAG), answer.body.len()), (None, 0));
    assert!(answer.header(header::LOCATION).unwrap().contains("X-Amz-Expires=1200"), "{answer:?}");
    let found = follow(&answer, Request::get("/")).await;
    assert_eq!((found.status, &*found.body), (StatusCode::OK, LAYER));
}

// REDIR-2
#[tokio::test]
async fn nobody_is_sent_to_the_store_who_was_not_said_to_reach_it() {
    let server = Server::start(Quirks::S3).await;
    let (client, _) = client(&server).await;
    let digest = client.push(LAYER, None).await.unwrap();
    assert!(!send(&client, Redirects::default(), INSIDE, get(&digest)).await.is_redirect(), "it is on by default");
    let forwarded = |client: &str| get(&digest).header("X-Forwarded-For", client);
    for (peer, request, redirected) in [
        (INSIDE, get(&digest), true),
        (OUTSIDE, get(&digest), false),
        (PROXY, get(&digest), false),
        (PROXY, forwarded("10.0.0.7"), true),
        (PROXY, forwarded("10.0.0.7, 192.0.2.7"), false),
        (OUTSIDE, forwarded("10.0.0.7"), false),
    ] {
        let asked = format!("{peer:?} {request:?}");
        let answer = send(&client, redirects(), peer, request).await;
        assert_eq!(answer.is_redirect(), redirected, "{asked}");
        assert!(redirected || answer.body == LAYER, "{asked}");
    }
}

// REDIR-1
#[tokio::test]
async fn only_a_get_that_the_store_would_answer_alike_is_sent_there() {
    let server = Server::start(Quirks::S3).await;
    let (client, _) = client(&server).await;
    let digest = client.push(LAYER, None).await.unwrap();
    let small = client.push(b"123456789", None).await.unwrap();
    let blob = format!("/v2/library/some-image/blobs/{digest}");
    let tag = format!("\"{digest}\"");
    let range = |range: &str| get(&digest).header(header::RANGE, range);
    for (request, status, body) in [
        (Request::head(&blob), 200, &b""[..]),
        (get(&small), 200, b"123456789"),
        (range("bytes=0-8"), 206, b"012345678"),
        (range("bytes=-9"), 206, b"bcdefghij"),
        (range("bytes=3-1"), 416, b"?"),
        (range("bytes=20-"), 416, b"?"),
        (range("bytes=0-9,").header(header::IF_RANGE, &tag), 206, b"0123456789"),
        (range("bytes=0-9,"), 206, b"0123456789"),
        (range("bytes=0-9,10-19"), 206, b"?"),
        (range("lines=0-9"), 200, LAYER),
        (range("bytes=0-9").header(header::IF_RANGE, &tag), 206, b"0123456789"),
        (range("bytes=0-9").header(header::IF_RANGE, "\"another\""), 200, LAYER),
        (get(&digest).header(header::IF_MATCH, &tag), 200, LAYER),
        (get(&digest).header(header::IF_NONE_MATCH, &tag), 304, b""),
        (Request::get(format!("/v2/another/blobs/{digest}")), 404, b"?"),
        (get(&Digest::of(Algorithm::Sha256, b"never pushed")), 404, b"?"),
    ] {
        let asked = format!("{request:?}");
        let answer = send(&client, redirects(), INSIDE, request).await;
        assert_eq!(answer.status, status, "{asked}");
        assert!(body == b"?" || answer.body == body, "{asked}: {answer:?}");
    }
    let head = send(&client, redirects(), INSIDE, Request::head(&blob)).await;
    assert_eq!(head.header(header::CONTENT_LENGTH), Some("20"), "HEAD says the length itself");

    let answer = send(&client, redirects(), INSIDE, range("bytes=3-12")).await;
    assert!(answer.is_redirect(), "{answer:?}");
    let part = follow(&answer, Request::get("/").header(header::RANGE, "bytes=3-12")).await;
    assert_eq!(
        (part.status.as_u16(), part.header(header::CONTENT_RANGE), &*part.body),
        (206, Some("bytes 3-12/20"), &LAYER[3..13])
    );
}

// REDIR-1
#[tokio::test]
async fn manifests_and_uploads_are_never_sent_to_the_store() {
    let server = Server::start(Quirks::S3).await;
    let (client, _) = client(&server).await;
    let digest = client.push(LAYER, None).await.unwrap();
    let manifest = image((digest, LAYER.len()), &[]);
    let name = Digest::of(Algorithm::Sha256, manifest.as_bytes());
    let push = crate::registry::Push {
        target: crate::oci::Reference::Digest(name),
        tags: Vec::new(),
        content_type: None,
        bytes: manifest.clone().into(),
        condition: None,
    };
    client.registry.put_manifest(&client.name, push).await.unwrap();
    let everything = || Redirects { min_size: 0, ..redirects() };
    let read = Request::get(format!("/v2/library/some-image/manifests/{name}"));
    assert_eq!(send(&client, everything(), INSIDE, read).await.body, manifest);
    let start = Request::post("/v2/library/some-image/blobs/uploads/");
    let started = send(&client, everything(), INSIDE, start).await;
    assert_eq!(started.status, StatusCode::ACCEPTED);
    assert!(started.header(header::LOCATION).unwrap().starts_with("/v2/"), "{started:?}");
}

#[tokio::test]
async fn what_the_collector_may_take_is_served_here_and_no_url_is_given_away_that_may_soon_lead_nowhere() {
    let server = Server::start(Quirks::S3).await;
    let (client, store) = client(&server).await;
    let digest = client.push(LAYER, None).await.unwrap();
    for entry in store.list("blobs/", None, 10).await.unwrap() {
        let live = store.read(&entry.key).await.unwrap().unwrap();
        let condemned = [b"c", &live.bytes[1..]].concat();
        let put = store.put(&entry.key, condemned.into(), Condition::Replace(live.version)).await.unwrap();
        assert!(matches!(put, Put::Stored(_)), "{put:?}");
    }
    let answer = send(&client, redirects(), INSIDE, get(&digest)).await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, LAYER));
}

#[tokio::test]
async fn a_store_that_has_no_urls_is_read_for_the_client() {
    let (client, _) = client_of(Arc::new(MemoryStore::new(TINY_PARTS))).await;
    let digest = client.push(LAYER, None).await.unwrap();
    let answer = send(&client, redirects(), INSIDE, get(&digest)).await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, LAYER));
}
