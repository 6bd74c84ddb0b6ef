//! The bytes of bodies that may be in memory, over all requests of this process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A byte budget with back-pressure: who gets none waits, and so does the client behind it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    total: u32,
}

/// Bytes granted; given back when dropped.
#[derive(Debug)]
pub(crate) struct Grant {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self { bytes: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for this many bytes. More than the whole budget counts as the whole budget, so that nobody waits for ever.
    /// A holder must be able to go on without a second grant: then there is no deadlock.
    pub(crate) async fn grant(&self, bytes: u64) -> Grant {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        // Never closed: an error cannot happen, and if it did the bound is what would be lost, not the upload.
        Grant { _permit: Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok() }
    }
}
