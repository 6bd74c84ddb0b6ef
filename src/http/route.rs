//! The URL grammar, in one match.

use percent_encoding::percent_decode_str;

use crate::{
    oci::{Digest, DigestError, NameError, Reference, ReferenceError, Repository, Tag},
    registry::SessionId,
};

/// What a path names, parsed.
///
/// What a malformed digest, reference or session means depends on the method; so those come as the result of parsing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/livez`: the process runs.
    Alive,
    /// `/readyz`: the store answers.
    Ready,
    /// `/v2/`
    Ping,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/_oci/ext/discover`
    Extensions,
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<session>`
    Upload(Repository, Option<SessionId>),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Result<Digest, DigestError>),
    /// `/v2/<name>/manifests/<tag-or-digest>`
    Manifest(Repository, Result<Reference, ReferenceError>),
    /// `/v2/<name>/tags/list`
    Tags(Repository),
    /// `/v2/<name>/_marina/tags/<tag>/history`
    History(Repository, Option<Tag>),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Repository, Result<Digest, DigestError>),
}

/// Why a path names nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RouteError {
    /// There is no such endpoint.
    Unknown,
    /// There is, but what stands where a repository's name belongs is none.
    Name(NameError),
}

impl Route {
    /// A repository may have components called `blobs`, `tags`, `manifests` …: the rightmost marker decides. Segments
    /// may be percent-encoded, and one slash may trail.
    pub(super) fn parse(path: &str) -> Result<Self, RouteError> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<_> = path.split('/').map(|it| percent_decode_str(it).decode_utf8_lossy()).collect();
        let segments: Vec<_> = segments.iter().map(AsRef::as_ref).collect();
        Ok(match segments.as_slice() {
            ["", "livez"] => Self::Alive,
            ["", "readyz"] => Self::Ready,
            ["", "v2"] => Self::Ping,
            ["", "v2", "_catalog"] => Self::Catalog,
            ["", "v2", "_oci", "ext", "discover"] => Self::Extensions,
            ["", "v2", name @ .., "_marina", "tags", tag, "history"] => {
                Self::History(repository(name)?, Tag::parse(tag))
            }
            ["", "v2", name @ .., "tags", "list"] => Self::Tags(repository(name)?),
            ["", "v2", name @ .., "blobs", "uploads"] => Self::Uploads(repository(name)?),
            ["", "v2", name @ .., "blobs", digest] => Self::Blob(repository(name)?, Digest::parse(digest)),
            ["", "v2", name @ .., "manifests", reference] => {
                Self::Manifest(repository(name)?, Reference::parse(reference))
            }
            ["", "v2", name @ .., "referrers", digest] => Self::Referrers(repository(name)?, Digest::parse(digest)),
            ["", "v2", name @ .., "blobs", "uploads", id] => Self::Upload(repository(name)?, SessionId::parse(id)),
            _ => return Err(RouteError::Unknown),
        })
    }

    /// The methods that this path takes, as `Allow` wants them.
    pub(super) fn allow(&self, deletes: bool) -> &'static str {
        match self {
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
            Self::Blob(..) if deletes => "GET, HEAD, DELETE",
            Self::Manifest(..) if deletes => "GET, HEAD, PUT, DELETE",
            Self::Manifest(..) => "GET, HEAD, PUT",
            Self::Alive
            | Self::Ready
            | Self::Ping
            | Self::Catalog
            | Self::Extensions
            | Self::Tags(_)
            | Self::History(..)
            | Self::Blob(..)
            | Self::Referrers(..) => "GET, HEAD",
        }
    }
}

fn repository(segments: &[&str]) -> Result<Repository, RouteError> {
    Repository::parse(&segments.join("/")).map_err(RouteError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn named(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    // NAME-3, NAME-4
    #[test]
    fn the_rightmost_marker_decides_whatever_the_repository_is_called() {
        let digest = Digest::parse(DIGEST);
        for name in
            ["a", "foo/tags", "blobs/uploads", "x/manifests/y", "tags/list", "a/blobs", "referrers", "v2", "manifests"]
        {
            let repository = || named(name);
            for (path, route) in [
                ("tags/list", Route::Tags(repository())),
                ("blobs/uploads", Route::Uploads(repository())),
                ("blobs/uploads/", Route::Uploads(repository())),
                ("blobs/uploads/x", Route::Upload(repository(), None)),
                ("_marina/tags/list/history", Route::History(repository(), Tag::parse("list"))),
                ("_marina/tags/referrers/history", Route::History(repository(), Tag::parse("referrers"))),
                (&format!("blobs/{DIGEST}"), Route::Blob(repository(), digest)),
                (&format!("referrers/{DIGEST}"), Route::Referrers(repository(), digest)),
                ("manifests/list", Route::Manifest(repository(), Reference::parse("list"))),
                ("manifests/blobs", Route::Manifest(repository(), Reference::parse("blobs"))),
                ("manifests/uploads", Route::Manifest(repository(), Reference::parse("uploads"))),
                ("manifests/manifests", Route::Manifest(repository(), Reference::parse("manifests"))),
            ] {
                assert_eq!(Route::parse(&format!("/v2/{name}/{path}")), Ok(route), "{name} {path}");
            }
        }
    }

    // GEN-8, GEN-14
    #[test]
    fn segments_may_be_encoded_and_one_slash_may_trail() {
        let encoded = DIGEST.replace(':', "%3A");
        let route = Route::Blob(named("a/b"), Digest::parse(DIGEST));
        for path in [
            format!("/v2/a/b/blobs/{encoded}"),
            format!("/v2/a%2Fb/blobs/{encoded}/"),
            format!("/v2/%61/b/bl%6fbs/{DIGEST}"),
        ] {
            assert_eq!(Route::parse(&path).as_ref(), Ok(&route), "{path}");
        }
        for path in ["/v2", "/v2/"] {
            assert_eq!(Route::parse(path), Ok(Route::Ping));
        }
    }

    // GEN-1, NAME-1, NAME-2
    #[test]
    fn what_is_no_endpoint_is_unknown_and_what_is_no_name_is_invalid() {
        for path in [
            "",
            "/",
            "//",
            "*",
            "/v1/",
            "/v2//",
            "/v2/a",
            "/v2/a/tags",
            "/v2/_other",
            "/v2/a/_ext/x/y",
            "//v2/",
            "/V2/",
            "/v2/a/blobs/",
        ] {
            assert_eq!(Route::parse(path), Err(RouteError::Unknown), "{path}");
        }
        for name in ["", "A", "a//b", "a..b", "a___b", "-a", "a/", "%ff", "%00", "..", "a%20b", &"a".repeat(300)] {
            let parsed = Route::parse(&format!("/v2/{name}/tags/list"));
            assert!(matches!(parsed, Err(RouteError::Name(_))), "{name} {parsed:?}");
        }
    }
}
