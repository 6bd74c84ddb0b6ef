//! What this process remembers of sessions, to save reads.

use std::{
    mem,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

use super::{budget::Budget, journal::Journal};
use crate::registry::session::SessionId;

/// Where sessions stood when this process last wrote to them. They save reads; each use says what decides instead.
pub(crate) struct Hints(Mutex<Remembered>);

struct Remembered {
    sessions: LruCache<SessionId, Journal>,
    /// What the tails among them weigh.
    bytes: usize,
}

/// How many sessions are remembered.
const HINTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How many bytes of tails they may hold.
const HINTS_BYTES: usize = 8 << 20;

impl Hints {
    /// Its tail holds what was granted for it, since it may be forgotten here while it is still in use. `None` also where
    /// there is no memory for it: who reads it from the store waits for some.
    pub(super) fn get(&self, id: SessionId, budget: &Budget) -> Option<Journal> {
        let mut journal = self.lock().sessions.get(&id).cloned()?;
        let tail = mem::take(&mut journal.accepted.tail);
        if !tail.is_empty() {
            journal.accepted.tail = budget.try_grant(tail.len() as u64)?.hold(tail);
        }
        Some(journal)
    }

    pub(super) fn remember(&self, id: SessionId, journal: Journal) {
        let mut remembered = self.lock();
        remembered.bytes += journal.accepted.tail.len();
        if let Some((_, replaced)) = remembered.sessions.push(id, journal) {
            remembered.bytes -= replaced.accepted.tail.len();
        }
        while remembered.bytes > HINTS_BYTES
            && let Some((_, oldest)) = remembered.sessions.pop_lru()
        {
            remembered.bytes -= oldest.accepted.tail.len();
        }
    }

    pub(super) fn forget(&self, id: SessionId) {
        let mut remembered = self.lock();
        if let Some(forgotten) = remembered.sessions.pop(&id) {
            remembered.bytes -= forgotten.accepted.tail.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Hints {
    fn default() -> Self {
        Self(Mutex::new(Remembered { sessions: LruCache::new(HINTS), bytes: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{oci::Algorithm, registry::nonce::fresh_id};

    /// A session that is remembered when it is asked for, and forgotten after that.
    fn use_another(hints: &Hints, budget: &Budget) -> Option<Journal> {
        let id = SessionId::parse(&fresh_id().to_string()).unwrap();
        let mut journal = Journal::new(Algorithm::Sha256, 10);
        journal.accepted.tail = Bytes::from_static(b"a tail");
        hints.remember(id, journal);
        let journal = hints.get(id, budget);
        hints.forget(id);
        journal
    }

    #[test]
    fn tails_in_use_take_no_more_than_the_memory_however_many_are_forgotten_meanwhile() {
        let (hints, budget) = (Hints::default(), Budget::new(10));
        let first = use_another(&hints, &budget).unwrap();
        assert_eq!(first.accepted.tail, "a tail");
        assert!(use_another(&hints, &budget).is_none(), "there is no memory for a second");
        drop(first);
        assert!(use_another(&hints, &budget).is_some());
    }
}
