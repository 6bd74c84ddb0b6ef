//! Telling a stalled connection from a slow one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// The signs of life of one connection.
///
/// A connection has stalled when for the whole idle time-out no byte moved either way and nobody on our side was at
/// work: then it is the peer that we wait for. One rule for a client that leaves its answer unread, for one that sends
/// nothing after connecting, and for a kept connection that is not used. A handler that works for an hour is no stall,
/// nor is a client that takes one byte a minute.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    /// Microseconds from `start` to the last sign of life.
    last: AtomicU64,
    /// How many handlers and response bodies are at work.
    working: AtomicUsize,
    /// Whether a request was answered before its body was read to the end.
    unread: AtomicBool,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            working: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
        })
    }

    /// A sign of life.
    pub(super) fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Says that our side is at work, until the answer is dropped.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        self.working.fetch_add(1, Ordering::Relaxed);
        Work(Arc::clone(self))
    }

    /// Says that the peer is sending what nobody reads any more.
    pub(super) fn left_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_left_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Returns when the connection has stalled.
    pub(super) async fn stalled(&self, idle: Duration) {
        loop {
            let left = idle.saturating_sub(self.quiet());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    fn quiet(&self) -> Duration {
        if self.working.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        self.start.elapsed().saturating_sub(Duration::from_micros(self.last.load(Ordering::Relaxed)))
    }
}

/// Somebody on our side at work.
#[derive(Debug)]
pub(super) struct Work(Arc<Pulse>);

impl Drop for Work {
    fn drop(&mut self) {
        // In this order: who sees that nobody works any more must not take the time of work for silence.
        self.0.beat();
        self.0.working.fetch_sub(1, Ordering::Release);
    }
}
