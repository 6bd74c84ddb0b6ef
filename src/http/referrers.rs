//! The manifests whose subject is a given digest, as an index.

use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};
use serde_json::json;

use super::{Call, content, error::Failure, page};
use crate::{
    oci::{Descriptor, Digest, DigestError, Repository},
    registry::Page,
};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const FILTER: &str = "artifactType";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Never 404: whatever nobody refers to, known or not, has an empty list.
pub(super) async fn list(
    call: Call,
    repository: Repository,
    subject: Result<Digest, DigestError>,
) -> Result<Response, Failure> {
    let request = page::requested(&call.query)?;
    let types: Vec<String> = call.query.all(FILTER).filter(|it| !it.is_empty()).map(ToOwned::to_owned).collect();
    let listed = match &subject {
        Ok(subject) => call.registry.referrers(&repository, subject, &types, &request).await?,
        // Nothing can be stored under it, hence nothing refers to it by it.
        Err(DigestError::Unsupported) => Page { items: Vec::new(), more: false },
        Err(DigestError::Malformed) => return Err(Failure::from(DigestError::Malformed)),
    };

    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed.items });
    let mut response = content(INDEX, index.to_string())?;
    if !types.is_empty() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static(FILTER));
    }
    match (&subject, listed.items.last()) {
        (Ok(subject), Some(Descriptor { digest, .. })) if listed.more => {
            let filters: Vec<_> = types.iter().map(|it| (FILTER, it.as_str())).collect();
            let path = format!("/v2/{repository}/referrers/{subject}");
            page::link(response, &path, &filters, request.n, &digest.to_string())
        }
        _ => Ok(response),
    }
}
