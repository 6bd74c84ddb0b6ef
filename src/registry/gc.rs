//! The collector: takes what nothing needs any more, while everything else goes on.
//!
//! # Where it looks
//!
//! Never through the store. Whatever may have become garbage is named by an entry of a queue: a reference in flight that
//! expired, a session that did, or what was dropped, which is written *before* the step that takes a reference away. An
//! entry is deleted only when what it named is gone, or needed, or named by another entry that is durable; so whoever
//! stops anywhere leaves nothing behind that nothing leads to.
//!
//! # How it takes
//!
//! A holder is condemned, rests for the grace period, is looked at again, and goes. Condemned it is still there: it can
//! be read, and a push that names it lifts it. But it answers "absent" to who asks before uploading, so that whoever was
//! told "exists" finds it until the push is over. The look goes through references in flight *first*, and then through
//! what they turn into: manifests, and those that can be put back. A push writes its reference, looks at the holder, and
//! publishes its manifest before the reference goes; so either the look finds one of the two, or the push comes to the
//! holder after it was condemned, lifts it, and the last write of the collector loses.
//!
//! The record and its bytes follow in the same way, once no repository holds the blob; there nobody was told anything, and
//! no rest is needed. Before the look the session that brought the bytes is ended, which may not bring them again.
//!
//! What is damaged, or refused by the store, is passed over: an error in the middle of a step ends that step, as if the
//! collector had died there, and the next round comes back to it. A look that failed anywhere finds nothing to take.
//!
//! Any number of collectors may work at the same time, on the same objects, and each may stall or die anywhere. No clock
//! has a part in this: time says only what is worth looking at, and how long a client may take between a question and its
//! push.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Error, Registry, Result,
    expire::{Expired, delete_each},
    layout::{self, Named},
    left::Left,
    nonce::{Nonce, timed_id},
    pages::Pages,
    pending,
    register::{JsonValue, Register},
};
use crate::{
    oci::{Digest, Repository},
    store::{Entry, Key, Store},
};

mod bytes;
mod catalog;
mod event;
mod full;
mod history;
mod holders;
mod look;
mod outlook;
mod strays;
mod tombstones;

pub use event::{Event, InFlight, Waiting, Why};
pub(crate) use event::{Told, time};
pub use full::Walked;
pub(crate) use look::Needed;
pub(crate) use strays::add_named_bytes;

/// Collects for one registry. It remembers what manifests name, which never changes.
#[derive(Debug)]
pub struct Collector {
    registry: Arc<Registry>,
    names: look::Names,
    left: Left,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub expired: Expired,
    /// Holders that nothing needs: condemned, to be taken when they have rested.
    pub condemned: u64,
    /// Holders that were condemned, and are needed after all.
    pub lifted: u64,
    /// Holders taken.
    pub holders: u64,
    /// Blobs whose bytes were deleted, and those bytes.
    pub blobs: u64,
    pub bytes: u64,
    /// Bytes deleted that no record named.
    pub strays: u64,
    /// Tombstones removed.
    pub tombstones: u64,
    /// Lines of the history of tags that were too old.
    pub history: u64,
    /// What a reference in flight keeps for now.
    pub waiting: u64,
    /// Steps that were given up, since an object is damaged or the store refuses it.
    pub left: u64,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expired, condemned, lifted, holders, blobs, bytes, strays, tombstones, history, waiting, left } =
            self;
        write!(f, "{} sessions and {} references expired, ", expired.sessions, expired.references)?;
        write!(f, "{condemned} holders condemned, {lifted} lifted, {holders} taken, {waiting} waiting, ")?;
        write!(f, "{blobs} blobs of {bytes} bytes and {strays} strays deleted, ")?;
        write!(f, "{tombstones} tombstones and {history} lines of history removed")?;
        if *left > 0 { write!(f, ", {left} steps given up") } else { Ok(()) }
    }
}

/// Holders that were condemned, each with the nonce that says so: had somebody lifted one since, it would be another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condemned {
    pub(crate) at: u64,
    pub(crate) holders: Vec<(Digest, Nonce, Why)>,
}

/// Blobs that perhaps no repository holds any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unheld {
    at: u64,
    pub(crate) digests: Vec<Digest>,
}

/// Bytes about to be deleted, each with the digest whose record names or named them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bytes {
    at: u64,
    pub(crate) bytes: Vec<(Digest, String)>,
}

impl Unheld {
    pub(crate) fn new(at: u64, digests: Vec<Digest>) -> Self {
        Self { at, digests }
    }
}

impl Bytes {
    pub(crate) fn new(at: u64, bytes: impl IntoIterator<Item = (Digest, Key)>) -> Self {
        Self { at, bytes: bytes.into_iter().map(|(digest, data)| (digest, data.as_str().to_owned())).collect() }
    }
}

/// Tombstones, by key and nonce.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tombstones {
    at: u64,
    tombstones: Vec<(String, Nonce)>,
}

/// Who collects, or retains. It saves work and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// When the last round began.
    at: u64,
}

impl JsonValue for Lease {}

/// For how many seconds what a reference in flight keeps is left alone before it is looked at again, or for the grace
/// where that is less.
const WAIT: u64 = 3600;
/// How many entries are worked on together, and how many bytes of them, or one that is larger.
const BATCH: usize = 1000;
const BATCH_BYTES: u64 = 16 << 20;
/// How many of them are read side by side: a manifest among them may have megabytes.
const READS: usize = 4;

impl Collector {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, names: look::Names::default(), left: Left::default() }
    }

    /// One round, if no other collector of the fleet has begun one within the interval.
    pub async fn turn(&self, interval: Duration) -> Result<Option<Collected>> {
        if self.take_lease(&layout::lease(), interval).await? { self.round().await.map(Some) } else { Ok(None) }
    }

    /// Takes a lease, unless somebody has within the interval.
    pub(crate) async fn take_lease(&self, lease: &Register<Lease>, interval: Duration) -> Result<bool> {
        let (now, interval) = (self.registry.now(), interval.as_secs());
        let taking = async {
            let seen = lease.read(self.store()).await?;
            // A clock that is ahead must not keep the others from collecting for ever.
            let is_fresh = |lease: &Lease| lease.at.abs_diff(now) < interval;
            Ok::<_, Error>(
                !seen.live().is_some_and(is_fresh)
                    && lease.publish(self.store(), &seen, &Lease { at: now }).await?.is_done(),
            )
        };
        // One that is damaged or refused spares nobody a round.
        Ok(self.left.go_on(taking.await.map(Some), lease.key())?.unwrap_or(true))
    }

    /// Works through everything that is due. If it fails, what is left is due in the next round.
    pub async fn round(&self) -> Result<Collected> {
        self.round_telling(&mut |_| {}).await
    }

    /// A round that says what it does while it does it.
    pub async fn round_telling(&self, observer: &mut (dyn FnMut(&Event) + Send)) -> Result<Collected> {
        let mut told = Told::new(observer);
        let worked = self.work(&mut told).await;
        told.done.left = self.left.take();
        worked.map(|()| told.done)
    }

    async fn work(&self, told: &mut Told<'_>) -> Result<()> {
        told.done.expired = self.registry.expire_telling(told, &self.left).await?;
        for queue in [layout::DROPPED, layout::CONDEMNED] {
            self.left.go_on(self.work_on_holders(queue, told).await, &queue)?;
        }
        for queue in [layout::UNHELD, layout::BYTES, layout::TOMBSTONES] {
            self.left.go_on(self.work_on(queue, told).await, &queue)?;
        }
        self.left.go_on(self.collect_history(&mut told.done).await, &layout::HISTORY)
    }

    /// What repositories hold, each for itself.
    async fn work_on_holders(&self, queue: &str, told: &mut Told<'_>) -> Result<()> {
        let mut pages = Pages::new(queue);
        while let Some(due) = self.next_due(&mut pages).await? {
            let mut repositories: BTreeMap<Repository, Vec<Entry>> = BTreeMap::new();
            for entry in due {
                if let Some(Named::Dropped(of) | Named::Condemned(of)) = layout::parse(&entry.key) {
                    repositories.entry(of).or_default().push(entry);
                }
            }
            for (repository, due) in repositories {
                for entries in batches(due) {
                    self.left.go_on(self.collect_holders(&repository, &entries, told).await, &repository)?;
                }
            }
        }
        Ok(())
    }

    async fn work_on(&self, queue: &str, told: &mut Told<'_>) -> Result<()> {
        let mut pages = Pages::new(queue);
        while let Some(due) = self.next_due(&mut pages).await? {
            for entries in batches(due) {
                let worked = match queue {
                    layout::TOMBSTONES => self.remove_tombstones(&entries, told).await,
                    _ => self.collect_bytes(&entries, told).await,
                };
                self.left.go_on(worked, &queue)?;
            }
        }
        Ok(())
    }

    /// The next entries of a queue that are due, and the end of the queue with `None`.
    async fn next_due(&self, pages: &mut Pages) -> Result<Option<Vec<Entry>>> {
        let mut due = Vec::new();
        while due.len() < BATCH {
            let Some(entries) = pages.next_entries(self.store()).await? else {
                return Ok(if due.is_empty() { None } else { Some(due) });
            };
            due.extend(entries.into_iter().filter(|entry| self.registry.is_due(&entry.key)));
        }
        Ok(Some(due))
    }

    fn store(&self) -> &dyn Store {
        self.registry.store()
    }

    fn wait(&self) -> u64 {
        self.registry.settings.grace.as_secs().clamp(1, WAIT)
    }

    /// Reads an entry. One that is damaged or refused stays where it is, and keeps no other waiting.
    async fn read_entry<T: for<'de> Deserialize<'de>>(&self, key: &Key) -> Result<Option<T>> {
        self.left.go_on(pending::read(self.store(), key).await, key)
    }

    /// The id of an entry that is left alone for so many seconds.
    fn id_in(&self, rest: u64) -> uuid::Uuid {
        timed_id(self.registry.now().saturating_add(rest))
    }

    /// Leaves blobs that may not be held any more to the next step.
    async fn leave_unheld(&self, digests: Vec<Digest>, rest: u64) -> Result<()> {
        if !digests.is_empty() {
            let entry = Unheld { at: self.registry.now(), digests };
            pending::put(self.store(), layout::unheld(self.id_in(rest)), &entry).await?;
        }
        Ok(())
    }

    /// Leaves tombstones to be removed, where that can be done.
    async fn leave_tombstones(&self, tombstones: Vec<(String, Nonce)>) -> Result<()> {
        if !tombstones.is_empty() && self.store().limits().conditional_delete {
            let entry = Tombstones { at: self.registry.now(), tombstones };
            let rest = self.registry.settings.tombstones.as_secs();
            pending::put(self.store(), layout::tombstones(self.id_in(rest)), &entry).await?;
        }
        Ok(())
    }

    async fn consume(&self, entries: &[Key]) -> Result<()> {
        delete_each(self.store(), entries, &self.left).await
    }
}

/// Entries in their order, so many together as may be.
fn batches(entries: Vec<Entry>) -> Vec<Vec<Key>> {
    let mut batches: Vec<Vec<Key>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes = entry.size.saturating_add(bytes);
        match batches.last_mut() {
            Some(batch) if bytes <= BATCH_BYTES => batch.push(entry.key),
            _ => {
                bytes = entry.size;
                batches.push(vec![entry.key]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_entries_are_worked_on_few_at_a_time() {
        let sizes = [BATCH_BYTES / 2, BATCH_BYTES / 2, 1, Entry::UNKNOWN, 1, 1];
        let entries = sizes.iter().zip("abcdef".chars());
        let entries = entries.map(|(&size, key)| Entry { key: Key::parse(key.to_string()).unwrap(), size }).collect();
        let batches: Vec<String> =
            batches(entries).iter().map(|batch| batch.iter().map(Key::as_str).collect()).collect();
        assert_eq!(batches, ["ab", "c", "d", "ef"]);
    }
}
