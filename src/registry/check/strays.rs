//! What nothing leads to: no manifest needs it and no queue names it, so no collector would ever look at it. It costs room
//! and harms nobody.
//!
//! Two passes through the store gather all that leads anywhere in a [`Filter`], references in flight first, and then in the
//! order in which they turn into each other: so what is on its way from one to the next is seen in one of them. Between
//! the passes suspects are listed; what is still there after the second, as it was, and is in neither, is a stray. If one
//! was on its way all the same, no harm is done: to queue it costs the collector a look.
//!
//! In memory are the filter, which may take a stray for something that is led to, and at most [`SUSPECTS`] keys.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};

use super::{Finding, Invariant};
use crate::{
    oci::{AnyDigest, Digest, Manifest, Repository},
    registry::{
        filter::Filter,
        gc::{Bytes, Condemned, Unheld, add_named_bytes},
        layout::{self, Named},
        pages::Pages,
        pending::{Dropped, DroppedWhat, PendingBlob, PendingManifest},
        register::LIVE_AT_LEAST,
    },
    store::{Entry, Key, Result, Store, Version},
};

/// How many suspects are looked at in one check.
const SUSPECTS: usize = 10_000;
/// How many manifests or entries are read side by side: each may have megabytes.
const READS: usize = 4;

/// In the place of a repository: which one cannot be told.
const ANY: &str = "";

/// Finds strays, in the order of their keys.
pub(super) async fn strays(store: &dyn Store) -> Result<Vec<Finding>> {
    let suspects = Leads::gather(store).await?.suspects(store).await?;
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    let leads = Leads::gather(store).await?;
    let mut strays = Vec::new();
    for Suspect { key, version } in suspects {
        if let Some(named) = layout::parse(&key)
            && !leads.lead_to(&key, &named)
            && known(is_left(store, &key, &named, version.as_ref()).await)?.unwrap_or_default()
        {
            let reason = match named {
                Named::Holder(..) => "is needed by no manifest, and no queue leads to it",
                Named::Record(_) => "is held by no repository, and no queue leads to it",
                _ => "is named by no record, and no queue leads to it",
            };
            strays.push(Finding { key, invariant: Invariant::Stray, reason: reason.to_owned() });
        }
    }
    Ok(strays)
}

struct Suspect {
    key: Key,
    /// Of a register.
    version: Option<Version>,
}

/// All that leads to holders, records and bytes.
struct Leads {
    /// Holders by repository and digest, records by digest, bytes by key.
    to: Filter,
    /// What these name cannot be told, since a manifest or an entry of theirs cannot be read.
    unclear: BTreeSet<Repository>,
    /// Nor which bytes are named.
    unclear_bytes: bool,
}

impl Leads {
    async fn gather(store: &dyn Store) -> Result<Self> {
        let mut leads = Self { to: Filter::new(), unclear: BTreeSet::new(), unclear_bytes: false };
        let [sha256, sha512] = layout::PENDING_BLOBS;
        for queue in [sha256, sha512, layout::PENDING_MANIFESTS] {
            leads.add_queue(store, queue).await?;
        }
        leads.add_manifests(store).await?;
        for queue in [layout::DROPPED, layout::CONDEMNED, layout::UNHELD, layout::BYTES] {
            leads.add_queue(store, queue).await?;
        }
        match add_named_bytes(store, &mut leads.to).await {
            Err(error) if error.kind.is_of_one() => leads.unclear_bytes = true,
            added => added?,
        }
        Ok(leads)
    }

    fn lead_to(&self, key: &Key, named: &Named) -> bool {
        match named {
            Named::Holder(digest, repository) => {
                [repository.as_str(), ANY].iter().any(|of| self.to.has(&(*of, digest)))
                    || self.unclear.contains(repository)
            }
            Named::Record(digest) => self.to.has(digest),
            Named::Data => self.unclear_bytes || self.to.has(key),
            _ => true,
        }
    }

    /// To a holder, and to the record after it.
    fn add(&mut self, repository: &Repository, digests: impl IntoIterator<Item = Digest>) {
        for digest in digests {
            self.to.add(&(repository.as_str(), &digest));
            self.to.add(&digest);
        }
    }

    fn add_manifest(&mut self, repository: &Repository, media_type: &str, bytes: &[u8]) {
        match Manifest::parse(Some(media_type), bytes) {
            Ok(manifest) => {
                let named = manifest.references.iter().filter_map(|link| link.digest().known().copied());
                self.add(repository, named);
            }
            Err(_) => drop(self.unclear.insert(repository.clone())),
        }
    }

    async fn add_manifests(&mut self, store: &dyn Store) -> Result<()> {
        let mut pages = Pages::new(layout::REPOS);
        while let Some(page) = pages.next_entries(store).await? {
            let live = page.into_iter().filter(|entry| entry.size >= LIVE_AT_LEAST);
            let manifests = live.filter_map(|entry| match layout::parse(&entry.key) {
                Some(Named::Manifest(repository, digest)) => Some((repository, digest)),
                _ => None,
            });
            let reads: Vec<_> = manifests
                .map(|(repository, digest)| async move {
                    let read = layout::manifest(&repository, &digest).read(store).await;
                    (repository, digest, read)
                })
                .collect();
            let mut reads = stream::iter(reads).buffer_unordered(READS);
            while let Some((repository, digest, read)) = reads.next().await {
                match read {
                    Ok(seen) => match seen.present() {
                        Some(stored) if Digest::of(digest.algorithm(), &stored.bytes) == digest => {
                            self.add_manifest(&repository, stored.media_type(), &stored.bytes);
                        }
                        None if !seen.is_quarantined() => {}
                        _ => drop(self.unclear.insert(repository)),
                    },
                    Err(error) if error.kind.is_of_one() => drop(self.unclear.insert(repository)),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn add_queue(&mut self, store: &dyn Store, queue: &str) -> Result<()> {
        let mut pages = Pages::new(queue);
        while let Some(keys) = pages.next(store).await? {
            let reads: Vec<_> = keys.iter().map(|key| async move { (key, store.read(key).await) }).collect();
            let mut reads = stream::iter(reads).buffer_unordered(READS);
            while let Some((key, read)) = reads.next().await {
                let Some(named) = layout::parse(key) else { continue };
                let is_readable = match read {
                    Ok(Some(found)) => self.add_entry(&named, &found.bytes).is_ok(),
                    Ok(None) => true,
                    Err(error) if error.kind.is_of_one() => false,
                    Err(error) => return Err(error),
                };
                match named {
                    _ if is_readable => {}
                    Named::Dropped(of) | Named::Condemned(of) | Named::PendingManifest(of) => {
                        self.unclear.insert(of);
                    }
                    // Its key tells at least the digest.
                    Named::PendingBlob(digest) => {
                        self.to.add(&(ANY, &digest));
                        self.to.add(&digest);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, named: &Named, bytes: &[u8]) -> serde_json::Result<()> {
        match named {
            Named::PendingBlob(_) => {
                let entry: PendingBlob = serde_json::from_slice(bytes)?;
                self.add(&entry.repository, [entry.digest]);
            }
            Named::PendingManifest(repository) => {
                let entry: PendingManifest = serde_json::from_slice(bytes)?;
                self.add(repository, entry.references.iter().filter_map(AnyDigest::known).copied());
            }
            Named::Dropped(repository) => match serde_json::from_slice::<Dropped>(bytes)?.what {
                DroppedWhat::Blobs { digests } | DroppedWhat::Push { digests, .. } => self.add(repository, digests),
                DroppedWhat::Manifest { media_type, manifest, .. } => {
                    self.add_manifest(repository, &media_type, manifest.as_bytes());
                }
                DroppedWhat::Tag { .. } | DroppedWhat::Catalog {} => {}
            },
            Named::Condemned(repository) => {
                let entry: Condemned = serde_json::from_slice(bytes)?;
                self.add(repository, entry.holders.into_iter().map(|(digest, ..)| digest));
            }
            Named::Unheld => self.to.extend(serde_json::from_slice::<Unheld>(bytes)?.digests),
            Named::Bytes => {
                let entry: Bytes = serde_json::from_slice(bytes)?;
                self.to.extend(entry.bytes.into_iter().map(|(digest, _)| digest));
            }
            _ => {}
        }
        Ok(())
    }

    async fn suspects(&self, store: &dyn Store) -> Result<Vec<Suspect>> {
        let mut suspects = Vec::new();
        let mut pages = Pages::new(layout::BLOBS);
        while let Some(page) = pages.next_entries(store).await? {
            self.add_suspects(store, page, &mut suspects).await?;
        }
        let mut pages = Pages::new(layout::DATA);
        while let Some(page) = pages.next_entries(store).await? {
            self.add_suspects(store, page, &mut suspects).await?;
        }
        Ok(suspects)
    }

    async fn add_suspects(&self, store: &dyn Store, page: Vec<Entry>, suspects: &mut Vec<Suspect>) -> Result<()> {
        let is_suspect = |Entry { key, size }: &Entry| match layout::parse(key) {
            Some(Named::Data) => !self.lead_to(key, &Named::Data),
            Some(named) => *size >= LIVE_AT_LEAST && !self.lead_to(key, &named),
            None => false,
        };
        for Entry { key, .. } in page.into_iter().filter(is_suspect) {
            if suspects.len() == SUSPECTS {
                break;
            }
            let version = match layout::parse(&key) {
                Some(Named::Data) => Some(None),
                _ => known(store.read(&key).await)?.map(|found| found.map(|found| found.version)),
            };
            suspects.extend(version.map(|version| Suspect { key, version }));
        }
        Ok(())
    }
}

/// `None`: it cannot be read, which is said of its own key.
fn known<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind.is_of_one() => Ok(None),
        read => read.map(Some),
    }
}

/// Whether it is still there, as it was, and nothing else that is there keeps it.
async fn is_left(store: &dyn Store, key: &Key, named: &Named, version: Option<&Version>) -> Result<bool> {
    match named {
        // The expiry of its session leads there.
        Named::Data => Ok(store.head(key).await?.is_some() && !has_journal(store, key).await?),
        Named::Record(digest) if is_held(store, digest).await? => Ok(false),
        _ => Ok(store.read(key).await?.is_some_and(|found| Some(&found.version) == version)),
    }
}

async fn has_journal(store: &dyn Store, data: &Key) -> Result<bool> {
    let Some(session) = layout::session_of(data) else { return Ok(false) };
    let left = store.list(&layout::session(session), None, 2).await?;
    Ok(left.iter().any(|entry| matches!(layout::parse(&entry.key), Some(Named::Journal(..)))))
}

async fn is_held(store: &dyn Store, digest: &Digest) -> Result<bool> {
    let mut pages = Pages::new(&layout::holders(digest));
    while let Some(page) = pages.next_entries(store).await? {
        let is_holder =
            |entry: &Entry| entry.size >= LIVE_AT_LEAST && matches!(layout::parse(&entry.key), Some(Named::Holder(..)));
        if page.iter().any(is_holder) {
            return Ok(true);
        }
    }
    Ok(false)
}
