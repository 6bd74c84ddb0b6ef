//! The repositories of the registry.

use axum::response::Response;
use serde_json::json;

use super::{Call, error::Failure, json as answer, page};
use crate::oci::Repository;

pub(super) async fn list(call: Call) -> Result<Response, Failure> {
    let request = page::requested(&call.query)?;
    let listed = call.registry.catalog(&request).await?;
    let repositories: Vec<_> = listed.items.iter().map(Repository::as_str).collect();
    let response = answer(json!({ "repositories": repositories }).to_string())?;
    match repositories.last() {
        Some(last) if listed.more => page::link(response, "/v2/_catalog", &[], request.n, last),
        _ => Ok(response),
    }
}
