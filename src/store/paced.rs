//! A decorator that keeps work in the background from getting in the way: so many calls a second, and no more.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{
    Condition, Deleted, Entry, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span, Store, Version,
    Versioned,
};

/// Spaces calls evenly; those that come faster wait for their turn.
#[derive(Debug)]
pub struct Paced {
    store: Arc<dyn Store>,
    space: Duration,
    /// When the next call may be made.
    next: Mutex<Instant>,
}

impl Paced {
    pub fn new(store: Arc<dyn Store>, calls_per_second: NonZeroU32) -> Self {
        Self { store, space: Duration::from_secs(1) / calls_per_second.get(), next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().await;
            let turn = (*next).max(Instant::now());
            *next = turn + self.space;
            turn
        };
        sleep_until(turn).await;
    }
}

#[async_trait]
impl Store for Paced {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.turn().await;
        self.store.read(key).await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.turn().await;
        self.store.open(key, span).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.turn().await;
        self.store.head(key).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        self.turn().await;
        self.store.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.turn().await;
        self.store.delete(key).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        self.turn().await;
        self.store.delete_if(key, version).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        self.turn().await;
        self.store.list(prefix, after, limit).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.turn().await;
        self.store.begin(key).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        self.turn().await;
        self.store.put_part(upload, number, bytes, previous).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.turn().await;
        self.store.sync_parts(upload, parts).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.turn().await;
        self.store.complete(upload, parts).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.turn().await;
        self.store.abort(upload).await
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        self.store.presign(key, ttl).await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{contract::contract, memory::MemoryStore};

    contract!((Paced::new(Arc::new(MemoryStore::default()), NonZeroU32::MAX), ()));

    #[tokio::test(start_paused = true)]
    async fn calls_are_spaced_however_many_come_at_once() {
        let paced = Paced::new(Arc::new(MemoryStore::default()), NonZeroU32::new(10).unwrap());
        let start = Instant::now();
        let key = Key::parse("a").unwrap();
        let calls = (0..21).map(|_| paced.head(&key));
        futures_util::future::try_join_all(calls).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }
}
