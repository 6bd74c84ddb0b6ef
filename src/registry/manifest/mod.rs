//! Manifests: kept byte for byte as pushed, in a register whose header says what hangs on them.

mod cache;
mod delete;
mod push;
mod room;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

pub(crate) use cache::Cache;
pub use push::{Push, Pushed, TagCondition};
pub(crate) use room::Rooms;
pub use room::SMALL_MANIFEST;

use super::{
    Error, Registry, Result, layout,
    nonce::Nonce,
    pending::DroppedWhat,
    register::{Seen, Value},
};
use crate::{
    oci::{AnyDigest, Digest, Reference, Repository, Tag},
    store::{self, ErrorKind, Span},
};

/// A manifest as it is stored: two lines of JSON, then its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) head: Head,
    pub(crate) links: Links,
    pub(crate) bytes: Bytes,
}

/// The first line: all that a HEAD needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    media_type: String,
    size: u64,
}

/// The second line: what a delete must take along, and what was not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Links {
    /// Which life of the manifest this is: made when it comes where there was none, kept by whoever writes it again. A
    /// push that meets another life than it wrote knows that a delete came between.
    pub(crate) life: String,
    /// When a client pushed it last, in seconds since the epoch; unknown of those that are older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u64>,
    /// Every tag that may point here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<Tag>,
    /// There were more: a delete reads all tags of the repository.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more_tags: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    /// What it names and the repository did not hold when it was pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unchecked: Vec<AnyDigest>,
}

/// What a manifest is, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestHead {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
}

/// How much of a manifest register is read to know its head: state, nonce and the first line fit easily.
const HEAD_SPAN: u64 = 1024;

/// How often a tag is followed anew when the manifest that it pointed to went away meanwhile.
const FOLLOW: usize = 8;

impl Value for StoredManifest {
    fn encode(&self, into: &mut BytesMut) -> std::result::Result<(), serde_json::Error> {
        serde_json::to_writer((&mut *into).writer(), &self.head)?;
        into.put_u8(b'\n');
        serde_json::to_writer((&mut *into).writer(), &self.links)?;
        into.put_u8(b'\n');
        into.put_slice(&self.bytes);
        Ok(())
    }

    fn decode(bytes: Bytes) -> Option<Self> {
        let (head, rest) = first_line(&bytes)?;
        let (links, bytes) = first_line(&rest)?;
        let head: Head = serde_json::from_slice(&head).ok()?;
        let links = serde_json::from_slice(&links).ok()?;
        (head.size == bytes.len() as u64).then_some(Self { head, links, bytes })
    }
}

impl StoredManifest {
    pub(crate) fn new(media_type: String, links: Links, bytes: Bytes) -> Self {
        Self { head: Head { media_type, size: bytes.len() as u64 }, links, bytes }
    }

    pub(crate) fn media_type(&self) -> &str {
        &self.head.media_type
    }

    /// The same with a header that names this tag; `None`: it does, or a delete reads all tags anyhow.
    pub(crate) fn naming(&self, tag: &Tag) -> Option<Self> {
        if self.links.more_tags || self.links.tags.contains(tag) {
            return None;
        }
        let mut naming = self.clone();
        if naming.links.tags.len() < push::MAX_HEADER_TAGS {
            naming.links.tags.push(tag.clone());
        } else {
            naming.links.more_tags = true;
        }
        Some(naming)
    }

    /// The manifest, as it is kept when it has been taken away.
    pub(crate) fn dropped(&self, digest: &Digest) -> DroppedWhat {
        DroppedWhat::Manifest {
            digest: *digest,
            media_type: self.head.media_type.clone(),
            tags: self.links.tags.clone(),
            subject: self.links.subject,
            // Only text was ever pushed as a manifest.
            manifest: String::from_utf8_lossy(&self.bytes).into_owned(),
        }
    }

    pub(crate) fn head(&self, digest: &Digest) -> ManifestHead {
        ManifestHead { digest: *digest, media_type: self.head.media_type.clone(), size: self.head.size }
    }
}

impl Registry {
    pub async fn head_manifest(&self, repository: &Repository, reference: &Reference) -> Result<ManifestHead> {
        match reference {
            // The tag says it all: no manifest is gone while a tag points to it.
            Reference::Tag(tag) => {
                let target = layout::tag(repository, tag).read(self.store()).await?;
                let target = target.live().ok_or(Error::ManifestUnknown)?;
                Ok(ManifestHead { digest: target.digest, media_type: target.media_type.clone(), size: target.size })
            }
            Reference::Digest(digest) => {
                let peeked = self.peek_manifest(repository, digest).await?;
                self.there_or_forgotten(repository, digest, peeked)
            }
        }
    }

    /// A manifest and its exact bytes, compared with their digest.
    pub async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<(ManifestHead, Bytes)> {
        let tag = match reference {
            Reference::Digest(digest) => {
                let read = self.manifest_by_digest(repository, digest).await?;
                return self.there_or_forgotten(repository, digest, read);
            }
            Reference::Tag(tag) => layout::tag(repository, tag),
        };
        let mut before = Seen::absent();
        for _ in 0..FOLLOW {
            let target = tag.read(self.store()).await?;
            if target.is_same(&before) {
                // No delete looks like that: it takes the tags first.
                return Err(Error::ManifestUnknown);
            }
            let digest = target.live().ok_or(Error::ManifestUnknown)?.digest;
            if let Some(found) = self.manifest_by_digest(repository, &digest).await? {
                return Ok(found);
            }
            // Deleted since the tag was read, and the tag with it, or moved: look again.
            before = target;
        }
        Err(Error::Busy)
    }

    /// What was read here before, for a request that the store gave no answer to; else, what became of the request. No
    /// name but the digest leads to these bytes, so they are the right ones; whether another replica deleted them since,
    /// only the store knows.
    pub fn remembered_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        failed: Error,
    ) -> Result<(ManifestHead, Bytes)> {
        match (reference, &failed) {
            (Reference::Digest(digest), Error::Store(_) | Error::Throttled(_)) => {
                self.manifests.get(repository, digest).ok_or(failed)
            }
            _ => Err(failed),
        }
    }

    fn there_or_forgotten<T>(&self, repository: &Repository, digest: &Digest, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| {
            self.manifests.forget(repository, digest);
            Error::ManifestUnknown
        })
    }

    async fn manifest_by_digest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<(ManifestHead, Bytes)>> {
        let ticket = self.manifests.ticket();
        let register = layout::manifest(repository, digest);
        let seen = register.read(self.store()).await?;
        let Some(manifest) = seen.present() else { return Ok(None) };
        if Digest::of(digest.algorithm(), &manifest.bytes) != *digest {
            let context = format!("{}: not the bytes that its name says", register.key());
            return Err(store::Error::new(ErrorKind::Corrupt, context).into());
        }
        let head = manifest.head(digest);
        self.manifests.remember(ticket, repository, &head, &manifest.bytes);
        Ok(Some((head, manifest.bytes.clone())))
    }

    /// Whether a manifest is there, with its size; lifted if it is condemned.
    pub(crate) async fn lift_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        let register = layout::manifest(repository, digest);
        let seen = register.read(self.store()).await?;
        Ok(register.lift(self.store(), seen).await?.map(|manifest| manifest.head.size))
    }

    /// The head of a manifest that is present, from the first bytes of its register.
    async fn peek_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Option<ManifestHead>> {
        let key = layout::manifest(repository, digest).key().clone();
        let Some(object) = self.store().open(&key, Span::first(HEAD_SPAN)).await? else { return Ok(None) };
        let mut bytes = BytesMut::new();
        let mut stream = object.body.into_stream();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        if matches!(bytes.first(), Some(b'g' | b'd' | b'q')) {
            return Ok(None);
        }
        let head = bytes.freeze();
        let line = head.get(1 + Nonce::LENGTH + 1..).and_then(|rest| rest.split(|&b| b == b'\n').next());
        let head = line.and_then(|line| serde_json::from_slice(line).ok());
        let damaged = || store::Error::new(ErrorKind::Corrupt, format!("{key} has no readable head"));
        let Head { media_type, size } = head.ok_or_else(damaged)?;
        Ok(Some(ManifestHead { digest: *digest, media_type, size }))
    }
}

fn first_line(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((bytes.slice(..end), bytes.slice(end + 1..)))
}
