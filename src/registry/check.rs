//! Verifies the invariants of [`super`] on a store, by reading alone. A manifest's bytes are hashed. A blob's are verified
//! by place and size; a deep check reads and hashes them too, some at a time and at a bounded rate, and looks for what nothing
//! leads to (`strays`).
//!
//! Every key is visited once, page by page; nothing is held that grows with the store. Each register answers for what it
//! relies on, so what is wrong is named once, at the key that should not be as it is.
//!
//! What the store refuses is named, and nothing is said of it nor mended; whoever relies on it is judged without it.
//!
//! # On a live store
//!
//! Things move between two reads. What looks wrong is therefore looked at twice more, each time after a pause, and it
//! counts only if the object at the key is the very same each time, and so is what is wrong with it. No register ever
//! has the same content twice: so it stood there throughout, and when the second look missed what it relies on, that
//! *was* missing. No push or delete of this registry looks like that, however it is interleaved or cut off.

use std::{collections::BTreeSet, num::NonZeroU64, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use self::{
    bytes::Reader,
    look::{Counted, Look, Problem},
    mend::Mender,
};
pub use self::{bytes::Share, mend::Mend};
use super::{PARALLEL, Registry, layout, session::SessionId};
use crate::store::{Entry, Key, Result, Store};

mod bytes;
mod look;
mod mend;
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
    /// The store gives what is at a key, and what that relies on, to who asks. While it refuses, nothing is said of it.
    Refused,
    /// Something leads to all that is there. A lower grade: it costs room, and nothing else is wrong.
    Stray,
}

/// What there is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    /// What was found and is as it should be now; it counts no more.
    pub mended: u64,
}

/// What a check says while it is under way.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    Finding(&'a Finding),
    /// What was done about a finding before it.
    Mended(&'a Mend),
    /// All is said about this key and those before it; so much has been counted.
    UpTo(&'a Key, &'a Summary),
}

/// A check, and how far it goes.
#[derive(Clone, Debug)]
pub struct Check {
    store: Arc<dyn Store>,
    after: Option<Key>,
    deep: Option<Reader>,
    mender: Option<Mender>,
}

/// What was found in a page, was told, and is not mended.
#[derive(Default)]
struct Left {
    problems: BTreeSet<(Key, String)>,
    /// Put in quarantine, which need not be told as well.
    put_away: BTreeSet<Key>,
}

/// How often a page is gone through, when mending one thing lets another be mended.
const ROUNDS: usize = 3;
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
        News::Mended(_) | News::UpTo(..) => {}
    };
    Check::new(store).run(tell).await
}

impl Check {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, after: None, deep: None, mender: None }
    }

    /// Only what sorts after this key: where an earlier check was stopped. `None`: none can have been, for the key is
    /// neither of the layout nor in the store.
    pub async fn after(self, key: Key) -> Result<Option<Self>> {
        let is_known = layout::parse(&key).is_some() || self.store.head(&key).await?.is_some();
        Ok(is_known.then_some(Self { after: Some(key), ..self }))
    }

    /// Hashes the bytes of this share of blobs, at so many bytes a second. And looks, in the whole store, for what nothing
    /// leads to; for that every manifest and entry of a queue is read twice more, if there is something.
    #[must_use]
    pub fn deep(self, share: Share, rate: Option<NonZeroU64>) -> Self {
        let reader = Reader::new(Arc::clone(&self.store), rate, share);
        Self { deep: Some(reader), ..self }
    }

    /// Also mends, through a registry over the same store. What is about to be declared damaged or sound is read first, at
    /// the rate of a deep check.
    #[must_use]
    pub fn repair(self, registry: Arc<Registry>) -> Self {
        let reader = self.deep.clone().unwrap_or_else(|| Reader::new(Arc::clone(&self.store), None, Share::ALL));
        Self { mender: Some(Mender::new(registry, reader)), ..self }
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
            self.check_page(page, &mut summary, &mut tell).await?;
            if let Some(key) = &after {
                tell(News::UpTo(key, &summary));
            }
            if is_last {
                break;
            }
        }
        if self.deep.is_some() {
            self.check_strays(&mut summary, &mut tell).await?;
        }
        Ok(summary)
    }

    async fn check_page(&self, page: Vec<Entry>, summary: &mut Summary, tell: &mut impl FnMut(News<'_>)) -> Result<()> {
        let keys: Vec<Key> = page.into_iter().map(|entry| entry.key).collect();
        let looks = self.look_at(keys.clone(), self.deep.as_ref()).await?;
        for look in &looks {
            summary.count(look.counted);
        }
        let mut found = self.uphold(looks, self.deep.as_ref()).await?;
        let mut left = Left::default();
        for _ in 0..ROUNDS {
            let mut is_changed = false;
            for look in &found {
                is_changed |= self.tell_and_mend(look, &mut left, summary, tell).await?;
            }
            if !is_changed {
                break;
            }
            // What was mended or put away may have been what others in the page rely on.
            let again = self.look_at(keys.clone(), None).await?;
            found = self.uphold(again, None).await?;
        }
        summary.findings += left.problems.len() as u64;
        Ok(())
    }

    /// What is wrong, and was so all the while.
    async fn uphold(&self, looks: Vec<Look>, deep: Option<&Reader>) -> Result<Vec<Look>> {
        let mut suspects: Vec<Look> = looks.into_iter().filter(|look| !look.problems.is_empty()).collect();
        for _ in 0..AGAIN {
            if suspects.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let again = self.look_at(suspects.iter().map(|look| look.key.clone()).collect(), deep).await?;
            suspects = suspects.into_iter().zip(again).filter_map(|(first, again)| first.upheld_by(&again)).collect();
        }
        Ok(suspects)
    }

    /// Whether something was changed.
    async fn tell_and_mend(
        &self,
        found: &Look,
        left: &mut Left,
        summary: &mut Summary,
        tell: &mut impl FnMut(News<'_>),
    ) -> Result<bool> {
        let Look { key, problems, .. } = found;
        if left.put_away.contains(key) {
            return Ok(false);
        }
        for Problem { invariant, reason } in problems {
            if left.problems.insert((key.clone(), reason.clone())) {
                tell(News::Finding(&Finding { key: key.clone(), invariant: *invariant, reason: reason.clone() }));
            }
        }
        let Some(mender) = &self.mender else { return Ok(false) };
        let mends = mender.mend(found).await?;
        for mend in &mends {
            tell(News::Mended(mend));
            if !mend.is_whole {
                left.put_away.insert(mend.key.clone());
            }
        }
        if mends.iter().all(|mend| mend.is_whole) {
            let again = Look::at(self.store.as_ref(), self.deep.as_ref(), key.clone()).await?;
            for problem in problems.iter().filter(|problem| !again.problems.contains(problem)) {
                left.problems.remove(&(key.clone(), problem.reason.clone()));
                summary.mended += 1;
            }
        }
        Ok(!mends.is_empty())
    }

    async fn check_strays(&self, summary: &mut Summary, tell: &mut impl FnMut(News<'_>)) -> Result<()> {
        let strays = strays::strays(self.store.as_ref()).await?;
        for stray in &strays {
            tell(News::Finding(stray));
        }
        let queued = match &self.mender {
            Some(mender) => mender.queue(&strays).await?,
            None => Vec::new(),
        };
        for mend in &queued {
            tell(News::Mended(mend));
        }
        summary.mended += queued.len() as u64;
        summary.strays += (strays.len() - queued.len()) as u64;
        Ok(())
    }

    /// Looks at some keys side by side; the answers come in their order.
    async fn look_at(&self, keys: Vec<Key>, deep: Option<&Reader>) -> Result<Vec<Look>> {
        let looks = keys.into_iter().map(|key| Look::at(self.store.as_ref(), deep, key));
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
