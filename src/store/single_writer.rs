//! A decorator that holds a store to its conditions which ignores them, as far as one process can.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Condition, Deleted, Entry, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span, Store, Version,
    Versioned,
};

/// Looks before each conditional write whether the condition holds, and lets nobody write to the key meanwhile.
///
/// * That is the contract of a [`Store`] as long as **this process alone writes**. Beside a second one neither learns of
///   the other's writes, and the later of two takes the place of the earlier.
/// * A write that was given up, and that the store carries out late, takes the place of what came after it.
/// * Each conditional write costs a read more.
#[derive(Debug)]
pub struct SingleWriter {
    store: Arc<dyn Store>,
    turns: [Mutex<()>; SHARDS],
}

/// How many keys can be written at the same time. Keys share turns by chance.
const SHARDS: usize = 256;

impl SingleWriter {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, turns: std::array::from_fn(|_| Mutex::default()) }
    }

    async fn turn(&self, key: &Key) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let shard = usize::from(hasher.finish().to_le_bytes()[0]) % SHARDS;
        Some(self.turns.get(shard)?.lock().await)
    }

    async fn has(&self, key: &Key, version: &Version) -> Result<bool> {
        Ok(self.store.read(key).await?.is_some_and(|there| there.version == *version))
    }
}

#[async_trait]
impl Store for SingleWriter {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.store.read(key).await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.store.open(key, span).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.store.head(key).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        let _turn = self.turn(key).await;
        let holds = match &condition {
            Condition::Create => self.store.head(key).await?.is_none(),
            Condition::Replace(version) => self.has(key, version).await?,
        };
        if holds { self.store.put(key, bytes, condition).await } else { Ok(Put::Lost) }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let _turn = self.turn(key).await;
        self.store.delete(key).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        let _turn = self.turn(key).await;
        if !self.has(key, version).await? {
            return Ok(Deleted::Lost);
        }
        self.store.delete(key).await.map(|()| Deleted::Deleted)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        self.store.list(prefix, after, limit).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.store.begin(key).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        self.store.put_part(upload, number, bytes, previous).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.store.sync_parts(upload, parts).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.store.complete(upload, parts).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.store.abort(upload).await
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        self.store.presign(key, ttl).await
    }

    fn limits(&self) -> Limits {
        Limits { conditional_delete: true, ..self.store.limits() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        contract::contract,
        s3::testing::{Quirks, Server},
    };

    async fn on_garage() -> (SingleWriter, Server) {
        let server = Server::start(Quirks::GARAGE).await;
        (SingleWriter::new(Arc::new(server.store().await)), server)
    }

    contract!(on_garage().await);
}
