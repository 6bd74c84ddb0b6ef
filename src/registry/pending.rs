//! References in flight. Whoever is about to publish something says so first; until the entry is consumed, the
//! collector leaves alone what it names, and finds by it what was never published.

use serde::{Deserialize, Serialize};

use super::{layout, nonce::timed_id, once, pages::Pages};
use crate::{
    oci::{AnyDigest, Digest, Repository, Tag},
    store::{Error, ErrorKind, Key, Result, Store},
};

/// This upload or mount is about to make the repository hold that digest. It stays for the grace period after that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingBlob {
    pub(crate) at: u64,
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
    /// The bytes that come with it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
}

/// A manifest push in flight: all that it may publish, and all that it relies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingManifest {
    pub(crate) at: u64,
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
    pub(crate) tags: Vec<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    pub(crate) references: Vec<AnyDigest>,
}

/// A reference taken away, or one in flight that was given up: the collector looks at what it named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dropped {
    pub(crate) at: u64,
    pub(crate) repository: Repository,
    #[serde(flatten)]
    pub(crate) what: DroppedWhat,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum DroppedWhat {
    /// The repository may no longer need to hold these; nor, then, the store their bytes.
    Blobs { digests: Vec<Digest> },
    /// A manifest, as it was: what it names may no longer be needed. Until the entry is due it can be put back.
    Manifest { digest: Digest, media_type: String, tags: Vec<Tag>, subject: Option<Digest>, manifest: String },
    /// What the tag pointed to may have lost its last tag.
    Tag { tag: Tag, digest: Digest },
    /// A push that was given up, and shut out by tombstones where nothing was. It may have listed the repository, and
    /// nothing may need what it named.
    Push { digest: Digest, tags: Vec<Tag>, digests: Vec<Digest> },
    /// The repository may have no manifest any more.
    Catalog {},
}

impl PendingBlob {
    /// The bytes of a session are the session's to drop; those of an attempt go with the attempt.
    pub(crate) fn data(&self) -> Option<Key> {
        self.data.clone().and_then(Key::parse)
    }

    /// `grace`: how many seconds it protects what it names, if nobody removes it before.
    pub(crate) async fn put(&self, store: &dyn Store, grace: u64) -> Result<Key> {
        put(store, layout::pending_blob(&self.digest, timed_id(self.at.saturating_add(grace))), self).await
    }
}

impl PendingManifest {
    pub(crate) async fn put(&self, store: &dyn Store, grace: u64) -> Result<Key> {
        put(store, layout::pending_manifest(&self.repository, timed_id(self.at.saturating_add(grace))), self).await
    }
}

impl Dropped {
    /// `rest`: for how many seconds the collector leaves it alone.
    pub(crate) async fn put(&self, store: &dyn Store, rest: u64) -> Result<Key> {
        put(store, layout::dropped(&self.repository, timed_id(self.at.saturating_add(rest))), self).await
    }
}

/// Reads an entry; `None` where it has been consumed.
pub(crate) async fn read<T: for<'de> Deserialize<'de>>(store: &dyn Store, key: &Key) -> Result<Option<T>> {
    let Some(found) = store.read(key).await? else { return Ok(None) };
    let entry = serde_json::from_slice(&found.bytes);
    entry.map(Some).map_err(|error| Error::new(ErrorKind::Corrupt, format!("{key} cannot be read")).with_source(error))
}

/// Whether a reference in flight says that these bytes may be published as that digest.
pub(crate) async fn brings(store: &dyn Store, digest: &Digest, data: &Key) -> Result<bool> {
    let mut pages = Pages::new(&layout::pending_blobs(digest));
    while let Some(keys) = pages.next(store).await? {
        for key in keys {
            let entry: Option<PendingBlob> = read(store, &key).await?;
            if entry.is_some_and(|entry| entry.data.as_deref() == Some(data.as_str())) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Creates an entry under a name of its own.
pub(crate) async fn put<T: Serialize>(store: &dyn Store, key: Key, entry: &T) -> Result<Key> {
    let bytes = serde_json::to_vec(entry)
        .map_err(|error| Error::new(ErrorKind::Corrupt, format!("{key} cannot be written")).with_source(error))?;
    once::create(store, &key, bytes.into()).await?;
    Ok(key)
}
