//! The tags of a repository.

use axum::response::Response;
use serde_json::json;

use super::{Call, error::Failure, json as answer, page};
use crate::oci::{Repository, Tag};

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
