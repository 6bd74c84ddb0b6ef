use std::{fmt, future::IntoFuture, net::SocketAddr, pin::Pin};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) type Client = legacy::Client<HttpConnector, BoxBody<Bytes, std::io::Error>>;

pub(super) fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

fn client_of_http2() -> Client {
    legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// A request on its way.
pub(crate) struct Sending {
    client: Client,
    address: SocketAddr,
    method: String,
    url: String,
    headers: HeaderMap,
    body: BoxBody<Bytes, std::io::Error>,
}

impl Sending {
    pub(super) fn new(client: Client, address: SocketAddr, method: &str, url: &str) -> Self {
        let body = Full::default().map_err(|never| match never {}).boxed();
        let headers = HeaderMap::new();
        Self { client, address, method: method.to_owned(), url: url.to_owned(), headers, body }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// With `Content-Length`.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).map_err(|never| match never {}).boxed();
        self
    }

    /// Without `Content-Length`, in frames of a few bytes.
    pub(crate) fn chunked(mut self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let frames: Vec<_> = body.chunks(1000).map(|it| Ok(Frame::data(Bytes::copy_from_slice(it)))).collect();
        self.body = StreamBody::new(stream::iter(frames)).boxed();
        self
    }

    pub(crate) fn http2(mut self) -> Self {
        self.client = client_of_http2();
        self
    }

    async fn send(self) -> Reply {
        let method = Method::try_from(self.method.as_str()).unwrap();
        let mut request = Request::builder().method(method).uri(format!("http://{}{}", self.address, self.url));
        *request.headers_mut().unwrap() = self.headers;
        let what = format!("{} {}", self.method, self.url);
        let response = self.client.request(request.body(self.body).unwrap()).await;
        let (head, body) = response.unwrap_or_else(|error| panic!("{what}: {error:?}")).into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{what}: {error:?}")).to_bytes();
        let reply = Reply { what, status: head.status, version: head.version, headers: head.headers, body };
        reply.check(&self.method);
        reply
    }
}

impl IntoFuture for Sending {
    type Output = Reply;
    type IntoFuture = Pin<Box<dyn Future<Output = Reply>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// An answer. Its methods assert.
pub(crate) struct Reply {
    what: String,
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// What holds for every answer.
    fn check(&self, method: &str) {
        // GEN-2
        self.has("docker-distribution-api-version", "registry/2.0");
        // GEN-17
        self.has("x-content-type-options", "nosniff");
        assert_eq!(self.header("x-request-id").len(), 36, "{self:?}");
        // GEN-5
        self.lacks("content-encoding");
        // GEN-4: every answer that can have a length has it, and it is right.
        self.lacks("transfer-encoding");
        match self.status {
            StatusCode::NO_CONTENT => self.lacks("content-length"),
            StatusCode::NOT_MODIFIED => self.body_is(""),
            _ if method == "HEAD" => self.body_is(""),
            _ => self.has("content-length", &self.body.len().to_string()),
        };
        // GEN-16, ERR-1
        if self.status.is_client_error() && method != "HEAD" {
            self.check_error();
        }
    }

    fn check_error(&self) {
        self.has("content-type", "application/json");
        let body = self.json();
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["errors"], "{self:?}");
        let errors = body["errors"].as_array().unwrap();
        assert!(!errors.is_empty(), "{self:?}");
        for error in errors {
            // ERR-2
            assert!(CODES.contains(&error["code"].as_str().unwrap()), "{self:?}");
            assert!(error["message"].is_string(), "{self:?}");
        }
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// The header is there once, with this value.
    #[track_caller]
    pub(crate) fn has(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.all(name), [value], "{name} of {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn lacks(&self, name: &str) -> &Self {
        assert!(!self.headers.contains_key(name), "{name} of {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn body_is(&self, body: impl AsRef<[u8]>) -> &Self {
        assert!(self.body.as_ref() == body.as_ref(), "another body: {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json_is(&self, body: &Value) -> &Self {
        assert_eq!(self.json(), *body, "{self:?}");
        self
    }

    /// PUSH-12: the blob is in the repository.
    #[track_caller]
    pub(crate) fn is_created(&self, repository: &str, digest: &str) -> &Self {
        self.is(201).has("location", &format!("/v2/{repository}/blobs/{digest}"));
        self.has("docker-content-digest", digest).has("content-length", "0").body_is("")
    }

    /// A refusal with this code.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str) -> &Self {
        self.is(status);
        let codes: Vec<_> = self.errors().into_iter().map(|error| error["code"].clone()).collect();
        assert!(codes.iter().all(|it| it == code), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn errors(&self) -> Vec<Value> {
        self.json()["errors"].as_array().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("{name} of {self:?}"));
        value.to_str().unwrap()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect()
    }

    #[track_caller]
    pub(crate) fn location(&self) -> String {
        self.header(header::LOCATION.as_str()).to_owned()
    }

    /// The path that `Link` leads to, if there is a next page.
    #[track_caller]
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.headers.get(header::LINK)?.to_str().unwrap();
        let path = link.strip_prefix('<').and_then(|it| it.strip_suffix(">; rel=\"next\""));
        let path = path.unwrap_or_else(|| panic!("{self:?}"));
        // TAGS-9: a path, so that no client takes it for another host's.
        assert!(path.starts_with("/v2/"), "{self:?}");
        Some(path.to_owned())
    }

    /// The list that is in a field of the body.
    #[track_caller]
    pub(crate) fn list<T: DeserializeOwned>(&self, field: &str) -> Vec<T> {
        serde_json::from_value(self.json()[field].clone()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let start: String = body.chars().take(500).collect();
        write!(f, "{}: {} {:?} {} bytes: {start}", self.what, self.status, self.headers, self.body.len())
    }
}

/// ERR-2
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNSUPPORTED",
];
