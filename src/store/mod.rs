//! A flat, ordered, strongly consistent map from [`Key`] to bytes. It knows nothing of registries.
//!
//! The trait is S3's own verb set minus what is not called; a disk is natively an object store too (`link` is
//! create-if-absent, `rename` under a lock is replace).
//!
//! # The contract
//!
//! Every driver and decorator passes the suite in `contract.rs`. In words:
//!
//! * **Visibility.** A call that starts after another returned `Ok` sees its effect, from any process.
//! * **Atomicity.** A reader sees all of an object or none of it.
//! * **Durability.** `Ok` from a write means that the write survives power loss. Parts alone are weaker: they are
//!   durable once [`Store::sync_parts`] or [`Store::complete`] returned.
//! * **Uncertainty.** After `Err` from a write, the write may or may not have happened, and may even happen later.
//!   Callers find out by reading back; they never guess.
//! * **Losing is a value.** A condition that did not hold is [`Put::Lost`], not an error, and certain.

use std::{fmt, fs::File, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub mod around;
mod body;
pub mod breaker;
mod causes;
#[cfg(test)]
mod contract;
pub mod doctor;
pub mod faulty;
pub mod fs;
mod key;
pub mod memory;
pub mod metered;
pub mod overlay;
pub mod paced;
pub mod s3;
pub mod single_writer;

pub use causes::Causes;
pub use key::Key;

pub type Result<T> = std::result::Result<T, Error>;

/// See the module documentation for what all verbs promise.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// A whole object and the version that it has. For small objects: it is held in memory.
    async fn read(&self, key: &Key) -> Result<Option<Versioned>>;

    /// A span of an object, however large. The part of the span beyond the end of the object is left out.
    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>>;

    /// The size of an object. One that this finds is durable, also if the write that made it was answered with an error.
    async fn head(&self, key: &Key) -> Result<Option<u64>>;

    /// Writes a whole object under a condition, atomically: of racing writers with the same condition one wins.
    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put>;

    /// Removes an object whose name is never used again. An absent one is `Ok`.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Removes an object if it still has this version. Only where [`Limits::conditional_delete`] says so.
    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted>;

    /// One page of the keys that start with `prefix`, in byte order, strictly after `after`, at most `limit` of them.
    /// The prefix is text, not a folder. A page shorter than `limit` is the last.
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>>;

    /// Starts a multipart upload that will become `key`.
    async fn begin(&self, key: &Key) -> Result<Multipart>;

    /// Uploads one part. `number` belongs to the caller alone: two writers never use the same number of one upload.
    /// Numbers start at 1 and may have gaps; the order of numbers is the order of bytes.
    ///
    /// `previous` is the part that this caller uploaded last, if it follows directly. A store that can lengthen it does,
    /// and answers [`Placed::Grown`]: the part returned then stands for both.
    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed>;

    /// When this returns, these parts are durable. Nothing to do where [`Store::put_part`] is durable.
    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()>;

    /// Makes the object out of exactly these parts, in this order, without moving their bytes. Parts not named are
    /// dropped. Repeating it after success is `Ok` or [`ErrorKind::NotFound`], as the store likes: read back.
    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()>;

    /// Drops an upload and its parts. An unknown one is `Ok`.
    async fn abort(&self, upload: &Multipart) -> Result<()>;

    /// A URL under which a client may read the object itself for a while; `None`: serve it yourself.
    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>>;

    fn limits(&self) -> Limits;
}

/// The verbs of a [`Store`] that are calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Read,
    Open,
    Head,
    Put,
    Delete,
    DeleteIf,
    List,
    Begin,
    PutPart,
    SyncParts,
    Complete,
    Abort,
}

impl Verb {
    /// As in prose.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Open => "open",
            Self::Head => "head",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::DeleteIf => "delete if",
            Self::List => "list",
            Self::Begin => "begin",
            Self::PutPart => "put part",
            Self::SyncParts => "sync parts",
            Self::Complete => "complete",
            Self::Abort => "abort",
        }
    }
}

/// What [`Store::read`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub bytes: Bytes,
    pub version: Version,
}

/// Which of an object's successive contents this is. Equal versions have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// Under what condition [`Store::put`] writes. There is no unconditional overwrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is there yet.
    Create,
    /// What is there still has this version.
    Replace(Version),
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    Stored(Version),
    /// The condition did not hold: nothing was written by this call.
    Lost,
}

/// How a conditional delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    Deleted,
    /// Another version is there, or none.
    Lost,
}

/// A run of bytes of an object: from `start`, at most `length` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub length: u64,
}

impl Span {
    pub const ALL: Self = Self { start: 0, length: u64::MAX };

    pub fn new(start: u64, length: u64) -> Self {
        Self { start, length }
    }

    /// The first `length` bytes.
    pub fn first(length: u64) -> Self {
        Self { start: 0, length }
    }

    /// This span of an object of `size` bytes.
    #[must_use]
    pub fn within(self, size: u64) -> Self {
        let start = self.start.min(size);
        Self { start, length: self.length.min(size - start) }
    }
}

/// An object opened for reading.
#[derive(Debug)]
pub struct Object {
    /// The size of the whole object.
    pub size: u64,
    /// The bytes of the span that was asked for.
    pub body: Body,
}

/// Bytes on their way out; the local fast path is a variant of the answer.
pub enum Body {
    Bytes(Bytes),
    /// Runs of open files, to be sent one after the other.
    Files(Vec<FileSpan>),
    Stream(futures_util::stream::BoxStream<'static, Result<Bytes>>),
}

/// A run of an open file.
#[derive(Debug)]
pub struct FileSpan {
    pub file: File,
    pub span: Span,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Files(files) => f.debug_tuple("Files").field(files).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    /// Or [`Entry::UNKNOWN`].
    pub size: u64,
}

impl Entry {
    /// The size of what is there and cannot be looked at. Larger than all others: who leaves out what is small must not
    /// leave out this.
    pub const UNKNOWN: u64 = u64::MAX;
}

/// An open multipart upload, to be kept wherever the next part may come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Multipart {
    #[serde(with = "key_as_text")]
    pub key: Key,
    pub id: String,
}

/// An uploaded part. The tag names its bytes, not only its number: racing writers never mix theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub number: u32,
    pub size: u64,
    pub tag: String,
}

/// Where [`Store::put_part`] put the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    New(Part),
    /// The previous part, lengthened: it stands for the previous part and these bytes.
    Grown(Part),
}

/// What a store can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The smallest part that is not the last.
    pub min_part: u64,
    /// The size in which parts are best uploaded; at least `min_part`.
    pub part: u64,
    /// The largest part.
    pub max_part: u64,
    /// The highest part number.
    pub max_parts: u32,
    /// All parts but the last must have one size.
    pub uniform_parts: bool,
    /// [`Store::delete_if`] honours its condition.
    pub conditional_delete: bool,
}

/// What went wrong, in the kinds that callers act on; the source says the rest, for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {context}")]
pub struct Error {
    pub kind: ErrorKind,
    pub context: String,
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such multipart upload. An absent object is `Ok(None)`.
    NotFound,
    /// The store could not do it now; trying again may help.
    Unavailable,
    /// The store answered, and does not do this: a bad sector, a file of somebody else, a key that was taken away. All
    /// others may be well, and this one when an operator has seen to it.
    Refused,
    /// The store could do it, but not at this rate; trying again later will help.
    Throttled,
    /// There is no room left.
    Full,
    /// What is stored is not what was written.
    Corrupt,
}

impl ErrorKind {
    /// Trying again may help.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Unavailable | Self::Refused | Self::Throttled => true,
            Self::NotFound | Self::Full | Self::Corrupt => false,
        }
    }

    /// It is a matter of this object alone: others may be well.
    pub fn is_of_one(self) -> bool {
        matches!(self, Self::Refused | Self::Corrupt)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Unavailable => "store unavailable",
            Self::Refused => "store refuses",
            Self::Throttled => "store throttled",
            Self::Full => "store full",
            Self::Corrupt => "store corrupt",
        })
    }
}

impl Error {
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    #[must_use]
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }
}

mod key_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Key;

    pub(super) fn serialize<S: Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(key.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
        let text = String::deserialize(from)?;
        Key::parse(text).ok_or_else(|| D::Error::custom("not a key"))
    }
}
