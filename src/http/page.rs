//! Paging, the same for every listing: `n`, `last`, and the `Link` to the next page.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};

use super::{error::Failure, query::Query};
use crate::registry::PageRequest;

/// What page `n` and `last` ask for. A number too large to hold asks for as much as there is.
pub(super) fn requested(query: &Query) -> Result<PageRequest, Failure> {
    let n = match query.first("n") {
        None | Some("") => None,
        Some(n) if n.bytes().all(|it| it.is_ascii_digit()) => Some(n.parse().unwrap_or(usize::MAX)),
        Some(n) => return Err(Failure::unsupported(format!("n is not a number of entries: {n:?}"))),
    };
    Ok(PageRequest { n, last: query.first("last").map(ToOwned::to_owned) })
}

/// Links `response` to the page after `last`: a path, since no proxy on the way can make it wrong.
pub(super) fn link(
    mut response: Response,
    path: &str,
    filters: &[(&str, &str)],
    n: Option<usize>,
    last: &str,
) -> Result<Response, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(filters);
    if let Some(n) = n {
        query.append_pair("n", &n.to_string());
    }
    query.append_pair("last", last);
    let link = format!("<{path}?{}>; rel=\"next\"", query.finish());
    response.headers_mut().insert(header::LINK, HeaderValue::try_from(link)?);
    Ok(response)
}
