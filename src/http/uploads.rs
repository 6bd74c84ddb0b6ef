//! Upload sessions: start, send, ask, close, cancel. What a session's URL says is its id alone; where the session stands
//! is what the registry recorded.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

use super::{Call, blobs, empty, error::Failure, no_content};
use crate::{
    oci::{Algorithm, Code, ContentRange, Digest, Repository},
    registry::{Error, Progress, SessionId, Whole},
};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The id of a session that may exist.
pub(super) fn issued(id: Option<SessionId>) -> Result<SessionId, Failure> {
    id.ok_or_else(|| Failure::from(Error::UploadUnknown))
}

/// A mount, a whole blob, or a session: what cannot be mounted, or was not sent, is to be uploaded.
pub(super) async fn start(call: Call, repository: Repository) -> Result<Response, Failure> {
    let Call { registry, query, body, .. } = call;
    if let Some(digest) = query.first("mount").and_then(|it| Digest::parse(it).ok()) {
        let from = query.first("from").map(Repository::parse);
        let mounted = match from.transpose() {
            Ok(from) => registry.mount(&repository, &digest, from.as_ref()).await?,
            Err(_) => false,
        };
        if mounted {
            return blobs::created(&repository, &digest);
        }
    }
    let mut algorithm = hinted(query.first("digest-algorithm"))?;
    if let Some(digest) = query.first("digest") {
        let digest = Digest::parse(digest)?;
        match registry.upload_whole(&repository, &digest, body.into_chunk(None)).await? {
            Whole::Stored => return blobs::created(&repository, &digest),
            Whole::NothingSent => algorithm = digest.algorithm(),
        }
    }
    let id = registry.start_upload(&repository, algorithm);
    progress(accepted()?, &repository, &Progress { id, received: 0 })
}

pub(super) async fn status(call: Call, repository: Repository, id: SessionId) -> Result<Response, Failure> {
    let stands = call.registry.upload_status(&repository, id).await?;
    progress(no_content()?, &repository, &stands)
}

pub(super) async fn append(call: Call, repository: Repository, id: SessionId) -> Result<Response, Failure> {
    let Call { registry, headers, body, .. } = call;
    let range = match content_range(&headers) {
        Ok(range) => range,
        Err(refusal) => {
            // That there is no such session goes before what is wrong with the request.
            registry.upload_status(&repository, id).await?;
            return Err(refusal);
        }
    };
    let appended = registry.append(&repository, id, body.into_chunk(range)).await;
    progress(accepted()?, &repository, &appended.map_err(|error| refused(&repository, error))?)
}

pub(super) async fn finish(call: Call, repository: Repository, id: SessionId) -> Result<Response, Failure> {
    let Call { registry, headers, query, body, .. } = call;
    let asked = content_range(&headers).and_then(|range| Ok((range, named(query.first("digest"))?)));
    let (range, digest) = match asked {
        Ok(asked) => asked,
        Err(refusal) => {
            registry.upload_status(&repository, id).await?;
            return Err(refusal);
        }
    };
    let finished = registry.finish(&repository, id, &digest, body.into_chunk(range)).await;
    finished.map_err(|error| refused(&repository, error))?;
    blobs::created(&repository, &digest)
}

pub(super) async fn cancel(call: Call, repository: Repository, id: SessionId) -> Result<Response, Failure> {
    call.registry.cancel_upload(&repository, id).await?;
    no_content()
}

/// By which algorithm the client means to name the blob. A hint: the closing PUT decides.
fn hinted(algorithm: Option<&str>) -> Result<Algorithm, Failure> {
    let Some(text) = algorithm else { return Ok(Algorithm::Sha256) };
    Algorithm::parse(text).ok_or_else(|| Failure::digest(format!("unsupported digest algorithm: {text:?}")))
}

fn named(digest: Option<&str>) -> Result<Digest, Failure> {
    Ok(Digest::parse(digest.ok_or_else(|| Failure::digest("the parameter digest is missing"))?)?)
}

fn content_range(headers: &HeaderMap) -> Result<Option<ContentRange>, Failure> {
    let Some(header) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let range = header.to_str().ok().and_then(ContentRange::parse);
    range.map(Some).ok_or_else(|| {
        let message = "Content-Range is not <start>-<end>";
        Failure::refuse(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, message)
    })
}

fn accepted() -> Result<Response, Failure> {
    Ok(empty(StatusCode::ACCEPTED).body(Body::empty())?)
}

/// Where a session stands, as it is said on success and when a chunk does not fit.
fn progress(mut response: Response, repository: &Repository, stands: &Progress) -> Result<Response, Failure> {
    response.headers_mut().extend(standing(repository, stands)?);
    Ok(response)
}

/// A chunk out of order is told where the session stands, so that the client can go on from there without asking.
fn refused(repository: &Repository, error: Error) -> Failure {
    let Error::OutOfOrder(stands) = &error else { return error.into() };
    match standing(repository, stands) {
        Ok(headers) => {
            headers.into_iter().fold(error.into(), |failure: Failure, (name, value)| failure.with(name, value))
        }
        Err(failure) => failure,
    }
}

fn standing(repository: &Repository, stands: &Progress) -> Result<[(HeaderName, HeaderValue); 3], Failure> {
    let Progress { id, received } = stands;
    // Inclusive, without a unit, and 0-0 both for nothing and for one byte: clients know no other form.
    let last = received.saturating_sub(1);
    Ok([
        (header::LOCATION, HeaderValue::try_from(format!("/v2/{repository}/blobs/uploads/{id}"))?),
        (header::RANGE, HeaderValue::try_from(format!("0-{last}"))?),
        (UPLOAD_UUID, HeaderValue::try_from(id.to_string())?),
    ])
}
