//! Why the registry says no, in the kinds that a client can act on.

use crate::{
    oci::{AnyDigest, Digest},
    registry::upload::Progress,
    store,
};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("repository name not known to the registry")]
    NameUnknown,
    #[error("blob {0} is not in this repository")]
    BlobUnknown(Digest),
    /// Never existed, expired, cancelled, finished, or of another repository.
    #[error("no such upload session")]
    UploadUnknown,
    #[error("{0}")]
    UploadInvalid(String),
    /// The chunk does not begin where the upload stands. Nothing was appended.
    #[error("the chunk does not begin at offset {}", .0.received)]
    OutOfOrder(Progress),
    #[error("{declared} bytes were declared and {received} received")]
    SizeInvalid { declared: u64, received: u64 },
    /// The client went away or stalled in the middle of its body. The offset is what it was.
    #[error("the body broke off")]
    BodyTorn,
    #[error("the content has digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("manifest unknown")]
    ManifestUnknown,
    #[error("{0}")]
    ManifestInvalid(String),
    /// The manifest names content that this repository does not hold.
    #[error("the manifest refers to content that is not in this repository")]
    ManifestBlobUnknown(Vec<AnyDigest>),
    /// The tag is not what the request made a condition.
    #[error("the tag does not meet the condition")]
    TagConditionFailed,
    /// It was not there, or what it needs has been collected.
    #[error("{0}")]
    NotRestorable(String),
    #[error("too many tags in one request")]
    TooManyTags,
    /// Others kept changing the same thing, or the store was too slow, until the deadline. It may be tried again.
    #[error("too many concurrent changes; try again")]
    Busy,
    #[error("the store has no room left")]
    Full(#[source] store::Error),
    /// The store cannot be reached or does not answer. The request may or may not have taken effect.
    #[error("the store is unavailable")]
    Store(#[source] store::Error),
    /// The store answers, but does not do this. The request may or may not have taken effect.
    #[error("the store refuses this")]
    Refused(#[source] store::Error),
    /// The store answers, but not at this rate. The request may or may not have taken effect.
    #[error("the store is asked too much")]
    Throttled(#[source] store::Error),
    /// What is stored is not what was written.
    #[error("stored content is damaged")]
    Corrupt(#[source] store::Error),
}

impl Error {
    /// It is the store that could not do it now; trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Refused(_) | Self::Throttled(_))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error.kind {
            // Of what the registry asks for by name, only an upload can be unknown.
            store::ErrorKind::NotFound => Self::UploadUnknown,
            store::ErrorKind::Unavailable => Self::Store(error),
            store::ErrorKind::Refused => Self::Refused(error),
            store::ErrorKind::Throttled => Self::Throttled(error),
            store::ErrorKind::Full => Self::Full(error),
            store::ErrorKind::Corrupt => Self::Corrupt(error),
        }
    }
}
