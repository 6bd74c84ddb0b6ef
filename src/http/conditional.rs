//! Entity tags and the conditions upon them. The tag of what a digest names is the digest, in quotes.

use axum::http::{HeaderMap, HeaderName, header};

use super::error::Failure;
use crate::{oci::Digest, registry::TagCondition};

pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// `If-None-Match` names what we would send: 304.
pub(super) fn not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    let digest = digest.to_string();
    tags(headers, header::IF_NONE_MATCH).any(|tag| tag == "*" || tag == digest)
}

/// The range that is asked for: not if `If-Range` names other bytes than ours, nor if there are several headers.
pub(super) fn range<'a>(headers: &'a HeaderMap, digest: &Digest) -> Option<&'a str> {
    if let Some(tag) = headers.get(header::IF_RANGE)
        && tag.as_bytes() != etag(digest).as_bytes()
    {
        return None;
    }
    let mut ranges = headers.get_all(header::RANGE).iter();
    let range = ranges.next()?.to_str().ok();
    if ranges.next().is_some() { None } else { range }
}

/// The condition of a tag's PUT. One that we cannot hold is refused, never ignored.
pub(super) fn of_tag(headers: &HeaderMap) -> Result<Option<TagCondition>, Failure> {
    let matches: Vec<_> = tags(headers, header::IF_MATCH).collect();
    let none_match: Vec<_> = tags(headers, header::IF_NONE_MATCH).collect();
    match (matches.as_slice(), none_match.as_slice()) {
        ([], []) if !headers.contains_key(header::IF_MATCH) && !headers.contains_key(header::IF_NONE_MATCH) => Ok(None),
        ([], ["*"]) => Ok(Some(TagCondition::Absent)),
        ([digest], []) if let Ok(digest) = Digest::parse(digest) => Ok(Some(TagCondition::Is(digest))),
        _ => Err(Failure::unsupported("a tag takes If-None-Match: * or If-Match: \"<digest>\"")),
    }
}

/// What takes no condition: the same.
pub(super) fn none(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH) {
        return Err(Failure::unsupported("only a push to a tag takes a condition, and by the tag's own URL"));
    }
    Ok(())
}

/// The entity tags of a header, without their quotes, which not every client sends.
fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
}
