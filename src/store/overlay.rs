//! A decorator that keeps all writes to itself: for finding out what would be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{
    Condition, Deleted, Entry, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span, Store, Version,
    Versioned, memory::MemoryStore,
};

/// Reads fall through to the store below; what is written over it stays in memory and is gone with the overlay.
///
/// Its writer sees its own writes and nobody else does. What others write below shows through, as long as nothing lies
/// over it. An upload begun below is not one of the overlay's, and stays as it is.
#[derive(Debug)]
pub struct Overlay {
    below: Arc<dyn Store>,
    above: MemoryStore,
    /// What was deleted here, and so does not show through.
    hidden: StdMutex<BTreeSet<String>>,
    /// A condition is looked at and the write made in one turn, and a page is merged in one.
    writing: Mutex<()>,
}

/// Sets the versions of the overlay apart from those below.
const ABOVE: &str = "overlay-";

impl Overlay {
    pub fn new(below: Arc<dyn Store>) -> Self {
        let above = MemoryStore::new(below.limits());
        Self { below, above, hidden: StdMutex::default(), writing: Mutex::default() }
    }

    fn hidden(&self) -> StdMutexGuard<'_, BTreeSet<String>> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked after what lies above, which hides what is below in any case.
    fn is_hidden(&self, key: &Key) -> bool {
        self.hidden().contains(key.as_str())
    }

    async fn has(&self, key: &Key, version: &Version) -> Result<bool> {
        Ok(self.read(key).await?.is_some_and(|there| there.version == *version))
    }

    /// First it no longer shows through, then it is gone: never anything older in between.
    async fn remove(&self, key: &Key) -> Result<()> {
        self.hidden().insert(key.as_str().to_owned());
        self.above.delete(key).await
    }
}

fn above(version: &Version) -> Version {
    Version(format!("{ABOVE}{}", version.0))
}

#[async_trait]
impl Store for Overlay {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        match self.above.read(key).await? {
            Some(Versioned { bytes, version }) => Ok(Some(Versioned { bytes, version: above(&version) })),
            None if self.is_hidden(key) => Ok(None),
            None => self.below.read(key).await,
        }
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        match self.above.open(key, span).await? {
            None if !self.is_hidden(key) => self.below.open(key, span).await,
            found => Ok(found),
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        match self.above.head(key).await? {
            None if !self.is_hidden(key) => self.below.head(key).await,
            found => Ok(found),
        }
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        let _turn = self.writing.lock().await;
        let holds = match &condition {
            Condition::Create => self.head(key).await?.is_none(),
            Condition::Replace(version) => self.has(key, version).await?,
        };
        if !holds {
            return Ok(Put::Lost);
        }
        let over = match self.above.read(key).await? {
            Some(there) => Condition::Replace(there.version),
            None => Condition::Create,
        };
        Ok(match self.above.put(key, bytes, over).await? {
            Put::Stored(version) => Put::Stored(above(&version)),
            Put::Lost => Put::Lost,
        })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let _turn = self.writing.lock().await;
        self.remove(key).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        let _turn = self.writing.lock().await;
        if !self.has(key, version).await? {
            return Ok(Deleted::Lost);
        }
        self.remove(key).await.map(|()| Deleted::Deleted)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        let _turn = self.writing.lock().await;
        let mut merged = BTreeMap::new();
        let mut from = after.cloned();
        // As many from below as a page holds, not counting what is hidden, or all there are.
        loop {
            let page = self.below.list(prefix, from.as_ref(), limit).await?;
            let is_last = page.len() < limit;
            from = page.last().map(|entry| entry.key.clone());
            let hidden = self.hidden();
            let shown = page.into_iter().filter(|entry| !hidden.contains(entry.key.as_str()));
            merged.extend(shown.map(|entry| (entry.key.as_str().to_owned(), entry)));
            if is_last || merged.len() >= limit {
                break;
            }
        }
        let above = self.above.list(prefix, after, limit).await?;
        merged.extend(above.into_iter().map(|entry| (entry.key.as_str().to_owned(), entry)));
        Ok(merged.into_values().take(limit).collect())
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.above.begin(key).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        self.above.put_part(upload, number, bytes, previous).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.above.sync_parts(upload, parts).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let _turn = self.writing.lock().await;
        self.above.complete(upload, parts).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.above.abort(upload).await
    }

    async fn presign(&self, _: &Key, _: Duration) -> Result<Option<String>> {
        // The store would serve what lies below.
        Ok(None)
    }

    fn limits(&self) -> Limits {
        self.below.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::contract;

    contract!((Overlay::new(Arc::new(MemoryStore::default())), ()));

    fn key(number: u64) -> Key {
        Key::parse(format!("k/{number:02}")).unwrap()
    }

    async fn fill(store: &dyn Store) {
        for number in (0..40).step_by(2) {
            store.put(&key(number), Bytes::from(vec![b'x'; 5]), Condition::Create).await.unwrap();
        }
    }

    /// A store after some writes, as every call shows it.
    async fn shown(store: &dyn Store) -> Vec<(Key, u64, Bytes)> {
        let mut shown = Vec::new();
        let mut after = None;
        loop {
            let page = store.list("k/", after.as_ref(), 3).await.unwrap();
            for entry in &page {
                let read = store.read(&entry.key).await.unwrap().unwrap();
                assert_eq!(store.head(&entry.key).await.unwrap(), Some(entry.size));
                shown.push((entry.key.clone(), entry.size, read.bytes));
            }
            if page.len() < 3 {
                return shown;
            }
            after = page.last().map(|entry| entry.key.clone());
        }
    }

    #[tokio::test]
    async fn it_shows_what_a_store_would_that_took_the_writes_and_the_one_below_takes_none() {
        let below = Arc::new(MemoryStore::default());
        fill(below.as_ref()).await;
        let before = shown(below.as_ref()).await;
        let (overlay, plain) = (Overlay::new(below.clone()), MemoryStore::default());
        fill(&plain).await;
        for step in 0..400_u64 {
            let at = key(step * 31 % 43 * 7 % 40);
            for store in [&overlay as &dyn Store, &plain] {
                let there = store.read(&at).await.unwrap();
                let bytes = Bytes::from(vec![b'y'; usize::try_from(step % 50).unwrap()]);
                match (step * 17 % 5, there) {
                    (0, Some(there)) => {
                        assert_eq!(store.delete_if(&at, &there.version).await.unwrap(), Deleted::Deleted);
                        assert_eq!(store.delete_if(&at, &there.version).await.unwrap(), Deleted::Lost);
                    }
                    (1, _) => store.delete(&at).await.unwrap(),
                    (_, Some(there)) => {
                        assert_eq!(store.put(&at, bytes.clone(), Condition::Create).await.unwrap(), Put::Lost);
                        let over = Condition::Replace(there.version);
                        assert_ne!(store.put(&at, bytes.clone(), over.clone()).await.unwrap(), Put::Lost);
                        assert_eq!(store.put(&at, bytes, over).await.unwrap(), Put::Lost);
                    }
                    (_, None) => assert_ne!(store.put(&at, bytes, Condition::Create).await.unwrap(), Put::Lost),
                }
            }
            assert_eq!(shown(&overlay).await, shown(&plain).await, "after step {step}");
        }
        assert_eq!(shown(below.as_ref()).await, before);
    }
}
