//! The bytes of bodies that may be in memory, over all requests of this process.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::buffers::Buffers;

/// The most that may lie in temporary files, of all slow clients together. The deployments in `deploy` have room for 1 GiB.
const FILES: u32 = 768 << 20;

/// A byte budget with back-pressure: who gets none waits, and so does the client behind it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    total: u32,
    /// How many wait.
    waiting: Arc<watch::Sender<usize>>,
    buffers: Buffers,
    files: Arc<Semaphore>,
}

/// Bytes granted; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Grant {
    bytes: u64,
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let bytes = Arc::new(Semaphore::new(total as usize));
        let files = Arc::new(Semaphore::new(FILES as usize));
        Self { bytes, total, waiting: Arc::new(watch::Sender::new(0)), buffers: Buffers::default(), files }
    }

    /// What is granted may be held in these.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// This many bytes, if they are to be had at once.
    pub(crate) fn try_grant(&self, bytes: u64) -> Option<Grant> {
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(self.portion(bytes)).ok()?;
        Some(Grant { bytes, budget: self.clone(), permit: Some(permit) })
    }

    /// Waits for this many bytes. More than the whole budget counts as the whole budget, so that nobody waits for ever.
    /// A holder must be able to go on without a second grant: then there is no deadlock.
    pub(crate) async fn grant(&self, bytes: u64) -> Grant {
        if let Some(granted) = self.try_grant(bytes) {
            return granted;
        }
        let _waiting = Waiting::among(&self.waiting);
        // Never closed: an error cannot happen, and if it did the bound is what would be lost, not the upload.
        let permit = Arc::clone(&self.bytes).acquire_many_owned(self.portion(bytes)).await.ok();
        Grant { bytes, budget: self.clone(), permit }
    }

    /// Room for this many bytes in a file, if there is some.
    pub(crate) fn try_file(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(FILES);
        Arc::clone(&self.files).try_acquire_many_owned(bytes).ok()
    }

    fn portion(&self, bytes: u64) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
    }

    /// Returns when somebody waits: who can do with less gives some back.
    pub(crate) async fn wanted(&self) {
        // The sender is ours: it does not go away.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

impl Grant {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds this many bytes if they are to be had at once.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.budget.bytes).try_acquire_many_owned(wanted) else { return false };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        self.bytes += bytes;
        true
    }

    /// The same bytes, with what was granted for them: it is given back when the last who has them is done.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Granted { bytes, _grant: self })
    }
}

struct Granted {
    bytes: Bytes,
    _grant: Grant,
}

impl AsRef<[u8]> for Granted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Somebody who waits, counted until it is dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, pin_mut};

    use super::*;

    #[tokio::test]
    async fn who_gets_none_waits_and_says_so_until_somebody_gives_back() {
        let budget = Budget::new(10);
        let first = budget.grant(8).await;
        assert!(budget.wanted().now_or_never().is_none());
        {
            let second = budget.grant(4);
            pin_mut!(second);
            assert!(second.as_mut().now_or_never().is_none());
            assert!(budget.wanted().now_or_never().is_some());
            drop(first);
            assert_eq!(second.await.bytes(), 4);
        }
        assert!(budget.wanted().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_grant_grows_by_what_is_left_and_gives_all_of_it_back() {
        let budget = Budget::new(10);
        let mut grant = budget.grant(4).await;
        assert!(grant.grow(6));
        assert!(!grant.grow(1));
        assert_eq!(grant.bytes(), 10);
        drop(grant);
        assert!(budget.grant(10).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_bytes_hold_is_given_back_with_the_last_of_them() {
        let budget = Budget::new(10);
        let bytes = budget.grant(10).await.hold(Bytes::from_static(b"0123456789"));
        let some = bytes.slice(3..5);
        drop(bytes);
        assert!(budget.try_grant(1).is_none());
        assert_eq!(some, "34");
        drop(some);
        assert!(budget.try_grant(10).is_some());
    }

    #[tokio::test]
    async fn more_than_the_whole_budget_is_the_whole_budget() {
        let budget = Budget::new(10);
        let grant = budget.grant(100).now_or_never().unwrap();
        assert_eq!(grant.bytes(), 100);
        assert!(budget.grant(1).now_or_never().is_none());
    }
}
