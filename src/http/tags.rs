//! The tags of a repository, and what they were.

use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::{Call, error::Failure, json as answer, page};
use crate::{
    oci::{Repository, Tag},
    registry::{Change, Error},
};

/// A change of a tag, as it is told.
#[derive(Serialize)]
struct Told<'a> {
    id: String,
    at: String,
    #[serde(flatten)]
    change: &'a Change,
}

impl<'a> Told<'a> {
    fn new(change: &'a Change) -> Self {
        let at = humantime::format_rfc3339_millis(change.at()).to_string();
        Self { id: change.id.to_string(), at, change }
    }
}

/// A tag of which something may be known. Nothing is of what is none.
pub(super) fn held(tag: Option<Tag>) -> Result<Tag, Failure> {
    tag.ok_or_else(|| Error::ManifestUnknown.into())
}

pub(super) async fn list(call: Call, repository: Repository) -> Result<Response, Failure> {
    let request = page::requested(&call.query)?;
    let listed = call.registry.tags(&repository, &request).await?;
    let tags: Vec<_> = listed.items.iter().map(Tag::as_str).collect();
    let response = answer(json!({ "name": repository.as_str(), "tags": tags }).to_string())?;
    match tags.last() {
        Some(last) if listed.more => page::link(response, &format!("/v2/{repository}/tags/list"), &[], request.n, last),
        _ => Ok(response),
    }
}

/// What a tag was, the latest change first.
pub(super) async fn history(call: Call, repository: Repository, tag: Tag) -> Result<Response, Failure> {
    let request = page::requested(&call.query)?;
    let listed = call.registry.history(&repository, &tag, &request).await?;
    let changes: Vec<_> = listed.items.iter().map(Told::new).collect();
    let response = answer(json!({ "name": repository.as_str(), "tag": tag.as_str(), "history": changes }).to_string())?;
    match changes.last() {
        Some(Told { id, .. }) if listed.more => {
            page::link(response, &format!("/v2/{repository}/_marina/tags/{tag}/history"), &[], request.n, id)
        }
        _ => Ok(response),
    }
}
