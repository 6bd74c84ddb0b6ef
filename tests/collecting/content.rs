//! What is pushed.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Error, Push, Registry},
};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doc {
    /// Of one blob.
    Image(&'static str),
    /// Of two images, of one blob each.
    Index([&'static str; 2]),
    /// Refers to such an index, with a blob of its own.
    Signature([&'static str; 2], &'static str),
}

impl Doc {
    pub(crate) fn text(self) -> String {
        let blob = |content: &str| {
            let (digest, size) = (digest(content), content.len());
            format!(r#""schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{digest}","size":{size}}}"#)
        };
        let link = |doc: Self| {
            let (of, text) = (doc.media_type(), doc.text());
            format!(r#"{{"mediaType":"{of}","digest":"{}","size":{}}}"#, digest(&text), text.len())
        };
        let of = self.media_type();
        match self {
            Self::Image(content) => format!(r#"{{"mediaType":"{of}",{},"layers":[]}}"#, blob(content)),
            Self::Index(images) => {
                let links = images.map(|content| link(Self::Image(content))).join(",");
                format!(r#"{{"schemaVersion":2,"mediaType":"{of}","manifests":[{links}]}}"#)
            }
            Self::Signature(images, content) => {
                let subject = link(Self::Index(images));
                format!(r#"{{"mediaType":"{of}",{},"layers":[],"subject":{subject}}}"#, blob(content))
            }
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Image(_) | Self::Signature(..) => IMAGE,
            Self::Index(_) => INDEX,
        }
    }

    pub(crate) fn digest(self) -> Digest {
        digest(&self.text())
    }

    /// The blobs without which it is of no use.
    pub(crate) fn blobs(self) -> Vec<&'static str> {
        match self {
            Self::Image(content) => vec![content],
            Self::Index(images) => images.to_vec(),
            Self::Signature(images, content) => images.into_iter().chain([content]).collect(),
        }
    }
}

pub(crate) fn repo(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

pub(crate) fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

pub(crate) fn chunk(content: &str) -> Chunk {
    let body = Box::pin(stream::iter([Ok(Bytes::from(content.to_owned()))]));
    Chunk { start: None, declared: None, length: Some(content.len() as u64), body }
}

pub(crate) async fn upload(registry: &Arc<Registry>, repository: &str, blob: &str) -> Result<(), Error> {
    registry.upload_whole(&repo(repository), &digest(blob), chunk(blob)).await.map(drop)
}

/// Pushes it by tag, or by digest.
pub(crate) async fn push(
    registry: &Arc<Registry>,
    repository: &str,
    name: Option<&str>,
    doc: Doc,
) -> Result<(), Error> {
    let target = name.map_or_else(|| Reference::Digest(doc.digest()), |name| Reference::Tag(tag(name)));
    let push = Push { target, tags: Vec::new(), content_type: None, bytes: doc.text().into(), condition: None };
    registry.put_manifest(&repo(repository), push).await.map(drop)
}
