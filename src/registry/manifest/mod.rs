//! Manifests: kept byte for byte as pushed, in a register whose header says what hangs on them.

mod cache;
mod delete;
mod push;
mod read;
mod room;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub(crate) use cache::Cache;
pub use push::{Push, Pushed, TagCondition};
pub(crate) use room::Rooms;
pub use room::SMALL_MANIFEST;

use super::{pending::DroppedWhat, register::Value};
use crate::oci::{AnyDigest, Digest, Tag};

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

fn first_line(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((bytes.slice(..end), bytes.slice(end + 1..)))
}
