//! Referrers: one register per subject and referrer, so that concurrent pushes cannot lose each other's.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use lru::LruCache;

use super::{
    PARALLEL, Page, PageRequest, Registry, Result, layout,
    pages::LIST,
    register::{JsonValue, LIVE_AT_LEAST},
};
use crate::{
    oci::{AnyDigest, Descriptor, Digest, Manifest, Repository},
    store::Entry,
};

impl JsonValue for Descriptor {}

/// Descriptors of referrers by their digest and the size of their entry: the same bytes may be an artifact of either of two
/// types, whose names differ in length. What a manifest says of itself never changes; whether it is listed is read from
/// the store every time.
pub(crate) struct Cache(Mutex<LruCache<(Digest, u64), Descriptor>>);

/// How many descriptors are remembered.
const CACHED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Descriptors above this size are not: annotations may make one as large as a manifest.
const CACHED_BYTES: usize = 4096;
/// The size of a page. Clients read 4 MiB; the rest is room for what surrounds the descriptors.
const PAGE_BYTES: usize = (4 << 20) - (64 << 10);

impl Registry {
    /// Manifests of this repository that name the subject, in the order of their digests. Empty for what nobody knows.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_types: &[String],
        page: &PageRequest,
    ) -> Result<Page<Descriptor>> {
        let prefix = layout::referrers(repository, subject);
        let last = page.last.as_deref().and_then(|last| Digest::parse(last).ok());
        let mut after = last.map(|last| layout::referrer(repository, subject, &last).key().clone());
        let mut items: Vec<Descriptor> = Vec::new();
        let mut bytes = 0;
        loop {
            let entries = self.store().list(&prefix, after.as_ref(), LIST).await?;
            let is_last = entries.len() < LIST;
            after = entries.last().map(|entry| entry.key.clone());
            let live = entries.into_iter().filter(|entry| entry.size >= LIVE_AT_LEAST);
            let mut found =
                stream::iter(live).map(|entry| self.referrer_at(repository, subject, entry)).buffered(PARALLEL);
            while let Some(descriptor) = found.try_next().await? {
                let Some(descriptor) = descriptor.filter(|found| is_asked_for(found, artifact_types)) else { continue };
                bytes += serialized_size(&descriptor);
                let full = page.n.is_some_and(|n| items.len() >= n) || (bytes > PAGE_BYTES && !items.is_empty());
                if full {
                    return Ok(Page { items, more: page.n != Some(0) });
                }
                items.push(descriptor);
            }
            if is_last {
                return Ok(Page { items, more: false });
            }
        }
    }

    /// The descriptor behind a listed entry; `None` if it has gone since.
    async fn referrer_at(&self, repository: &Repository, subject: &Digest, entry: Entry) -> Result<Option<Descriptor>> {
        let Some(layout::Named::Referrer { referrer, .. }) = layout::parse(&entry.key) else { return Ok(None) };
        let listed = (referrer, entry.size);
        if let Some(known) = self.descriptors.get(&listed) {
            return Ok(Some(known));
        }
        let seen = layout::referrer(repository, subject, &referrer).read(self.store()).await?;
        let Some(descriptor) = seen.present() else { return Ok(None) };
        self.descriptors.remember(listed, descriptor);
        Ok(Some(descriptor.clone()))
    }
}

/// A manifest as the referrers list shows it.
pub(crate) fn descriptor(manifest: &Manifest, digest: Digest, size: usize) -> Descriptor {
    Descriptor {
        media_type: manifest.media_type.clone(),
        digest: AnyDigest::Known(digest),
        size: size as u64,
        artifact_type: manifest.artifact_type.clone(),
        annotations: manifest.annotations.clone(),
    }
}

/// Any of the types asked for; all, where none is.
fn is_asked_for(descriptor: &Descriptor, artifact_types: &[String]) -> bool {
    artifact_types.is_empty() || descriptor.artifact_type.as_ref().is_some_and(|is| artifact_types.contains(is))
}

fn serialized_size(descriptor: &Descriptor) -> usize {
    serde_json::to_vec(descriptor).map_or(0, |json| json.len() + 1)
}

impl Cache {
    fn get(&self, listed: &(Digest, u64)) -> Option<Descriptor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(listed).cloned()
    }

    fn remember(&self, listed: (Digest, u64), descriptor: &Descriptor) {
        if serialized_size(descriptor) <= CACHED_BYTES {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).put(listed, descriptor.clone());
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CACHED)))
    }
}
