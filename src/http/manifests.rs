//! Manifests, by digest and by tag: look, read, push, delete.

use axum::{
    body::Body,
    http::{HeaderName, StatusCode, header, response::Builder},
    response::Response,
};

use super::{CONTENT_DIGEST, Call, blobs::FOREVER, body, conditional, empty, error::Failure};
use crate::{
    oci::{Code, MAX_MANIFEST, Reference, ReferenceError, Repository, Tag},
    registry::{Error, ManifestHead, Push, SMALL_MANIFEST},
    store,
};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const FROM_MEMORY: &str = "marina-distribution; hit; detail=store-unavailable";
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Who says what an answer says.
#[derive(Clone, Copy)]
enum Source {
    Store,
    /// A replica that read it before, while the store gives no answer.
    Memory,
}

/// A reference to what may be here. By what is neither a tag nor a digest that we have, nothing can be found.
pub(super) fn held(reference: Result<Reference, ReferenceError>) -> Result<Reference, Failure> {
    reference.map_err(|_| Failure::from(Error::ManifestUnknown))
}

/// A reference under which a manifest can be pushed.
pub(super) fn pushed(reference: Result<Reference, ReferenceError>) -> Result<Reference, Failure> {
    reference.map_err(|error| Failure::digest(error.to_string()))
}

pub(super) async fn head(call: Call, repository: Repository, reference: Reference) -> Result<Response, Failure> {
    let (source, manifest) = match call.registry.head_manifest(&repository, &reference).await {
        Ok(manifest) => (Source::Store, manifest),
        Err(error) => (Source::Memory, call.registry.remembered_manifest(&repository, &reference, error)?.0),
    };
    let modified = !conditional::not_modified(&call.headers, &manifest.digest);
    Ok(describe(&reference, source, &manifest, modified).body(Body::empty())?)
}

pub(super) async fn get(call: Call, repository: Repository, reference: Reference) -> Result<Response, Failure> {
    let (source, manifest, bytes) = match call.registry.open_manifest(&repository, &reference).await {
        Ok((manifest, bytes)) => (Source::Store, manifest, bytes),
        Err(error) => {
            let (manifest, bytes) = call.registry.remembered_manifest(&repository, &reference, error)?;
            (Source::Memory, manifest, store::Body::Bytes(bytes))
        }
    };
    let modified = !conditional::not_modified(&call.headers, &manifest.digest);
    let body = if modified { body::exactly(manifest.size, bytes.into_stream()) } else { Body::empty() };
    Ok(describe(&reference, source, &manifest, modified).body(body)?)
}

pub(super) async fn put(call: Call, repository: Repository, target: Reference) -> Result<Response, Failure> {
    let Call { registry, headers, query, body, .. } = call;
    let (tags, condition) = match &target {
        Reference::Digest(_) => {
            conditional::none(&headers)?;
            (named(query.all("tag"))?, None)
        }
        Reference::Tag(_) => (Vec::new(), conditional::of_tag(&headers)?),
    };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).map(ToOwned::to_owned);
    let make_room = async |length| registry.room_for_manifest(length).await;
    let (bytes, _room) = body.read(MAX_MANIFEST, SMALL_MANIFEST, make_room).await?;
    let pushed = registry.put_manifest(&repository, Push { target, tags, content_type, bytes, condition }).await?;

    let mut response = empty(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{repository}/manifests/{}", pushed.digest))
        .header(CONTENT_DIGEST, pushed.digest.to_string());
    if let Some(subject) = pushed.subject {
        response = response.header(SUBJECT, subject.to_string());
    }
    for tag in pushed.tags {
        response = response.header(TAG, tag.as_str());
    }
    Ok(response.body(Body::empty())?)
}

pub(super) async fn delete(call: Call, repository: Repository, reference: Reference) -> Result<Response, Failure> {
    conditional::none(&call.headers)?;
    match reference {
        Reference::Digest(digest) => call.registry.delete_manifest(&repository, &digest).await?,
        Reference::Tag(tag) => call.registry.delete_tag(&repository, &tag).await?,
    }
    Ok(empty(StatusCode::ACCEPTED).body(Body::empty())?)
}

/// What a manifest's answer says before its bytes, or instead of them: 200, or 304 for a client that has them.
fn describe(reference: &Reference, source: Source, manifest: &ManifestHead, modified: bool) -> Builder {
    let response = match source {
        Source::Store => Response::builder(),
        Source::Memory => Response::builder().header(CACHE_STATUS, FROM_MEMORY),
    };
    response
        .status(if modified { StatusCode::OK } else { StatusCode::NOT_MODIFIED })
        .header(header::CONTENT_TYPE, &manifest.media_type)
        .header(header::CONTENT_LENGTH, manifest.size)
        .header(CONTENT_DIGEST, manifest.digest.to_string())
        .header(header::ETAG, conditional::etag(&manifest.digest))
        .header(header::CACHE_CONTROL, if matches!(reference, Reference::Digest(_)) { FOREVER } else { "no-cache" })
}

/// The tags of `?tag=`: all of them, or none is set.
fn named<'a>(tags: impl Iterator<Item = &'a str>) -> Result<Vec<Tag>, Failure> {
    let parse = |text: &str| {
        let illegal =
            || Failure::refuse(StatusCode::BAD_REQUEST, Code::ManifestInvalid, format!("not a tag: {text:?}"));
        Tag::parse(text).ok_or_else(illegal)
    };
    tags.map(parse).collect()
}
