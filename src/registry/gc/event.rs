//! What a round does and finds. The summary, the log and a dry run are all told the same.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::Collected;
use crate::{
    oci::{Digest, Repository},
    registry::SessionId,
    store::Key,
};

/// One thing that a round did, or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An abandoned upload was dropped, with so many bytes that had been received.
    UploadExpired {
        session: SessionId,
        bytes: u64,
    },
    /// Nothing needs this holder: condemned, to be taken at the earliest then.
    Condemned {
        repository: Repository,
        digest: Digest,
        size: u64,
        why: Why,
        until: u64,
    },
    /// It was condemned, and is needed after all.
    Lifted {
        repository: Repository,
        digest: Digest,
    },
    /// Condemned, and rested since: taken.
    HolderTaken {
        repository: Repository,
        digest: Digest,
        size: u64,
        why: Why,
    },
    /// The last holder went, and so did the record and the bytes.
    BlobTaken {
        digest: Digest,
        size: u64,
    },
    /// Bytes that no record names were deleted.
    StrayTaken {
        data: Key,
    },
    /// Condemned earlier: it rests until then.
    Resting {
        repository: Repository,
        digest: Digest,
        why: Why,
        until: u64,
    },
    /// A manifest that was deleted, and until then keeps what it names, to be put back.
    Restorable {
        repository: Repository,
        manifest: Digest,
        until: u64,
    },
    /// Left alone for now: somebody is about to need it.
    Waiting {
        repository: Option<Repository>,
        digest: Digest,
        of: Waiting,
    },
    /// A repository without manifests left the catalog.
    RepositoryGone {
        repository: Repository,
    },
    TombstoneRemoved {
        key: Key,
    },
}

/// Why a holder is not needed. It goes with what was condemned until that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// No manifest of the repository names it, and none that did was deleted lately.
    Unnamed,
    /// The manifest that named it was deleted.
    Deleted { manifest: Digest, at: u64 },
}

/// For whom something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    InFlight(InFlight),
    /// Somebody wrote to it, or is about to.
    Changed,
}

/// A reference in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The manifest that is being pushed; `None`: an upload or a mount.
    pub manifest: Option<Digest>,
    /// When it expires, if nobody takes it away before.
    pub until: u64,
}

/// Where a round tells what it does.
pub(crate) struct Told<'a> {
    pub(crate) done: Collected,
    observer: &'a mut (dyn FnMut(&Event) + Send),
}

impl<'a> Told<'a> {
    pub(crate) fn new(observer: &'a mut (dyn FnMut(&Event) + Send)) -> Self {
        Self { done: Collected::default(), observer }
    }

    #[expect(clippy::needless_pass_by_value, reason = "told where it happens, and of no use after that")]
    pub(crate) fn tell(&mut self, event: Event) {
        self.done.count(&event);
        tracing::debug!(%event, "collecting");
        (self.observer)(&event);
    }
}

impl Collected {
    fn count(&mut self, event: &Event) {
        match event {
            Event::UploadExpired { .. }
            | Event::RepositoryGone { .. }
            | Event::Resting { .. }
            | Event::Restorable { .. } => {}
            Event::Condemned { .. } => self.condemned += 1,
            Event::Lifted { .. } => self.lifted += 1,
            Event::HolderTaken { .. } => self.holders += 1,
            Event::BlobTaken { size, .. } => {
                self.blobs += 1;
                self.bytes += size;
            }
            Event::StrayTaken { .. } => self.strays += 1,
            Event::Waiting { .. } => self.waiting += 1,
            Event::TombstoneRemoved { .. } => self.tombstones += 1,
        }
    }
}

/// A line of a report.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UploadExpired { session, bytes } => {
                write!(f, "upload {session} of {bytes} bytes dropped: abandoned")
            }
            Self::Condemned { repository, digest, size, why, until } => {
                let until = time(*until);
                write!(f, "{repository}@{digest} of {size} bytes condemned, to be taken after {until}: {why}")
            }
            Self::Lifted { repository, digest } => write!(f, "{repository}@{digest} lifted: it is needed"),
            Self::HolderTaken { repository, digest, size, why } => {
                write!(f, "{repository}@{digest} of {size} bytes taken: {why}")
            }
            Self::BlobTaken { digest, size } => {
                write!(f, "{digest} of {size} bytes deleted: no repository holds it")
            }
            Self::StrayTaken { data } => write!(f, "{data} deleted: no record names it"),
            Self::Resting { repository, digest, why, until } => {
                write!(f, "{repository}@{digest} rests until {}: {why}", time(*until))
            }
            Self::Restorable { repository, manifest, until } => {
                write!(f, "{repository}@{manifest} was deleted, and keeps what it names until {}", time(*until))
            }
            Self::Waiting { repository, digest, of } => {
                if let Some(repository) = repository {
                    write!(f, "{repository}@")?;
                }
                write!(f, "{digest} waits: {of}")
            }
            Self::RepositoryGone { repository } => write!(f, "{repository} left the catalog: it has no manifest"),
            Self::TombstoneRemoved { key } => write!(f, "{key} removed: a tombstone that nobody can mean any more"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("no manifest names it"),
            Self::Deleted { manifest, at } => write!(f, "manifest {manifest} was deleted at {}", time(*at)),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight(of) => of.fmt(f),
            Self::Changed => f.write_str("somebody else is at work on it"),
        }
    }
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.manifest {
            Some(manifest) => write!(f, "announced by the push of manifest {manifest}")?,
            None => f.write_str("announced by an upload or a mount")?,
        }
        write!(f, ", until {}", time(self.until))
    }
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("done", &self.done).finish_non_exhaustive()
    }
}

/// Seconds since the epoch as people write a time, in UTC.
pub(crate) fn time(seconds: u64) -> impl fmt::Display {
    // Beyond that nothing can be written.
    let at = std::time::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(at)
}

/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;
