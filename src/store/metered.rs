//! A decorator that counts: calls by verb, bytes in both directions and, under a paused clock, sequential round trips.

use std::{
    collections::BTreeMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use super::{
    Body, Condition, Deleted, Entry, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span, Store, Verb,
    Version, Versioned,
};

/// Counts what is asked of the store below it.
///
/// * A call counts when it is made, whatever comes of it.
/// * [`Store::sync_parts`] counts where the store has to act: where it answers without waiting at all, parts were
///   durable before and nothing was asked of anybody. [`Store::presign`] asks nobody and never counts.
/// * Bytes up are those of `put` and `put_part`; bytes down those of `read` and `open`. A file answered by `open` counts
///   with the whole span, anything else as it is delivered.
#[derive(Debug)]
pub struct Metered {
    store: Arc<dyn Store>,
    latency: Duration,
    counts: Arc<Mutex<Counts>>,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Verbs that were never called have no entry.
    pub calls: BTreeMap<Verb, u64>,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

impl Counts {
    pub fn of(&self, verb: Verb) -> u64 {
        self.calls.get(&verb).copied().unwrap_or_default()
    }

    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls (", self.total())?;
        for (index, (verb, count)) in self.calls.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {verb:?}")?;
        }
        write!(f, "), {} bytes up, {} down", self.bytes_up, self.bytes_down)
    }
}

impl Metered {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_latency(store, Duration::ZERO)
    }

    /// Every counted call takes this long on top. Under a paused clock the time that passes, divided by the latency,
    /// is the number of sequential round trips.
    pub fn with_latency(store: Arc<dyn Store>, latency: Duration) -> Self {
        Self { store, latency, counts: Arc::default() }
    }

    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// What was counted so far; counting starts again.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut lock(&self.counts))
    }

    async fn call(&self, verb: Verb) {
        *lock(&self.counts).calls.entry(verb).or_default() += 1;
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // No code panics while it holds the lock, so a poisoned one is still whole.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for Metered {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.call(Verb::Read).await;
        let found = self.store.read(key).await?;
        lock(&self.counts).bytes_down += found.as_ref().map_or(0, |found| found.bytes.len() as u64);
        Ok(found)
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.call(Verb::Open).await;
        let Some(mut object) = self.store.open(key, span).await? else { return Ok(None) };
        match object.body {
            Body::Bytes(ref bytes) => lock(&self.counts).bytes_down += bytes.len() as u64,
            Body::Files(ref files) => {
                lock(&self.counts).bytes_down += files.iter().map(|file| file.span.length).sum::<u64>();
            }
            Body::Stream(stream) => {
                let counts = Arc::clone(&self.counts);
                let counted = stream.inspect(move |chunk| {
                    lock(&counts).bytes_down += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
                });
                object.body = Body::Stream(counted.boxed());
            }
        }
        Ok(Some(object))
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.call(Verb::Head).await;
        self.store.head(key).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        lock(&self.counts).bytes_up += bytes.len() as u64;
        self.call(Verb::Put).await;
        self.store.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.call(Verb::Delete).await;
        self.store.delete(key).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        self.call(Verb::DeleteIf).await;
        self.store.delete_if(key, version).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        self.call(Verb::List).await;
        self.store.list(prefix, after, limit).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.call(Verb::Begin).await;
        self.store.begin(key).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        lock(&self.counts).bytes_up += bytes.len() as u64;
        self.call(Verb::PutPart).await;
        self.store.put_part(upload, number, bytes, previous).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let mut syncing = pin!(self.store.sync_parts(upload, parts));
        if let Some(done) = syncing.as_mut().now_or_never() {
            return done;
        }
        self.call(Verb::SyncParts).await;
        syncing.await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.call(Verb::Complete).await;
        self.store.complete(upload, parts).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.call(Verb::Abort).await;
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
    use tokio::time::Instant;

    use super::*;
    use crate::store::{contract::contract, memory::MemoryStore};

    const LATENCY: Duration = Duration::from_millis(10);

    contract!((Metered::new(Arc::new(MemoryStore::default())), ()));

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[tokio::test]
    async fn every_call_counts_once_under_its_verb_and_with_its_bytes() {
        let store = Metered::new(Arc::new(MemoryStore::default()));
        assert_eq!(store.counts(), Counts::default());
        store.put(&key("a"), "12345".into(), Condition::Create).await.unwrap();
        store.put(&key("a"), "123".into(), Condition::Create).await.unwrap();
        store.read(&key("a")).await.unwrap();
        store.read(&key("absent")).await.unwrap();
        store.open(&key("a"), Span::new(1, 3)).await.unwrap();
        let upload = store.begin(&key("b")).await.unwrap();
        let Placed::New(part) = store.put_part(&upload, 1, "12".into(), None).await.unwrap() else { panic!("grown") };
        store.sync_parts(&upload, std::slice::from_ref(&part)).await.unwrap();
        store.complete(&upload, &[part]).await.unwrap();
        store.complete(&upload, &[]).await.unwrap_err();
        let counts = store.take();
        let expected = "9 calls (2 Read, 1 Open, 2 Put, 1 Begin, 1 PutPart, 2 Complete), 10 bytes up, 8 down";
        assert_eq!(counts.to_string(), expected);
        assert_eq!((counts.of(Verb::Put), counts.of(Verb::Head), counts.total()), (2, 0, 9));
        assert_eq!(store.counts(), Counts::default());
    }

    #[tokio::test(start_paused = true)]
    async fn under_a_paused_clock_time_counts_sequential_round_trips() {
        let store = Metered::with_latency(Arc::new(MemoryStore::default()), LATENCY);
        let start = Instant::now();
        let [a, b, c] = ["a", "b", "c"].map(key);
        let (first, second) = tokio::join!(store.head(&a), async {
            store.head(&b).await?;
            store.head(&c).await
        });
        assert_eq!((first.unwrap(), second.unwrap()), (None, None));
        assert_eq!(start.elapsed(), 2 * LATENCY, "two in a row, one beside them");
        store.list("", None, 1).await.unwrap();
        assert_eq!(start.elapsed(), 3 * LATENCY);
        assert_eq!(store.counts().total(), 4);
    }
}
