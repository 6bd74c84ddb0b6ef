//! Sending a client to the store for the bytes of a blob. A GET only: the method is signed with the URL, and what is not
//! a blob is small.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};

use super::{CONTENT_DIGEST, empty, error::Failure, networks::Networks};
use crate::{
    oci::{Digest, RangeAnswer},
    registry::{Blob, Registry},
};

/// Who is sent to the store, and for what. By default, nobody.
#[derive(Clone, Debug, Default)]
pub struct Redirects {
    /// Clients that reach the store.
    pub clients: Networks,
    /// Below this many bytes, asking twice takes longer than having them passed on.
    pub min_size: u64,
    /// How long a URL is valid. A download that has begun goes on.
    pub life: Duration,
}

impl Redirects {
    /// The way to the store, for a client and a request that may be sent there.
    pub(super) async fn offer(
        &self,
        registry: &Registry,
        (client, headers): (Option<IpAddr>, &HeaderMap),
        blob: &Blob,
        answer: &RangeAnswer,
    ) -> Result<Option<Response>, Failure> {
        let length = store_would_send(headers, blob, answer).unwrap_or_default();
        if length < self.min_size.max(1) || !client.is_some_and(|client| self.clients.contain(client)) {
            return Ok(None);
        }
        let url = registry.blob_url(blob, self.life).await?;
        url.map(|url| see(&url, &blob.digest)).transpose()
    }
}

/// How many bytes the store would send to who repeats this request there; `None` if it would not answer as we do. It has
/// tags and dates of its own for what is in it, and no store sends several ranges.
fn store_would_send(headers: &HeaderMap, blob: &Blob, answer: &RangeAnswer) -> Option<u64> {
    let conditions = [header::IF_RANGE, header::IF_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];
    if conditions.into_iter().any(|condition| headers.contains_key(condition)) {
        return None;
    }
    match answer {
        RangeAnswer::Whole if !headers.contains_key(header::RANGE) => Some(blob.size),
        RangeAnswer::Partial(spans) => match spans.as_slice() {
            [(_, length)] if is_single(headers) => Some(*length),
            _ => None,
        },
        RangeAnswer::Whole | RangeAnswer::Unsatisfiable => None,
    }
}

fn is_single(headers: &HeaderMap) -> bool {
    headers.get(header::RANGE).is_some_and(|range| !range.as_bytes().contains(&b','))
}

/// 307. Whoever keeps it gives away a key, and one that stops working.
fn see(url: &str, digest: &Digest) -> Result<Response, Failure> {
    Ok(empty(StatusCode::TEMPORARY_REDIRECT)
        .header(header::LOCATION, url)
        .header(CONTENT_DIGEST, digest.to_string())
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::empty())?)
}
