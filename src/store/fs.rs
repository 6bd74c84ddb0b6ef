//! The store on a local directory, shared by any number of processes.
//!
//! ```text
//! a/b/c                   the object a/b/c
//! a/b/c#/                 the same, made of several segments: hard links named <start>-<length>, in hex
//! a/b/.<shard>            bytes on their way to a name, owned by whoever holds the lock of the shard
//! .parts/<id>/            an open upload: its segments, each written by one writer, each named anew
//! .parts/<id>.gone/       what is being dropped
//! .locks/<shard>          the lock of all keys of one shard: the first byte of the SHA-256 of the key
//! .locks/<shard>.names    the same for folders: between listing one and replacing something in it
//! ```
//!
//! * Names that start with `.` or end in `#` cannot occur in keys: they are ours, and invisible.
//! * Bytes are durable before they get their name; the name is durable before the call returns `Ok`, or `Lost`.
//! * A file never changes once it has the name of an object. A version is the SHA-256 of the bytes.
//! * A folder that carries the sticky bit is known to be durable, and so are all above it (see `folder.rs`).
//! * Whoever reads an object takes no lock, and may see it a moment before it is durable. That does no harm where names
//!   reach the disk in the order of the calls, as on ext4 and XFS: nothing that is acknowledged later outlives it.
//! * A crash leaves no object half there. It may leave bytes on their way (removed by the next), an upload (until it is
//!   aborted), and empty folders. Nothing needs to be repaired or scanned at the next start.
//!
//! The whole directory must be one file system: one with hard links, locks, and names that differ by case.

mod durable;
mod folder;
mod list;
mod object;
mod segments;
mod upload;

use std::{io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::Errno;

use self::folder::Root;
use super::{
    Condition, Deleted, Entry, Error, ErrorKind, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span,
    Store, Version, Versioned,
};

const LIMITS: Limits = Limits {
    min_part: 1,
    part: 1024 * 1024,
    max_part: 1024 * 1024 * 1024,
    max_parts: u32::MAX,
    uniform_parts: false,
    conditional_delete: true,
};

#[derive(Clone, Debug)]
pub struct FsStore {
    root: Arc<Root>,
}

impl FsStore {
    /// Opens the store on this directory, which is created if it is missing. Blocks; meant for the start.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_with(directory, true)
    }

    /// Opens the directory to read what is there. Makes nothing in it.
    pub fn look(directory: &Path) -> Result<Self> {
        let root = Root::look(directory).map_err(failed(|| format!("open {}", directory.display())))?;
        Ok(Self { root: Arc::new(root) })
    }

    /// `unnamed`: use files without a name (`O_TMPFILE`) where they work.
    fn open_with(directory: &Path, unnamed: bool) -> Result<Self> {
        let root = Root::open(directory, unnamed).map_err(failed(|| format!("open {}", directory.display())))?;
        Ok(Self { root: Arc::new(root) })
    }

    /// One hop to the blocking pool. The work is done even if nobody waits for it any more.
    async fn blocking<T: Send + 'static>(
        &self,
        context: impl FnOnce() -> String + Send,
        work: impl FnOnce(&Root) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.root);
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        done.unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(failed(context))
    }
}

/// To the kinds that callers act on. Inside the driver `InvalidData` says that a file is not what was written.
pub(super) fn failed(context: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Error {
    |error| {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::InvalidData => ErrorKind::Corrupt,
            _ if is_of_one_path(&error) => ErrorKind::Refused,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, context()).with_source(error)
    }
}

/// A bad sector, the wrong owner, damage that the file system noticed, or something in the place of a file.
fn is_of_one_path(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::IO
                | Errno::BADMSG
                | Errno::UCLEAN
                | Errno::ACCESS
                | Errno::PERM
                | Errno::ISDIR
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::NAMETOOLONG
        )
    )
}

/// What multipart verbs add: a file that is missing is an upload that is not there.
fn or_not_found<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let source = error.source.as_deref().and_then(|source| source.downcast_ref::<io::Error>());
        let missing = source.is_some_and(|source| source.kind() == io::ErrorKind::NotFound);
        if missing { Error { kind: ErrorKind::NotFound, ..error } } else { error }
    })
}

#[async_trait]
impl Store for FsStore {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        let at = key.clone();
        self.blocking(|| format!("read {key}"), move |root| root.read(at.as_str())).await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        let at = key.clone();
        self.blocking(|| format!("open {key}"), move |root| root.open_object(at.as_str(), span)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        let at = key.clone();
        self.blocking(|| format!("head {key}"), move |root| root.head(at.as_str())).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        let at = key.clone();
        let work = move |root: &Root| match &condition {
            Condition::Create => root.create(at.as_str(), &bytes),
            Condition::Replace(version) => root.replace(at.as_str(), &bytes, version),
        };
        self.blocking(|| format!("put {key}"), work).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let at = key.clone();
        self.blocking(|| format!("delete {key}"), move |root| root.delete(at.as_str())).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        let (at, version) = (key.clone(), version.clone());
        self.blocking(|| format!("delete_if {key}"), move |root| root.delete_if(at.as_str(), &version)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        let (under, after) = (prefix.to_owned(), after.cloned());
        let work = move |root: &Root| root.list(&under, after.as_ref().map(Key::as_str), limit);
        self.blocking(|| format!("list {prefix}"), work).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        let id = self.blocking(|| format!("begin {key}"), Root::begin).await?;
        Ok(Multipart { key: key.clone(), id })
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        let (id, previous) = (upload.id.clone(), previous.cloned());
        let work = move |root: &Root| root.put_part(&id, number, &bytes, previous);
        or_not_found(self.blocking(|| format!("put part {number} of {}", upload.key), work).await)
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let (id, parts) = (upload.id.clone(), parts.to_vec());
        let work = move |root: &Root| root.sync_parts(&id, &parts);
        or_not_found(self.blocking(|| format!("sync parts of {}", upload.key), work).await)
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let (of, parts) = (upload.clone(), parts.to_vec());
        let work = move |root: &Root| root.complete(&of.id, of.key.as_str(), &parts);
        or_not_found(self.blocking(|| format!("complete {}", upload.key), work).await)
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        let id = upload.id.clone();
        self.blocking(|| format!("abort {}", upload.key), move |root| root.abort(&id)).await
    }

    async fn presign(&self, _: &Key, _: Duration) -> Result<Option<String>> {
        Ok(None)
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

#[cfg(test)]
mod tests;
