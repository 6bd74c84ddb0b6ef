//! Manifests that were read here, for while the store cannot be asked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use super::ManifestHead;
use crate::oci::{Digest, Repository};

/// The bytes of manifests that are kept, and what keeping each of them costs beside.
const CAPACITY: usize = 16 << 20;
const OVERHEAD: usize = 512;

/// The manifests that were read last. To be asked only where the store gives no answer: it knows of no delete by
/// another replica.
///
/// What was deleted here is never kept: not what was read before, nor what is still being read.
pub(crate) struct Cache(Mutex<State>);

struct State {
    kept: LruCache<(Repository, Digest), (ManifestHead, Bytes)>,
    size: usize,
    forgotten: u64,
}

/// Taken before a manifest is read, so that it is not kept if one was forgotten meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

impl Cache {
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.state().forgotten)
    }

    pub(crate) fn remember(&self, ticket: Ticket, repository: &Repository, head: &ManifestHead, bytes: &Bytes) {
        let mut state = self.state();
        let name = (repository.clone(), head.digest);
        if state.forgotten != ticket.0 || state.kept.get(&name).is_some() {
            return;
        }
        // A copy: what it was read from holds more.
        let kept = (head.clone(), Bytes::copy_from_slice(bytes));
        state.size += cost(&kept);
        state.kept.push(name, kept);
        while state.size > CAPACITY
            && let Some((_, oldest)) = state.kept.pop_lru()
        {
            state.size -= cost(&oldest);
        }
    }

    pub(crate) fn forget(&self, repository: &Repository, digest: &Digest) {
        let mut state = self.state();
        state.forgotten += 1;
        if let Some(kept) = state.kept.pop(&(repository.clone(), *digest)) {
            state.size -= cost(&kept);
        }
    }

    pub(crate) fn get(&self, repository: &Repository, digest: &Digest) -> Option<(ManifestHead, Bytes)> {
        self.state().kept.get(&(repository.clone(), *digest)).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost((_, bytes): &(ManifestHead, Bytes)) -> usize {
    bytes.len() + OVERHEAD
}

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(State { kept: LruCache::unbounded(), size: 0, forgotten: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn repository() -> Repository {
        Repository::parse("a").unwrap()
    }

    fn manifest(number: usize, size: usize) -> (ManifestHead, Bytes) {
        let digest = Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        (ManifestHead { digest, media_type: "a/b".into(), size: size as u64 }, vec![0; size].into())
    }

    #[test]
    fn what_was_not_asked_for_longest_makes_room() {
        let cache = Cache::default();
        let manifests: Vec<_> = (0..20).map(|number| manifest(number, 1 << 20)).collect();
        for (head, bytes) in &manifests {
            cache.remember(cache.ticket(), &repository(), head, bytes);
            assert!(cache.get(&repository(), &manifests[0].0.digest).is_some(), "the first is asked for all the time");
            assert!(cache.state().size <= CAPACITY);
        }
        let is_kept = |(head, _): &&(ManifestHead, Bytes)| cache.get(&repository(), &head.digest).is_some();
        assert_eq!(manifests.iter().filter(is_kept).count(), 15);
        assert!(cache.get(&repository(), &manifests[1].0.digest).is_none());
        assert!(
            cache.get(&Repository::parse("b").unwrap(), &manifests[19].0.digest).is_none(),
            "of another repository"
        );
        for (head, _) in &manifests {
            cache.forget(&repository(), &head.digest);
        }
        assert_eq!(cache.state().size, 0);
    }

    #[test]
    fn what_is_deleted_while_it_is_read_is_not_kept() {
        let cache = Cache::default();
        let (head, bytes) = manifest(0, 1);
        let ticket = cache.ticket();
        cache.forget(&repository(), &head.digest);
        cache.remember(ticket, &repository(), &head, &bytes);
        assert_eq!(cache.get(&repository(), &head.digest), None);
    }
}
