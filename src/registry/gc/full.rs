//! Fills the queues anew from a walk through the whole store: for one that was imported or damaged, where something may
//! have become garbage that no entry names.
//!
//! The walk judges nothing. What it finds goes into the queues, and from there the way of everything else: so it is as safe
//! beside a fleet that serves as any round, and may be stopped anywhere and be started again. It holds in memory one page
//! of a list, one entry per repository until [`HELD`] digests are together, and what [`super::strays`] says.

use std::{collections::BTreeMap, fmt};

use super::{Collector, Event, Told};
use crate::{
    oci::{Digest, Repository},
    registry::{
        Result,
        layout::{self, Named},
        nonce::Nonce,
        pages::LIST,
        pending::{Dropped, DroppedWhat},
        register::{LIVE_AT_LEAST, State},
    },
    store::{Entry, Key},
};

/// What a walk left to the queues, and what it took itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    pub holders: u64,
    /// Records that no repository holds.
    pub unheld: u64,
    pub tombstones: u64,
    /// Bytes deleted that nothing named.
    pub strays: u64,
}

/// How many digests one entry names.
const ENTRY: usize = 100;
/// How many digests wait in memory for their entries.
const HELD: usize = 10_000;

/// What was found and is not in a queue yet.
#[derive(Default)]
struct Found {
    holders: BTreeMap<Repository, Vec<Digest>>,
    held: usize,
    unheld: Vec<Digest>,
    tombstones: Vec<(String, Nonce)>,
    walked: Walked,
}

/// The keys of one blob, as far as they have been seen.
struct Blob {
    digest: Digest,
    is_recorded: bool,
    is_held: bool,
}

impl Collector {
    /// Walks through the store. A round has to follow.
    pub async fn walk(&self, observer: &mut (dyn FnMut(&Event) + Send)) -> Result<Walked> {
        let mut told = Told::new(observer);
        let mut found = Found::default();
        self.walk_blobs(&mut found).await?;
        self.walk_repositories(&mut found).await?;
        self.walk_catalog(&mut found, &mut told).await?;
        self.flush(&mut found, true).await?;
        // Where any name cannot be read, whichever bytes it would be stay.
        found.walked.strays = self.left.go_on(self.delete_strays(&mut told).await, &layout::DATA)?;
        Ok(found.walked)
    }

    /// Every holder, and every record without one.
    async fn walk_blobs(&self, found: &mut Found) -> Result<()> {
        let mut blob: Option<Blob> = None;
        let mut after = None;
        while let Some(page) = self.page(layout::BLOBS, &mut after).await? {
            for entry in page {
                let is_live = entry.size >= LIVE_AT_LEAST;
                let (digest, holder) = match layout::parse(&entry.key) {
                    Some(Named::Record(digest)) => (digest, None),
                    Some(Named::Holder(digest, repository)) => (digest, Some(repository)),
                    _ => continue,
                };
                if blob.as_ref().is_none_or(|blob| blob.digest != digest) {
                    found.end(blob.replace(Blob { digest, is_recorded: false, is_held: false }));
                }
                if !is_live {
                    found.tombstones.extend(self.tombstone(&entry.key).await?);
                } else if let Some(blob) = &mut blob {
                    match holder {
                        None => blob.is_recorded = true,
                        Some(repository) => {
                            blob.is_held = true;
                            found.held += 1;
                            found.holders.entry(repository).or_default().push(digest);
                        }
                    }
                }
            }
            self.flush(found, false).await?;
        }
        found.end(blob);
        Ok(())
    }

    /// Tombstones of manifests, tags and referrer entries.
    async fn walk_repositories(&self, found: &mut Found) -> Result<()> {
        if !self.store().limits().conditional_delete {
            return Ok(());
        }
        let mut after = None;
        while let Some(page) = self.page(layout::REPOS, &mut after).await? {
            for entry in page.into_iter().filter(|entry| entry.size < LIVE_AT_LEAST) {
                found.tombstones.extend(self.tombstone(&entry.key).await?);
            }
            self.flush(found, false).await?;
        }
        Ok(())
    }

    /// Takes lines out of the catalog that have no manifest.
    async fn walk_catalog(&self, found: &mut Found, told: &mut Told<'_>) -> Result<()> {
        let mut after = None;
        while let Some(page) = self.page(layout::CATALOG, &mut after).await? {
            for entry in page {
                if entry.size < LIVE_AT_LEAST {
                    found.tombstones.extend(self.tombstone(&entry.key).await?);
                } else if let Some(Named::Catalog(repository)) = layout::parse(&entry.key) {
                    self.collect_catalog(&repository, &mut found.tombstones, told).await?;
                }
            }
            self.flush(found, false).await?;
        }
        Ok(())
    }

    /// The next page of a list, with sizes; `None` behind the last. `after` is where it begins.
    pub(super) async fn page(&self, prefix: &str, after: &mut Option<Key>) -> Result<Option<Vec<Entry>>> {
        let page = self.store().list(prefix, after.as_ref(), LIST).await?;
        *after = page.last().map(|entry| entry.key.clone());
        Ok(after.is_some().then_some(page))
    }

    /// The tombstone at a key, where it can be removed and still is one.
    async fn tombstone(&self, key: &Key) -> Result<Option<(String, Nonce)>> {
        if !self.store().limits().conditional_delete {
            return Ok(None);
        }
        let read = self.left.go_on(self.store().read(key).await, key)?;
        // What kind of value it would have does not matter: a tombstone has none.
        let state = read.and_then(|found| State::<super::Lease>::decode(&found.bytes).ok());
        Ok(match state {
            Some((nonce, State::Gone { .. })) => Some((key.as_str().to_owned(), nonce)),
            _ => None,
        })
    }

    /// Writes what is enough for entries; all of it at the end.
    async fn flush(&self, found: &mut Found, at_end: bool) -> Result<()> {
        let all = at_end || found.held >= HELD;
        for (repository, digests) in &mut found.holders {
            while digests.len() >= ENTRY || (all && !digests.is_empty()) {
                let digests: Vec<Digest> = digests.drain(..digests.len().min(ENTRY)).collect();
                found.held -= digests.len();
                found.walked.holders += digests.len() as u64;
                let what = DroppedWhat::Blobs { digests };
                let dropped = Dropped { at: self.registry.now(), repository: repository.clone(), what };
                self.left.go_on(dropped.put(self.store(), 0).await.map(drop), repository)?;
            }
        }
        if all {
            found.holders.clear();
        }
        if at_end || found.unheld.len() >= ENTRY {
            found.walked.unheld += found.unheld.len() as u64;
            self.leave_unheld(std::mem::take(&mut found.unheld), 0).await?;
        }
        if at_end || found.tombstones.len() >= ENTRY {
            found.walked.tombstones += found.tombstones.len() as u64;
            self.leave_tombstones(std::mem::take(&mut found.tombstones)).await?;
        }
        Ok(())
    }
}

impl Found {
    /// All keys of the blob have been seen.
    fn end(&mut self, blob: Option<Blob>) {
        self.unheld.extend(blob.filter(|blob| blob.is_recorded && !blob.is_held).map(|blob| blob.digest));
    }
}

impl fmt::Display for Walked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holders, unheld, tombstones, strays } = self;
        write!(f, "{holders} holders, {unheld} records without one and {tombstones} tombstones queued, ")?;
        write!(f, "{strays} strays deleted")
    }
}
