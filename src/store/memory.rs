//! The store in memory: for tests, and to say in fifty lines what a store is.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{
    Body, Condition, Deleted, Entry, Error, ErrorKind, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span,
    Store, Version, Versioned,
};

/// Parts as S3 has them, but counted in bytes and not in MiB, so that small tests cross every edge.
pub const TINY_PARTS: Limits = Limits {
    min_part: 5,
    part: 5,
    max_part: 5 * 1024,
    max_parts: 10_000,
    uniform_parts: true,
    conditional_delete: true,
};

#[derive(Debug)]
pub struct MemoryStore {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, (Bytes, u64)>,
    uploads: HashMap<String, BTreeMap<u32, (Bytes, String)>>,
    /// Counts up: names versions, uploads and parts.
    last: u64,
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(TINY_PARTS)
    }
}

impl MemoryStore {
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// How many multipart uploads are neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// The ids of the open multipart uploads that hold parts.
    pub fn uploads_with_parts(&self) -> Vec<String> {
        let state = self.state();
        state.uploads.iter().filter(|(_, parts)| !parts.is_empty()).map(|(id, _)| id.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(number: u64) -> Version {
    Version(number.to_string())
}

fn no_upload(upload: &Multipart) -> Error {
    Error::new(ErrorKind::NotFound, format!("upload {} of {}", upload.id, upload.key))
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        let found = self.state().objects.get(key.as_str()).cloned();
        Ok(found.map(|(bytes, number)| Versioned { bytes, version: version(number) }))
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        let found = self.state().objects.get(key.as_str()).cloned();
        Ok(found.map(|(bytes, _)| {
            let size = bytes.len() as u64;
            let Span { start, length } = span.within(size);
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Object { size, body: Body::Bytes(bytes.slice(start..start + length)) }
        }))
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        Ok(self.state().objects.get(key.as_str()).map(|(bytes, _)| bytes.len() as u64))
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        let mut state = self.state();
        let there = state.objects.get(key.as_str()).map(|(_, number)| version(*number));
        let holds = match condition {
            Condition::Create => there.is_none(),
            Condition::Replace(expected) => there == Some(expected),
        };
        if !holds {
            return Ok(Put::Lost);
        }
        let number = state.next();
        // A copy: what was given may hold memory that is to be given back.
        state.objects.insert(key.as_str().to_owned(), (Bytes::copy_from_slice(&bytes), number));
        Ok(Put::Stored(version(number)))
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.state().objects.remove(key.as_str());
        Ok(())
    }

    async fn delete_if(&self, key: &Key, expected: &Version) -> Result<Deleted> {
        let mut state = self.state();
        if state.objects.get(key.as_str()).map(|(_, number)| version(*number)).as_ref() != Some(expected) {
            return Ok(Deleted::Lost);
        }
        state.objects.remove(key.as_str());
        Ok(Deleted::Deleted)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let state = self.state();
        let entries = state
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, (bytes, _))| Some(Entry { key: Key::parse(key.as_str())?, size: bytes.len() as u64 }))
            .take(limit)
            .collect();
        Ok(entries)
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        let mut state = self.state();
        let id = format!("upload-{}", state.next());
        state.uploads.insert(id.clone(), BTreeMap::new());
        Ok(Multipart { key: key.clone(), id })
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, _: Option<&Part>) -> Result<Placed> {
        let mut state = self.state();
        let fresh = format!("part-{}", state.next());
        let size = bytes.len() as u64;
        let parts = state.uploads.get_mut(&upload.id).ok_or_else(|| no_upload(upload))?;
        // The same bytes sent again are the same part, as where the tag is their hash.
        let tag = parts.get(&number).filter(|(there, _)| *there == bytes).map_or(fresh, |(_, tag)| tag.clone());
        parts.insert(number, (Bytes::copy_from_slice(&bytes), tag.clone()));
        Ok(Placed::New(Part { number, size, tag }))
    }

    async fn sync_parts(&self, _: &Multipart, _: &[Part]) -> Result<()> {
        Ok(())
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let mut state = self.state();
        let uploaded = state.uploads.get(&upload.id).ok_or_else(|| no_upload(upload))?;
        let mut whole = BytesMut::new();
        let mut last = 0;
        for (index, part) in parts.iter().enumerate() {
            let refuse = |why: &str| {
                let context = format!("part {} of upload {}: {why}", part.number, upload.id);
                Error::new(ErrorKind::Corrupt, context)
            };
            let (bytes, tag) = uploaded.get(&part.number).ok_or_else(|| refuse("never uploaded"))?;
            let is_last = index + 1 == parts.len();
            if *tag != part.tag || bytes.len() as u64 != part.size {
                return Err(refuse("not these bytes"));
            }
            if part.number <= last {
                return Err(refuse("out of order"));
            }
            if !is_last && part.size < self.limits.min_part {
                return Err(refuse("too small"));
            }
            if self.limits.uniform_parts
                && parts.first().is_some_and(|first| part.size > first.size || (!is_last && part.size != first.size))
            {
                return Err(refuse("not of one size"));
            }
            last = part.number;
            whole.extend_from_slice(bytes);
        }
        if parts.is_empty() {
            return Err(Error::new(ErrorKind::Corrupt, format!("upload {}: no parts", upload.id)));
        }
        state.uploads.remove(&upload.id);
        let number = state.next();
        state.objects.insert(upload.key.as_str().to_owned(), (whole.freeze(), number));
        Ok(())
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.state().uploads.remove(&upload.id);
        Ok(())
    }

    async fn presign(&self, _: &Key, _: Duration) -> Result<Option<String>> {
        Ok(None)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::contract;

    contract!((MemoryStore::default(), ()));
}
