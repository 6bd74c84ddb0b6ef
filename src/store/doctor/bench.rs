//! A folder to try things in, and its cleaning.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Condition, Error, ErrorKind, Key, Put, Result, Store};
use crate::store::{Multipart, Version};

/// Remembers every key and every upload that a probe was given.
pub(super) struct Bench<'a> {
    pub(super) store: &'a dyn Store,
    folder: String,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    keys: Vec<Key>,
    uploads: Vec<Multipart>,
}

impl<'a> Bench<'a> {
    /// In a folder that nobody else uses.
    pub(super) fn new(store: &'a dyn Store, folder: &str) -> Self {
        let mut random = [0; 16];
        // Without randomness the folder is not ours alone: the first create will be refused, which is an error.
        getrandom::fill(&mut random).unwrap_or_default();
        let folder = format!("{folder}{}/", data_encoding::HEXLOWER.encode(&random));
        Self { store, folder, used: Mutex::default() }
    }

    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    pub(super) fn key(&self, name: &str) -> Result<Key> {
        let name = format!("{}{name}", self.folder);
        let key =
            Key::parse(name.as_str()).ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("{name}: not a key")))?;
        self.used().keys.push(key.clone());
        Ok(key)
    }

    /// A key with an object.
    pub(super) async fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(Key, Version)> {
        let key = self.key(name)?;
        match self.store.put(&key, bytes.into(), Condition::Create).await? {
            Put::Stored(version) => Ok((key, version)),
            Put::Lost => Err(Error::new(ErrorKind::Corrupt, format!("{key}: is there already"))),
        }
    }

    pub(super) async fn begin(&self, name: &str) -> Result<Multipart> {
        let upload = self.store.begin(&self.key(name)?).await?;
        self.used().uploads.push(upload.clone());
        Ok(upload)
    }

    /// Deletes and aborts all that may have been left.
    pub(super) async fn clear(&self) -> Result<()> {
        let Used { mut keys, uploads } = std::mem::take(&mut *self.used());
        keys.sort();
        keys.dedup();
        let aborted = join_all(uploads.iter().map(|upload| self.store.abort(upload))).await;
        let deleted = join_all(keys.iter().map(|key| self.store.delete(key))).await;
        aborted.into_iter().chain(deleted).collect()
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
