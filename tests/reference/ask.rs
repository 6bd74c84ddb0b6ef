//! What may be asked, and how to ask it over HTTP.

use axum::{
    body::Body,
    http::{Request, request::Builder},
};
use bytes::Bytes;
use futures_util::stream;

use super::content::{BLOBS, REPOSITORIES, SAMPLES, TAGS, escaped, sha256, sha512};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Name {
    Blob(usize),
    Long(usize),
    Manifest(usize),
    Nowhere,
    Unsupported,
    Malformed,
}

impl Name {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Blob(blob) => sha256(BLOBS[blob]),
            Self::Long(blob) => sha512(BLOBS[blob]),
            Self::Manifest(manifest) => sha256(&SAMPLES[manifest].text),
            Self::Nowhere => sha256("nowhere"),
            Self::Unsupported => "blake3:00".to_owned(),
            Self::Malformed => "sha256:0".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Tag(usize),
    Digest(Name),
}

impl Target {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Tag(tag) => TAGS[tag].to_owned(),
            Self::Digest(digest) => digest.text(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Unless {
    Any,
    Is(Name),
}

/// A chunk: its bytes, where it says that it goes, and how its body comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) blob: usize,
    pub(crate) range: Range,
    pub(crate) body: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Whole,
    WithoutLength,
    /// It breaks off after all these bytes.
    Torn,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Range {
    None,
    /// Where the session stands, or so many bytes beside that, and so much longer than the body.
    At(i64, u64),
    Malformed,
}

/// By which digest a session is finished.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finish {
    Right,
    RightLong,
    Other(Name),
    Unnamed,
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) n: Option<&'static str>,
    pub(crate) last: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Start {
        repository: usize,
        mount: Option<(Name, Option<usize>)>,
        whole: Option<(Name, usize)>,
        hint: Option<&'static str>,
    },
    Append {
        session: usize,
        chunk: Chunk,
    },
    Stands {
        session: usize,
        head: bool,
    },
    Close {
        session: usize,
        digest: Finish,
        chunk: Chunk,
    },
    Cancel {
        session: usize,
    },
    Blob {
        repository: usize,
        digest: Name,
        head: bool,
        range: Option<String>,
        unless: Option<Unless>,
        if_range: Option<Name>,
    },
    DeleteBlob {
        repository: usize,
        digest: Name,
    },
    Push {
        repository: usize,
        manifest: usize,
        target: Target,
        tags: Vec<usize>,
        condition: Option<Condition>,
    },
    Manifest {
        repository: usize,
        target: Target,
        head: bool,
        unless: Option<Unless>,
    },
    Delete {
        repository: usize,
        target: Target,
    },
    Tags {
        repository: usize,
        page: Page,
    },
    Catalog {
        page: Page,
    },
    Referrers {
        repository: usize,
        subject: Name,
        types: Vec<&'static str>,
        page: Page,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    Absent,
    Is(Name),
    Malformed,
}

/// What the URL of a session needs to know, and where the session stands.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) url: String,
    pub(crate) offset: u64,
    /// What would be the right digest for the session's bytes and these.
    pub(crate) whole: Vec<u8>,
}

impl Ask {
    /// The session that this is about, if it is about one.
    pub(crate) fn session(&self) -> Option<usize> {
        match self {
            Self::Append { session, .. }
            | Self::Stands { session, .. }
            | Self::Close { session, .. }
            | Self::Cancel { session } => Some(*session),
            _ => None,
        }
    }

    pub(crate) fn chunk(&self) -> Option<Chunk> {
        match self {
            Self::Append { chunk, .. } | Self::Close { chunk, .. } => Some(*chunk),
            _ => None,
        }
    }

    pub(crate) fn is_head(&self) -> bool {
        matches!(
            self,
            Self::Stands { head: true, .. } | Self::Blob { head: true, .. } | Self::Manifest { head: true, .. }
        )
    }

    pub(crate) fn request(&self, at: &At) -> Request<Body> {
        let get = if self.is_head() { "HEAD" } else { "GET" };
        let (method, url) = match self {
            Self::Start { repository, .. } => ("POST", format!("/v2/{}/blobs/uploads/", REPOSITORIES[*repository])),
            Self::Append { .. } => ("PATCH", at.url.clone()),
            Self::Stands { .. } => (get, at.url.clone()),
            Self::Close { .. } => ("PUT", at.url.clone()),
            Self::Cancel { .. } => ("DELETE", at.url.clone()),
            Self::Blob { repository, digest, .. } => (get, blob_url(*repository, *digest)),
            Self::DeleteBlob { repository, digest } => ("DELETE", blob_url(*repository, *digest)),
            Self::Push { repository, target, .. } => ("PUT", manifest_url(*repository, *target)),
            Self::Manifest { repository, target, .. } => (get, manifest_url(*repository, *target)),
            Self::Delete { repository, target } => ("DELETE", manifest_url(*repository, *target)),
            Self::Tags { repository, .. } => ("GET", format!("/v2/{}/tags/list", REPOSITORIES[*repository])),
            Self::Catalog { .. } => ("GET", "/v2/_catalog".to_owned()),
            Self::Referrers { repository, subject, .. } => {
                ("GET", format!("/v2/{}/referrers/{}", REPOSITORIES[*repository], subject.text()))
            }
        };
        let query: Vec<_> = self.query(at).iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let url = if query.is_empty() { url } else { format!("{url}?{}", query.join("&")) };
        let request = Request::builder().method(method).uri(url);
        self.headers(request, at).body(self.body()).unwrap()
    }

    fn query(&self, at: &At) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        match self {
            Self::Start { mount, whole, hint, .. } => {
                if let Some((digest, from)) = mount {
                    query.push(("mount", digest.text()));
                    query.extend(from.map(|from| ("from", REPOSITORIES[from].to_owned())));
                }
                query.extend(whole.map(|(digest, _)| ("digest", digest.text())));
                query.extend(hint.map(|hint| ("digest-algorithm", hint.to_owned())));
            }
            Self::Close { digest, .. } => query.extend(digest.text(at).map(|digest| ("digest", digest))),
            Self::Push { tags, .. } => query.extend(tags.iter().map(|tag| ("tag", TAGS[*tag].to_owned()))),
            Self::Tags { page, .. } | Self::Catalog { page } => query.extend(page.query()),
            Self::Referrers { types, page, .. } => {
                query.extend(types.iter().map(|it| ("artifactType", (*it).to_owned())));
                query.extend(page.query());
            }
            _ => {}
        }
        query
    }

    fn headers(&self, request: Builder, at: &At) -> Builder {
        let unless = |request: Builder, unless: Option<Unless>| match unless {
            Some(Unless::Any) => request.header("if-none-match", "*"),
            Some(Unless::Is(digest)) => request.header("if-none-match", format!("\"{}\"", digest.text())),
            None => request,
        };
        match self {
            Self::Append { chunk, .. } | Self::Close { chunk, .. } => match chunk.claims(at.offset) {
                Claim::Nothing => request,
                Claim::Range(start, end) => request.header("content-range", format!("{start}-{end}")),
                Claim::Malformed => request.header("content-range", "5-4"),
            },
            Self::Blob { range, unless: condition, if_range, .. } => {
                let request = range.iter().fold(request, |request, range| request.header("range", range));
                let request = if_range
                    .iter()
                    .fold(request, |request, digest| request.header("if-range", format!("\"{}\"", digest.text())));
                unless(request, *condition)
            }
            Self::Manifest { unless: condition, .. } => unless(request, *condition),
            Self::Push { manifest, condition, .. } => {
                let request = request.header("content-type", SAMPLES[*manifest].media_type);
                match condition {
                    Some(Condition::Absent) => request.header("if-none-match", "*"),
                    Some(Condition::Is(digest)) => request.header("if-match", format!("\"{}\"", digest.text())),
                    Some(Condition::Malformed) => request.header("if-match", "x"),
                    None => request,
                }
            }
            _ => request,
        }
    }

    fn body(&self) -> Body {
        match self {
            Self::Start { whole: Some((_, blob)), .. } => Body::from(BLOBS[*blob]),
            Self::Append { chunk, .. } | Self::Close { chunk, .. } => chunk.sent(),
            Self::Push { manifest, .. } => Body::from(SAMPLES[*manifest].text.clone()),
            _ => Body::empty(),
        }
    }
}

pub(crate) enum Claim {
    Nothing,
    Range(u64, u64),
    Malformed,
}

impl Chunk {
    pub(crate) fn bytes(self) -> &'static [u8] {
        BLOBS[self.blob].as_bytes()
    }

    /// What its `Content-Range` says, of a session that stands at `offset`.
    pub(crate) fn claims(self, offset: u64) -> Claim {
        let Range::At(beside, longer) = self.range else {
            return if matches!(self.range, Range::Malformed) { Claim::Malformed } else { Claim::Nothing };
        };
        let start = offset.saturating_add_signed(beside);
        match (start + self.bytes().len() as u64 + longer).checked_sub(1) {
            Some(end) if end >= start => Claim::Range(start, end),
            // There is no range of nothing.
            _ => Claim::Nothing,
        }
    }

    fn sent(self) -> Body {
        let pieces = self.bytes().chunks(3).map(|piece| Ok(Bytes::from_static(piece)));
        match self.body {
            Sent::Whole => Body::from(self.bytes()),
            Sent::WithoutLength => Body::from_stream(stream::iter(pieces.collect::<Vec<Result<_, std::io::Error>>>())),
            Sent::Torn => {
                let gone = Err(std::io::Error::other("gone"));
                Body::from_stream(stream::iter(pieces.chain([gone]).collect::<Vec<_>>()))
            }
        }
    }
}

impl Finish {
    pub(crate) fn text(self, at: &At) -> Option<String> {
        match self {
            Self::Right => Some(sha256(&at.whole)),
            Self::RightLong => Some(sha512(&at.whole)),
            Self::Other(name) => Some(name.text()),
            Self::Unnamed => None,
        }
    }
}

impl Page {
    fn query(&self) -> Vec<(&'static str, String)> {
        let n = self.n.map(|n| ("n", n.to_owned()));
        n.into_iter().chain(self.last.clone().map(|last| ("last", last))).collect()
    }
}

fn blob_url(repository: usize, digest: Name) -> String {
    format!("/v2/{}/blobs/{}", REPOSITORIES[repository], digest.text())
}

fn manifest_url(repository: usize, target: Target) -> String {
    format!("/v2/{}/manifests/{}", REPOSITORIES[repository], target.text())
}
