//! Verifies the invariants of [`super`] on a store, by reading alone. A manifest's bytes are hashed. A blob's are verified
//! by place and size; a deep check reads and hashes them too, some at a time and at a bounded rate, and looks for what nothing
//! leads to ([`strays`]).
//!
//! Every key is visited once, page by page; nothing is held that grows with the store. Each register answers for what it
//! relies on, so what is wrong is named once, at the key that should not be as it is.
//!
//! # On a live store
//!
//! Things move between two reads. What looks wrong is therefore looked at twice more, each time after a pause, and it
//! counts only if the object at the key is the very same each time, and so is what is wrong with it. No register ever
//! has the same content twice: so it stood there throughout, and when the second look missed what it relies on, that
//! *was* missing. No push or delete of this registry looks like that, however it is interleaved or cut off.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};

pub use self::bytes::Share;
use self::{
    bytes::Reader,
    look::{Counted, Look, Problem},
};
use super::{PARALLEL, layout, session::SessionId};
use crate::store::{Entry, Key, Result, Store};

mod bytes;
mod look;
mod relies;
mod report;
mod strays;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub key: Key,
    pub invariant: Invariant,
    /// Goes on where the key ends: "points to …, which is not there".
    pub reason: String,
}

/// What a finding contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// All keys are of the layout.
    Key,
    /// What is at a key can be read, and is what the key says.
    Object,
    /// A repository that has a manifest is in the catalog.
    Catalog,
    I1,
    I2,
    I3,
    I4,
    /// Something leads to all that is there. A lower grade: it costs room, and nothing else is wrong.
    Stray,
}

/// What there is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub repositories: u64,
    pub manifests: u64,
    pub tags: u64,
    /// Each once, however many repositories hold it.
    pub blobs: u64,
    /// Those of all blobs.
    pub bytes: u64,
    /// Blobs whose bytes were read, and those bytes.
    pub hashed: u64,
    pub hashed_bytes: u64,
    pub open_uploads: u64,
    /// References in flight.
    pub pending: u64,
    /// References taken away that the collector has not looked at yet.
    pub dropped: u64,
    /// Those that are wrong.
    pub findings: u64,
    /// Findings of the lower grade.
    pub strays: u64,
}

/// What a check says while it is under way.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    Finding(&'a Finding),
    /// All is said about this key and those before it; so much has been counted.
    UpTo(&'a Key, &'a Summary),
}

/// A check, and how far it goes.
#[derive(Clone, Debug)]
pub struct Check {
    store: Arc<dyn Store>,
    after: Option<Key>,
    deep: Option<Reader>,
}

/// How many keys one list call asks for.
const PAGE: usize = 1000;
/// The same where each key may lead to gigabytes: so much may be lost when a check is stopped.
const DEEP_PAGE: usize = 100;
/// How often what looks wrong is looked at again. With two, the look between the first and the last proves it.
const AGAIN: usize = 2;
/// How long to wait before that: longer than most pushes take between two writes.
const PAUSE: Duration = Duration::from_millis(200);

/// Checks a whole store, and reports in the order of the keys. Fails only where the store does.
pub async fn check(store: Arc<dyn Store>, mut on_finding: impl FnMut(&Finding)) -> Result<Summary> {
    let tell = |news: News<'_>| match news {
        News::Finding(finding) => on_finding(finding),
        News::UpTo(..) => {}
    };
    Check::new(store).run(tell).await
}

impl Check {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, after: None, deep: None }
    }

    /// Only what sorts after this key: where an earlier check was stopped.
    #[must_use]
    pub fn after(self, key: Key) -> Self {
        Self { after: Some(key), ..self }
    }

    /// Hashes the bytes of this share of blobs, at so many bytes a second. And looks, in the whole store, for what nothing
    /// leads to; for that every manifest and entry of a queue is read twice more, if there is something.
    #[must_use]
    pub fn deep(self, share: Share, rate: Option<NonZeroU64>) -> Self {
        let reader = Reader::new(Arc::clone(&self.store), rate, share);
        Self { deep: Some(reader), ..self }
    }

    /// Reports in the order of the keys, strays last. Fails only where the store does.
    pub async fn run(&self, mut tell: impl FnMut(News<'_>)) -> Result<Summary> {
        let mut summary = Summary::default();
        let mut session = None;
        let mut after = self.after.clone();
        let limit = if self.deep.is_some() { DEEP_PAGE } else { PAGE };
        loop {
            let page = self.store.list("", after.as_ref(), limit).await?;
            summary.open_uploads += count_open(&page, &mut session);
            let is_last = page.len() < limit;
            after = page.last().map(|entry| entry.key.clone());
            for finding in self.check_page(page, &mut summary).await? {
                summary.findings += 1;
                tell(News::Finding(&finding));
            }
            if let Some(key) = &after {
                tell(News::UpTo(key, &summary));
            }
            if is_last {
                break;
            }
        }
        if self.deep.is_some() {
            for stray in strays::strays(self.store.as_ref()).await? {
                summary.strays += 1;
                tell(News::Finding(&stray));
            }
        }
        Ok(summary)
    }

    async fn check_page(&self, page: Vec<Entry>, summary: &mut Summary) -> Result<Vec<Finding>> {
        let looks = self.look_at(page.into_iter().map(|entry| entry.key).collect()).await?;
        for look in &looks {
            summary.count(look.counted);
        }
        let mut suspects: Vec<Look> = looks.into_iter().filter(|look| !look.problems.is_empty()).collect();
        for _ in 0..AGAIN {
            if suspects.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let again = self.look_at(suspects.iter().map(|look| look.key.clone()).collect()).await?;
            suspects = suspects.into_iter().zip(again).filter_map(|(first, again)| first.upheld_by(&again)).collect();
        }
        let findings = suspects.into_iter().flat_map(|Look { key, problems, .. }| {
            let finding = move |Problem { invariant, reason }| Finding { key: key.clone(), invariant, reason };
            problems.into_iter().map(finding)
        });
        Ok(findings.collect())
    }

    /// Looks at some keys side by side; the answers come in their order.
    async fn look_at(&self, keys: Vec<Key>) -> Result<Vec<Look>> {
        let looks = keys.into_iter().map(|key| Look::at(self.store.as_ref(), self.deep.as_ref(), key));
        stream::iter(looks).buffered(PARALLEL).try_collect().await
    }
}

/// How many sessions of a page have no end. Of each session that sorts first; `session` is the last one met.
fn count_open(page: &[Entry], session: &mut Option<SessionId>) -> u64 {
    let mut open = 0;
    for entry in page {
        match layout::parse(&entry.key) {
            Some(layout::Named::End(id)) => *session = Some(id),
            Some(layout::Named::Journal(id, _)) if session.replace(id) != Some(id) => open += 1,
            _ => {}
        }
    }
    open
}

impl Summary {
    fn count(&mut self, counted: Counted) {
        match counted {
            Counted::Nothing => {}
            Counted::Repository => self.repositories += 1,
            Counted::Manifest => self.manifests += 1,
            Counted::Tag => self.tags += 1,
            Counted::Blob { size, is_hashed } => {
                self.blobs += 1;
                self.bytes = self.bytes.saturating_add(size);
                if is_hashed {
                    self.hashed += 1;
                    self.hashed_bytes = self.hashed_bytes.saturating_add(size);
                }
            }
            Counted::Pending => self.pending += 1,
            Counted::Dropped => self.dropped += 1,
        }
    }
}
