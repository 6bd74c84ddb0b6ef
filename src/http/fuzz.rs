//! What holds of any target of a request.

use axum::{body::Body, http::header, response::Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{page, query::Query, route::Route};

/// What a path names has one spelling; that, with each character encoded and with a slash at its end, names the same.
pub(crate) fn route(input: &[u8]) {
    let path = &*String::from_utf8_lossy(input);
    let Some((route, spelt)) = Route::parse(path).ok().and_then(|route| spelt(&route).map(|path| (route, path))) else {
        return;
    };
    let encoded: Vec<_> = spelt.split('/').map(|it| utf8_percent_encode(it, NON_ALPHANUMERIC).to_string()).collect();
    for path in [spelt.clone(), format!("{spelt}/"), encoded.join("/")] {
        assert_eq!(Route::parse(&path).as_ref(), Ok(&route), "{path}");
    }
    assert!(route.allow(true).starts_with(route.allow(false)));
}

/// The path of a route, unless what is asked for there is malformed.
fn spelt(route: &Route) -> Option<String> {
    Some(match route {
        Route::Alive => "/livez".to_owned(),
        Route::Ready => "/readyz".to_owned(),
        Route::Ping => "/v2".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Extensions => "/v2/_oci/ext/discover".to_owned(),
        Route::Uploads(name) => format!("/v2/{name}/blobs/uploads"),
        Route::Upload(name, id) => format!("/v2/{name}/blobs/uploads/{}", (*id)?),
        Route::Blob(name, digest) => format!("/v2/{name}/blobs/{}", digest.ok()?),
        Route::Manifest(name, reference) => format!("/v2/{name}/manifests/{}", reference.as_ref().ok()?),
        Route::Tags(name) => format!("/v2/{name}/tags/list"),
        Route::History(name, tag) => format!("/v2/{name}/_marina/tags/{}/history", tag.as_ref()?),
        Route::Referrers(name, digest) => format!("/v2/{name}/referrers/{}", digest.ok()?),
    })
}

/// The link to the next page asks for what it was made of.
pub(crate) fn page(input: &[u8]) {
    let query = Query::parse(Some(&String::from_utf8_lossy(input)));
    let Ok(asked) = page::requested(&query) else { return };
    let Some(last) = &asked.last else { return };
    let linked = page::link(Response::new(Body::empty()), "/v2/_catalog", &[("filter", last)], asked.n, last);
    let linked = linked.ok().and_then(|response| response.headers().get(header::LINK).cloned());
    let linked = linked.as_ref().and_then(|link| link.to_str().ok()).unwrap_or_default();
    let link = linked.strip_prefix("</v2/_catalog?").and_then(|it| it.strip_suffix(">; rel=\"next\""));
    assert_eq!(page::requested(&Query::parse(link)).ok(), Some(asked), "{linked}");
}
