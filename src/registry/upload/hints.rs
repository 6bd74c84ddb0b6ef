//! What this process remembers of sessions, to save reads.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

use super::journal::Journal;
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
    pub(super) fn get(&self, id: SessionId) -> Option<Journal> {
        self.lock().sessions.get(&id).cloned()
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
