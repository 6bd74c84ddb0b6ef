//! Refusals and failures on their way to the wire: one exhaustive map.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, header::InvalidHeaderValue},
    response::Response,
};
use serde_json::json;

use super::{access::RequestId, body::Unread, route::RouteError};
use crate::{
    oci::{Code, DigestError, ErrorBody, ErrorEntry, MAX_MANIFEST},
    registry::Error,
    store::{self, Causes},
};

/// After how many seconds what failed for now is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Everything of a refusal's answer but the id of its request.
#[derive(Debug)]
pub(super) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    errors: Errors,
    headers: HeaderMap,
}

#[derive(Debug)]
enum Errors {
    /// The client's to mend, and so told in full.
    Told(ErrorBody),
    /// Ours: the client learns what it can do, the log learns why.
    Logged { code: Code, message: &'static str, cause: String },
}

impl Failure {
    pub(super) fn refuse(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self::new(status, Errors::Told(ErrorBody::new(ErrorEntry::new(code, message))))
    }

    /// The request is one that we do not do.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::refuse(StatusCode::BAD_REQUEST, Code::Unsupported, message)
    }

    pub(super) fn digest(message: impl Into<String>) -> Self {
        Self::refuse(StatusCode::BAD_REQUEST, Code::DigestInvalid, message)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        Self::refuse(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, "the method is not supported here")
            .with(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// What a panic leaves behind.
    pub(super) fn panicked() -> Self {
        Self::internal("the handler panicked".into())
    }

    fn internal(cause: String) -> Self {
        let message = "internal error";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Errors::Logged { code: Code::Unknown, message, cause })
    }

    fn new(status: StatusCode, errors: Errors) -> Self {
        Self(Box::new(Parts { status, errors, headers: HeaderMap::new() }))
    }

    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    pub(super) fn into_response(self, id: &RequestId) -> Response {
        let Parts { status, errors, headers } = *self.0;
        let body = match errors {
            Errors::Told(body) => body,
            Errors::Logged { code, message, cause } => {
                tracing::error!(request = %id, status = status.as_u16(), cause, "{message}");
                ErrorBody::new(ErrorEntry::new(code, format!("{message} (request {id})")))
            }
        };
        let mut response = Response::new(Body::from(body.to_json()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let refuse = |status, code| Self::refuse(status, code, message.clone());
        match error {
            Error::NameUnknown => refuse(StatusCode::NOT_FOUND, Code::NameUnknown),
            Error::BlobUnknown(digest) => {
                let entry = ErrorEntry::new(Code::BlobUnknown, message).with_detail(json!({ "digest": digest }));
                Self::new(StatusCode::NOT_FOUND, Errors::Told(ErrorBody::new(entry)))
            }
            Error::UploadUnknown => refuse(StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
            Error::UploadInvalid(_) => refuse(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid),
            // Where the session stands is said by the headers that `uploads` adds.
            Error::OutOfOrder(_) => refuse(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
            // Of a body that broke off mostly nobody is left to read this.
            Error::SizeInvalid { .. } | Error::BodyTorn => refuse(StatusCode::BAD_REQUEST, Code::SizeInvalid),
            Error::DigestMismatch { .. } => refuse(StatusCode::BAD_REQUEST, Code::DigestInvalid),
            Error::ManifestUnknown | Error::NotRestorable(_) => refuse(StatusCode::NOT_FOUND, Code::ManifestUnknown),
            Error::ManifestInvalid(_) => refuse(StatusCode::BAD_REQUEST, Code::ManifestInvalid),
            Error::ManifestBlobUnknown(digests) => {
                let first = ErrorEntry::new(Code::ManifestBlobUnknown, message.clone());
                let entry = |digest| first.clone().with_detail(json!({ "digest": digest }));
                let mut entries = digests.iter().map(entry);
                let first = ErrorBody::new(entries.next().unwrap_or_else(|| first.clone()));
                Self::new(StatusCode::BAD_REQUEST, Errors::Told(entries.fold(first, ErrorBody::and)))
            }
            // Not MANIFEST_INVALID, upon which podman tries again in another format.
            Error::TagConditionFailed => refuse(StatusCode::PRECONDITION_FAILED, Code::Denied),
            Error::TooManyTags => refuse(StatusCode::URI_TOO_LONG, Code::Unsupported),
            Error::Busy => refuse(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests).later(),
            Error::Full(error) => {
                let cause = Causes(&error).to_string();
                let errors = Errors::Logged { code: Code::Denied, message: "the store has no room left", cause };
                Self::new(StatusCode::INSUFFICIENT_STORAGE, errors)
            }
            Error::Store(error) | Error::Refused(error) => {
                let message = "the store is unavailable; try again";
                Self::put_off(StatusCode::SERVICE_UNAVAILABLE, message, &error)
            }
            Error::Throttled(error) => {
                let message = "the store is asked too much; try again more slowly";
                Self::put_off(StatusCode::TOO_MANY_REQUESTS, message, &error)
            }
            Error::Corrupt(error) => Self::internal(Causes(&error).to_string()),
        }
    }
}

impl Failure {
    /// The store could not do it now.
    fn put_off(status: StatusCode, message: &'static str, error: &store::Error) -> Self {
        Self::new(status, Errors::Logged { code: Code::TooManyRequests, message, cause: Causes(error).to_string() })
            .later()
    }

    fn later(self) -> Self {
        self.with(header::RETRY_AFTER, RETRY_AFTER)
    }
}

/// 503, for those who decide where requests go. Why is said in two words, and the rest in the log.
pub(super) fn not_ready(why: store::ErrorKind) -> Result<Response, Failure> {
    let mut response = super::text(format!("{why}\n"))?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    Ok(response)
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Unknown => Self::refuse(StatusCode::NOT_FOUND, Code::Unsupported, "there is no such endpoint"),
            RouteError::Name(error) => Self::refuse(StatusCode::BAD_REQUEST, Code::NameInvalid, error.to_string()),
        }
    }
}

impl From<DigestError> for Failure {
    fn from(error: DigestError) -> Self {
        Self::digest(error.to_string())
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => {
                let message = format!("a manifest has at most {MAX_MANIFEST} bytes");
                Self::refuse(StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid, message)
            }
            Unread::Torn(_) => Error::BodyTorn.into(),
        }
    }
}

/// What we wanted to say does not fit into a header: ours to mend.
impl From<axum::http::Error> for Failure {
    fn from(error: axum::http::Error) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<InvalidHeaderValue> for Failure {
    fn from(error: InvalidHeaderValue) -> Self {
        Self::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use crate::store::ErrorKind;

    /// Status, `Retry-After`, and the error entries.
    async fn sent(failure: impl Into<Failure>) -> (u16, Option<HeaderValue>, Vec<Value>) {
        let response = failure.into().into_response(&RequestId::fresh());
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let (head, body) = response.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        (
            head.status.as_u16(),
            head.headers.get(header::RETRY_AFTER).cloned(),
            body["errors"].as_array().unwrap().clone(),
        )
    }

    // ERR-1, ERR-2, ERR-4, GEN-16: what the tests of the API do not come to
    #[tokio::test]
    async fn each_error_has_its_status_and_its_code() {
        let damaged = || store::Error::new(ErrorKind::Corrupt, "data/00/secret");
        for (error, status, code, again) in [
            (Error::Busy, 503, "TOOMANYREQUESTS", true),
            (Error::Store(store::Error::new(ErrorKind::Unavailable, "secret")), 503, "TOOMANYREQUESTS", true),
            (Error::Refused(store::Error::new(ErrorKind::Refused, "secret")), 503, "TOOMANYREQUESTS", true),
            (Error::Throttled(store::Error::new(ErrorKind::Throttled, "secret")), 429, "TOOMANYREQUESTS", true),
            (Error::Full(store::Error::new(ErrorKind::Full, "secret")), 507, "DENIED", false),
            (Error::Corrupt(damaged()), 500, "UNKNOWN", false),
            (Error::BodyTorn, 400, "SIZE_INVALID", false),
            (Error::NameUnknown, 404, "NAME_UNKNOWN", false),
            (Error::TooManyTags, 414, "UNSUPPORTED", false),
            (Error::TagConditionFailed, 412, "DENIED", false),
            (Error::ManifestBlobUnknown(Vec::new()), 400, "MANIFEST_BLOB_UNKNOWN", false),
        ] {
            let name = format!("{error:?}");
            // Of what the store did the log says more, under the id.
            let is_logged = error.source().is_some();
            let (is, retry_after, errors) = sent(error).await;
            assert_eq!((is, retry_after.is_some(), errors.len()), (status, again, 1), "{name}");
            assert_eq!(errors[0]["code"], code, "{name}");
            assert!(!errors[0].to_string().contains("secret"), "{errors:?}");
            assert_eq!(errors[0]["message"].as_str().unwrap().contains("(request "), is_logged, "{name}");
        }
    }
}
