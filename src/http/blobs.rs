//! Blobs: look, read, delete. They come in through `uploads`.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header, response::Builder},
    response::Response,
};

use super::{CONTENT_DIGEST, Call, Redirects, access, body, conditional, empty, error::Failure, multipart};
use crate::{
    oci::{Code, Digest, DigestError, RangeAnswer, Repository, answer_range},
    registry::{Blob, Registry},
    store::Span,
};

/// What a digest names never changes.
pub(super) const FOREVER: &str = "max-age=31536000, immutable";

/// The digest of a blob that may be here: not one of an algorithm by which nothing is stored.
pub(super) fn held(digest: Result<Digest, DigestError>) -> Result<Digest, Failure> {
    digest.map_err(|error| match error {
        DigestError::Malformed => Failure::from(error),
        DigestError::Unsupported => Failure::refuse(StatusCode::NOT_FOUND, Code::BlobUnknown, error.to_string()),
    })
}

pub(super) async fn head(call: Call, repository: Repository, digest: Digest) -> Result<Response, Failure> {
    let blob = call.registry.stat_blob(&repository, &digest).await?;
    if conditional::not_modified(&call.headers, &digest) {
        return not_modified(&blob);
    }
    let head = describe(StatusCode::OK, &blob).header(header::CONTENT_TYPE, OCTETS);
    Ok(head.header(header::CONTENT_LENGTH, blob.size).body(Body::empty())?)
}

pub(super) async fn get(
    call: Call,
    repository: Repository,
    digest: Digest,
    redirects: &Redirects,
) -> Result<Response, Failure> {
    let blob = call.registry.find_blob(&repository, &digest).await?;
    if conditional::not_modified(&call.headers, &digest) {
        return not_modified(&blob);
    }
    let answer = answer_range(conditional::range(&call.headers, &digest), blob.size);
    if let Some(away) = redirects.offer(&call.registry, (call.client, &call.headers), &blob, &answer).await? {
        return Ok(away);
    }
    match answer {
        RangeAnswer::Whole => {
            let whole = call.registry.stream_blob(&blob).await?;
            let body = if blob.size == 0 { Body::empty() } else { body::exactly(blob.size, whole) };
            Ok(describe(StatusCode::OK, &blob).header(header::CONTENT_TYPE, OCTETS).body(body)?)
        }
        RangeAnswer::Partial(spans) => partial(&call.registry, &blob, spans).await,
        RangeAnswer::Unsatisfiable => {
            let range = HeaderValue::try_from(format!("bytes */{}", blob.size))?;
            let message = "no byte of the blob is in the range";
            Err(Failure::refuse(StatusCode::RANGE_NOT_SATISFIABLE, Code::Unsupported, message)
                .with(header::CONTENT_RANGE, range))
        }
    }
}

pub(super) async fn delete(call: Call, repository: Repository, digest: Digest) -> Result<Response, Failure> {
    call.registry.delete_blob(&repository, &digest).await?;
    Ok(empty(StatusCode::ACCEPTED).body(Body::empty())?)
}

/// 201: the blob is in the repository, and there it can be read.
pub(super) fn created(repository: &Repository, digest: &Digest) -> Result<Response, Failure> {
    Ok(empty(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{repository}/blobs/{digest}"))
        .header(CONTENT_DIGEST, digest.to_string())
        .body(Body::empty())?)
}

const OCTETS: &str = "application/octet-stream";

fn describe(status: StatusCode, blob: &Blob) -> Builder {
    Response::builder()
        .status(status)
        .header(CONTENT_DIGEST, blob.digest.to_string())
        .header(header::ETAG, conditional::etag(&blob.digest))
        .header(header::CACHE_CONTROL, FOREVER)
        .header(header::ACCEPT_RANGES, "bytes")
}

fn not_modified(blob: &Blob) -> Result<Response, Failure> {
    // Without the length axum would say 0, which is not the length of what was not modified.
    Ok(describe(StatusCode::NOT_MODIFIED, blob).header(header::CONTENT_LENGTH, blob.size).body(Body::empty())?)
}

async fn partial(registry: &Arc<Registry>, blob: &Blob, spans: Vec<(u64, u64)>) -> Result<Response, Failure> {
    let head = describe(StatusCode::PARTIAL_CONTENT, blob);
    if let [(start, length)] = *spans.as_slice() {
        let body = read(registry, blob, Span::new(start, length), length).await?;
        let range = format!("bytes {start}-{}/{}", start + length - 1, blob.size);
        return Ok(head.header(header::CONTENT_TYPE, OCTETS).header(header::CONTENT_RANGE, range).body(body)?);
    }
    let boundary = access::random().simple().to_string();
    let (body, media_type) = multipart::byteranges(registry, blob, spans, &boundary);
    Ok(head.header(header::CONTENT_TYPE, media_type).body(body)?)
}

async fn read(registry: &Registry, blob: &Blob, span: Span, length: u64) -> Result<Body, Failure> {
    if length == 0 {
        return Ok(Body::empty());
    }
    Ok(body::exactly(length, registry.read_blob(blob, span).await?.into_stream()))
}
