//! What needs a blob: the look that the collector takes before it condemns, and again before it takes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Collector, InFlight, READS};
use crate::{
    oci::{AnyDigest, Digest, Manifest, Repository, digests_in},
    registry::{
        Error, PARALLEL, Result,
        layout::{self, Named},
        nonce,
        pages::Pages,
        pending::{self, Dropped, DroppedWhat, PendingBlob, PendingManifest},
        register::LIVE_AT_LEAST,
    },
    store::Key,
};

/// What of some digests is needed, and by what.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    /// By an upload, a mount or a push that is under way.
    in_flight: BTreeMap<Digest, InFlight>,
    /// By a manifest that is there or can be put back.
    named: BTreeSet<Digest>,
}

/// What manifests name, by their keys. Hashes are enough: two digests with one keep a blob too many.
#[derive(Default)]
pub(super) struct Names(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    names: HashMap<Key, Arc<[u64]>>,
    /// The same keys, so that any can be picked.
    keys: Vec<Key>,
    size: usize,
}

/// The bytes of what is remembered, and what each manifest costs beside its names: some 90,000 of ten layers.
const CAPACITY: usize = 40 << 20;
const OVERHEAD: usize = 360;
/// How many references in flight to one digest are read to see whose they are.
const IN_FLIGHT: usize = 32;

impl Needed {
    pub(crate) fn is_named(&self, digest: &Digest) -> bool {
        self.named.contains(digest)
    }

    pub(crate) fn in_flight(&self, digest: &Digest) -> Option<InFlight> {
        self.in_flight.get(digest).copied()
    }
}

impl Collector {
    /// What of these digests the repository needs. References in flight are looked at first, and only when that has been
    /// answered what they turn into: manifests; and only then those that have been taken away and can be put back.
    pub(super) async fn needed(&self, repository: &Repository, digests: &BTreeSet<Digest>) -> Result<Needed> {
        if digests.is_empty() {
            return Ok(Needed::default());
        }
        let in_flight = self.in_flight(repository, digests).await?;
        let named = self.named(repository, digests).await?;
        Ok(Needed { in_flight, named })
    }

    /// The same of manifests: whether others name them.
    pub(crate) async fn needed_children(
        &self,
        repository: &Repository,
        manifests: &BTreeSet<Digest>,
    ) -> Result<Needed> {
        if manifests.is_empty() {
            return Ok(Needed::default());
        }
        let in_flight = self.pushes_in_flight(repository, manifests).await?;
        let named = self.named(repository, manifests).await?;
        Ok(Needed { in_flight, named })
    }

    /// What this manifest names need not be read again.
    pub(crate) fn remember(&self, key: Key, manifest: &Manifest) {
        self.names.remember(key, &marks(&digests(manifest).collect()));
    }

    async fn in_flight(
        &self,
        repository: &Repository,
        digests: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, InFlight>> {
        let looks: Vec<_> = digests
            .iter()
            .map(|digest| async move {
                Ok::<_, Error>(self.blob_in_flight(repository, digest).await?.map(|of| (*digest, of)))
            })
            .collect();
        let found = stream::iter(looks).buffer_unordered(PARALLEL).try_filter_map(|found| async move { Ok(found) });
        let mut found: BTreeMap<Digest, InFlight> = found.try_collect().await?;
        found.extend(self.pushes_in_flight(repository, digests).await?);
        Ok(found)
    }

    async fn pushes_in_flight(
        &self,
        repository: &Repository,
        digests: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, InFlight>> {
        let mut found = BTreeMap::new();
        let mut pages = Pages::new(&layout::pending_manifests(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            let read = |key| async move { Ok::<_, Error>((key, pending::read(self.store(), key).await?)) };
            let reads: Vec<_> = keys.iter().map(read).collect();
            let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
            while let Some((key, entry)) = reads.try_next().await? {
                let Some(PendingManifest { digest, references, .. }) = entry else { continue };
                let of = InFlight { manifest: Some(digest), until: layout::due(key) };
                let named = references.iter().filter_map(AnyDigest::known).filter(|named| digests.contains(named));
                found.extend(named.map(|named| (*named, of)));
            }
        }
        Ok(found)
    }

    async fn blob_in_flight(&self, repository: &Repository, digest: &Digest) -> Result<Option<InFlight>> {
        let entries = self.store().list(&layout::pending_blobs(digest), None, IN_FLIGHT + 1).await?;
        let is_some = entries.len() > IN_FLIGHT;
        for entry in entries {
            let of = InFlight { manifest: None, until: layout::due(&entry.key) };
            if is_some {
                return Ok(Some(of));
            }
            // A damaged one is of this blob, and may be of this repository.
            let read = pending::read::<PendingBlob>(self.store(), &entry.key).await;
            let is_here = |read: Option<PendingBlob>| read.is_some_and(|read| read.repository == *repository);
            if self.left.go_on(read.map(Some), &entry.key)?.is_none_or(is_here) {
                return Ok(Some(of));
            }
        }
        Ok(None)
    }

    /// Which of these digests are named by a manifest that is there, or else by one that can be put back. In this order: a
    /// delete leaves the manifest among those before it takes it away.
    pub(super) async fn named(&self, repository: &Repository, digests: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
        let mut missing: HashSet<u64> = digests.iter().map(mark).collect();
        for (prefix, is_queue) in [(layout::manifests(repository), false), (layout::dropped_of(repository), true)] {
            let mut after = None;
            while !missing.is_empty() {
                let entries = self.store().list(&prefix, after.as_ref(), crate::registry::pages::LIST).await?;
                let is_last = entries.len() < crate::registry::pages::LIST;
                after = entries.last().map(|entry| entry.key.clone());
                let is_relevant = |entry: &crate::store::Entry| {
                    if is_queue { !self.registry.is_due(&entry.key) } else { entry.size >= LIVE_AT_LEAST }
                };
                let reads: Vec<_> =
                    entries.into_iter().filter(is_relevant).map(|entry| self.names_of(entry.key)).collect();
                let mut reads = stream::iter(reads).buffer_unordered(READS);
                while let Some(names) = reads.try_next().await? {
                    for name in names.iter() {
                        missing.remove(name);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(digests.iter().filter(|digest| !missing.contains(&mark(digest))).copied().collect())
    }

    /// Whether any manifest is there.
    pub(super) async fn has_manifests(&self, repository: &Repository) -> Result<bool> {
        let mut after = None;
        loop {
            let entries =
                self.store().list(&layout::manifests(repository), after.as_ref(), crate::registry::pages::LIST).await?;
            if entries.iter().any(|entry| entry.size >= LIVE_AT_LEAST) {
                return Ok(true);
            }
            if entries.len() < crate::registry::pages::LIST {
                return Ok(false);
            }
            after = entries.last().map(|entry| entry.key.clone());
        }
    }

    /// What the manifest at this key names: one that is there, or one that was dropped.
    async fn names_of(&self, key: Key) -> Result<Arc<[u64]>> {
        if let Some(known) = self.names.get(&key) {
            return Ok(known);
        }
        let names = match layout::parse(&key) {
            Some(Named::Manifest(repository, digest)) => {
                let seen = layout::manifest(&repository, &digest).read(self.store()).await?;
                if seen.is_quarantined() {
                    return Err(Error::ManifestInvalid(format!("{key} is in quarantine")));
                }
                // Deleted since it was listed: then it is found among those that can be put back.
                let Some(stored) = seen.present() else { return Ok(Arc::default()) };
                if Digest::of(digest.algorithm(), &stored.bytes) != digest {
                    // What it named may be needed, and what it names now may be anything.
                    return Err(Error::ManifestInvalid(format!("{key}: not the bytes that its name says")));
                }
                names_in(stored.media_type(), &stored.bytes)
            }
            _ => match pending::read::<Dropped>(self.store(), &key).await?.map(|entry| entry.what) {
                Some(DroppedWhat::Manifest { media_type, manifest, .. }) => names_in(&media_type, manifest.as_bytes()),
                _ => BTreeSet::new(),
            },
        };
        let names = marks(&names);
        self.names.remember(key, &names);
        Ok(names)
    }
}

impl Names {
    fn get(&self, key: &Key) -> Option<Arc<[u64]>> {
        self.remembered().names.get(key).cloned()
    }

    /// Forgets others, where there is no room, whichever they are: each look goes through all manifests of a repository in
    /// one order, and what it used longest ago is what it needs next.
    fn remember(&self, key: Key, names: &Arc<[u64]>) {
        let mut remembered = self.remembered();
        remembered.size += cost(names);
        while remembered.size > CAPACITY && !remembered.keys.is_empty() {
            let any = usize::from_le_bytes(nonce::random()) % remembered.keys.len();
            let forgotten = remembered.keys.swap_remove(any);
            if let Some(names) = remembered.names.remove(&forgotten) {
                remembered.size -= cost(&names);
            }
        }
        match remembered.names.insert(key.clone(), Arc::clone(names)) {
            None => remembered.keys.push(key),
            // Read twice at the same time.
            Some(same) => remembered.size -= cost(&same),
        }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // No code panics while it holds the lock, so what is remembered is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("size", &self.remembered().size).finish_non_exhaustive()
    }
}

fn cost(names: &[u64]) -> usize {
    size_of_val(names) + OVERHEAD
}

/// The digests that a manifest names.
fn digests(manifest: &Manifest) -> impl Iterator<Item = Digest> {
    manifest.references.iter().filter_map(|link| AnyDigest::known(link.digest())).copied()
}

/// What a stored manifest names. One that would not be taken today names all digests that it says: perhaps too many.
pub(super) fn names_in(media_type: &str, bytes: &[u8]) -> BTreeSet<Digest> {
    match Manifest::parse(Some(media_type), bytes) {
        Ok(manifest) => digests(&manifest).collect(),
        Err(_) => digests_in(bytes),
    }
}

fn marks(digests: &BTreeSet<Digest>) -> Arc<[u64]> {
    let marks: BTreeSet<u64> = digests.iter().map(mark).collect();
    marks.into_iter().collect()
}

fn mark(digest: &Digest) -> u64 {
    let mut hasher = DefaultHasher::new();
    digest.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::parse(format!("repos/a/_manifests/sha256/{number}")).unwrap()
    }

    #[test]
    fn what_is_remembered_is_bounded_by_bytes_and_looking_through_more_than_that_still_finds_much_of_it() {
        let names = Names::default();
        let large: Arc<[u64]> = (0..20_000).collect();
        let manifests = CAPACITY / cost(&large) * 5 / 4;
        let look = || {
            let known = |number: &usize| {
                names.get(&key(*number)).map(drop).or_else(|| {
                    names.remember(key(*number), &large);
                    None
                })
            };
            (0..manifests).filter_map(|number| known(&number)).count()
        };
        assert_eq!(look(), 0);
        for _ in 0..5 {
            assert!(look() > manifests / 4);
            let remembered = names.remembered();
            assert!(remembered.size <= CAPACITY);
            assert_eq!(remembered.size, remembered.names.values().map(|names| cost(names)).sum::<usize>());
            assert_eq!(remembered.keys.len(), remembered.names.len());
        }
    }

    #[test]
    fn what_is_read_twice_at_the_same_time_is_remembered_once() {
        let names = Names::default();
        let two: Arc<[u64]> = [1, 2].into();
        for _ in 0..2 {
            names.remember(key(1), &two);
        }
        let remembered = names.remembered();
        assert_eq!((remembered.size, remembered.keys.len()), (cost(&two), 1));
    }
}
