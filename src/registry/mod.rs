//! All registry logic, once. No HTTP, no S3, no disk: whatever keeps the contract of [`crate::store`] will do.
//!
//! # Invariants
//!
//! They hold at every moment, whoever dies between any two store calls; `check` verifies them on a store. A condemned
//! register still counts as present.
//!
//! * **I1** A manifest is present ⇒ every blob and child manifest that it names, and that was checked at push, is held
//!   by its repository, unless a client deleted it (its tombstone says so).
//! * **I2** A holder is present ⇒ so is the record, with the same data key ⇒ so are the bytes, with that digest and size.
//! * **I3** A tag is present ⇒ so is its manifest.
//! * **I4** A referrer entry is present ⇒ so is its manifest.
//! * **I5** What was answered 201 or 202 survives `kill -9` and power loss, and an acknowledged upload is held at least
//!   for the grace period.
//!
//! # How
//!
//! **Publish** (blob, holder, manifest, tag, referrer entry): read what will be published over; when those reads have
//! returned, write a reference in flight (`pending.rs`); when that has returned, look at everything relied on and lift what
//! is condemned; write over exactly what was read first. Lost: start again from the reads. Always write, also what is
//! live already. This order is what lets an expiry ([`Registry::expire`]) shut out a writer that stalled, with no clock in the
//! argument: it leaves a fresh tombstone where the writer expects nothing, and the writer loses.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    oci::{Algorithm, Repository},
    store::{self, Causes, ErrorKind, Key, Store},
};

pub(crate) mod blob;
pub mod check;
mod clock;
mod error;
mod expire;
mod explain;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gc;
mod history;
mod layout;
mod left;
pub(crate) mod manifest;
mod nonce;
mod once;
mod pages;
mod pending;
mod referrers;
mod register;
mod retain;
mod session;
pub(crate) mod tag;
mod undo;
pub mod upload;
mod verified;

pub use blob::Blob;
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use expire::Expired;
pub use explain::{Subject, Verdict};
pub use gc::{Collected, Collector, Event, InFlight, Waiting, Walked, Why};
pub use history::{Change, on_behalf_of};
pub use layout::{DATA as DATA_KEYS, SCRATCH as SCRATCH_KEYS};
pub use manifest::{ManifestHead, Push, Pushed, SMALL_MANIFEST, TagCondition};
pub use retain::{Decision, Retained, Retainer, Rule};
pub use session::SessionId;
pub use tag::{Page, PageRequest};
pub use undo::{Restored, Version};
pub use upload::{ByteStream, Chunk, Grant, Progress, Torn, Whole};

/// How a registry behaves. Limits that no operator needs to turn are constants where they apply.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Accept manifests that name content which is not there (sparse mirrors).
    pub allow_missing_references: bool,
    /// How long an upload session lives after its last activity.
    pub upload_expiry: Duration,
    /// How long what was pushed is kept although nothing refers to it.
    pub grace: Duration,
    /// How long a manifest that was deleted can be put back, with all that it names, and how long it is known what a tag
    /// was. Zero: nothing is kept for that, and no history is written.
    pub undelete: Duration,
    /// How long a tombstone stays at least. Far above `publish_deadline`.
    pub tombstones: Duration,
    /// How long one push may try to publish before it gives up. Far below `grace`.
    pub publish_deadline: Duration,
    /// The bytes of bodies in flight that may be held in memory, over all requests. Manifests have room of their own.
    pub memory: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_missing_references: false,
            upload_expiry: Duration::from_hours(24),
            grace: Duration::from_hours(24),
            undelete: Duration::from_hours(7 * 24),
            tombstones: Duration::from_hours(24),
            publish_deadline: Duration::from_mins(5),
            memory: 32 << 20,
        }
    }
}

/// A registry over a store. Any number of them may share one.
pub struct Registry {
    store: Arc<dyn Store>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    session_key: session::SessionKey,
    budget: upload::Budget,
    rooms: manifest::Rooms,
    sessions: upload::Hints,
    descriptors: referrers::Cache,
    verified: verified::Verified,
    manifests: manifest::Cache,
    /// When a tag was last changed here, in milliseconds since the epoch.
    last_change: AtomicU64,
    tasks: TaskTracker,
}

/// Whether there is a registry in this store, also one that has lost its session key. Up to six calls.
pub async fn is_in(store: &dyn Store) -> store::Result<bool> {
    if store.read(&layout::session_key()).await?.is_some() {
        return Ok(true);
    }
    for folder in [layout::CATALOG, layout::BLOBS, layout::REPOS, layout::DATA, layout::UPLOADS] {
        // Anybody may have a folder of that name.
        if store.list(folder, None, 1).await?.iter().any(|entry| layout::parse(&entry.key).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many store calls one request makes side by side.
const PARALLEL: usize = 16;
/// How long the store may take to answer who asks whether it does.
const READY_WITHIN: Duration = Duration::from_secs(2);

impl Registry {
    pub async fn open(store: Arc<dyn Store>, settings: Settings) -> Result<Arc<Self>> {
        Self::open_with(store, settings, Arc::new(SystemClock)).await
    }

    pub async fn open_with(store: Arc<dyn Store>, settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let session_key = session::SessionKey::load(store.as_ref()).await?;
        Ok(Arc::new(Self::with_key(store, settings, clock, session_key)))
    }

    fn with_key(
        store: Arc<dyn Store>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        session_key: session::SessionKey,
    ) -> Self {
        Self {
            budget: upload::Budget::new(settings.memory),
            rooms: manifest::Rooms::default(),
            sessions: upload::Hints::default(),
            descriptors: referrers::Cache::default(),
            verified: verified::Verified::default(),
            manifests: manifest::Cache::default(),
            last_change: AtomicU64::default(),
            tasks: TaskTracker::new(),
            store,
            settings,
            clock,
            session_key,
        }
    }

    /// The same registry over its store in another guise, for work in the background.
    #[must_use]
    pub fn beside(&self, guise: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Arc<Self> {
        let (settings, clock) = (self.settings.clone(), Arc::clone(&self.clock));
        Arc::new(Self::with_key(guise(Arc::clone(&self.store)), settings, clock, self.session_key.clone()))
    }

    /// Whether the store answers, and soon; if not, what is the matter with it. One call: a read, since a store that
    /// refuses a head cannot say why.
    pub async fn ready(&self) -> std::result::Result<(), ErrorKind> {
        let asking = tokio::time::timeout(READY_WITHIN, async { self.store.read(&layout::session_key()).await }).await;
        let silent = |_| Err(store::Error::new(ErrorKind::Unavailable, format!("no answer within {READY_WITHIN:?}")));
        asking.unwrap_or_else(silent).map(drop).map_err(|error| {
            tracing::warn!(error = %Causes(&error), "not ready");
            error.kind
        })
    }

    /// Opens an upload session. No store call: the id says it all until the first byte comes.
    pub fn start_upload(&self, repository: &Repository, algorithm: Algorithm) -> SessionId {
        self.session_key.issue(repository, algorithm, self.clock.now())
    }

    /// Waits until everything that requests left to be done after their reply is done.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    fn now(&self) -> u64 {
        session::seconds(self.clock.now())
    }

    fn deadline(&self) -> Deadline {
        Deadline { at: Instant::now() + self.settings.publish_deadline, tries: 0 }
    }

    /// Runs a request to its end, also when the client that asked for it goes away.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        match self.tasks.spawn(history::by_the_same(work)).await {
            Ok(done) => done,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Busy),
            },
        }
    }

    /// Removes an entry that has done its work, off the request's path. If that fails, it expires.
    fn drop_later(&self, entry: Key) {
        let store = Arc::clone(&self.store);
        self.tasks.spawn(async move {
            if let Err(error) = store.delete(&entry).await {
                tracing::debug!(key = %entry, error = %Causes(&error), "an entry stays until it expires");
            }
        });
    }
}

/// Until when a publisher may go on. On the monotonic clock of this process alone.
struct Deadline {
    at: Instant,
    tries: u32,
}

impl Deadline {
    /// Checked before each publish: nothing is published long after its reference in flight was written.
    fn check(&self) -> Result<()> {
        if Instant::now() < self.at { Ok(()) } else { Err(Error::Busy) }
    }

    /// Waits a little, longer each time and never the same, before starting again after a lost race.
    async fn again(&mut self) -> Result<()> {
        self.tries += 1;
        let ceiling = (2_u64 << self.tries.min(8)).min(500);
        let jitter = u64::from_le_bytes(nonce::random()) % ceiling;
        tokio::time::sleep(Duration::from_millis(jitter)).await;
        self.check()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("store", &self.store).field("settings", &self.settings).finish_non_exhaustive()
    }
}
