//! What each tag was, since when, and by whom: a line for each change, written once.
//!
//! A line is written *beside* the tag: one more call, and no more waiting. If we stop between the two, then either the
//! history names a change that did not happen, or it lacks one that nobody was told of. What was answered is in it. No
//! step of any protocol reads a line; people do, and `undo` for them.
//!
//! Lines lie by the day. So the newest of a tag are at the beginning of one list a day, and those that are too old are at
//! the beginning of one list of all: collecting them costs a call for each, and one more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt, future::join, stream};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Error, ManifestHead, PARALLEL, Page, PageRequest, Registry, Result,
    layout::{self, Named},
    nonce::{latest_first_id, milliseconds_of},
    pending,
    register::{Seen, Written},
    tag::TagTarget,
};
use crate::{
    oci::{Repository, Tag},
    store::{self, Key},
};

/// A change of a tag, or what was about to be one when its replica died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Names it, and says when it was.
    #[serde(skip)]
    pub id: Uuid,
    /// What the tag was; nothing: it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ManifestHead>,
    /// What it became; nothing: it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ManifestHead>,
    /// On whose behalf, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

tokio::task_local! {
    /// On whose behalf this task works. It is written down, and decides nothing.
    static BY: Option<Arc<str>>;
}

/// The most that one page of a history holds.
const MAX_PAGE: usize = 100;
/// How far, in milliseconds, a clock may go back and changes still be listed in the order in which they were made.
const AHEAD: u64 = 60_000;

/// Works on behalf of somebody: what the registry writes down meanwhile says so.
pub fn on_behalf_of<T>(by: Option<Arc<str>>, work: impl Future<Output = T>) -> impl Future<Output = T> {
    BY.scope(by, work)
}

/// Work for another task, on behalf of whom this one works.
pub(crate) fn by_the_same<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    BY.scope(by(), work)
}

fn by() -> Option<Arc<str>> {
    BY.try_with(Clone::clone).ok().flatten()
}

impl Change {
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds_of(self.id))
    }
}

impl Registry {
    /// What a tag was, the latest change first. `last` of the page is the id of a change.
    pub async fn history(&self, repository: &Repository, tag: &Tag, page: &PageRequest) -> Result<Page<Change>> {
        let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let last = page.last.as_deref().and_then(|last| Uuid::try_parse(last).ok());
        let mut items = self.changes_after(repository, tag, last, n.saturating_add(1)).await?;
        if items.is_empty() && last.is_none() && layout::tag(repository, tag).read(self.store()).await?.live().is_none()
        {
            let is_known = layout::catalog(repository).read(self.store()).await?.present().is_some();
            return Err(if is_known { Error::ManifestUnknown } else { Error::NameUnknown });
        }
        let more = n > 0 && items.len() > n;
        items.truncate(n);
        Ok(Page { items, more })
    }

    /// Writes what a tag becomes over exactly what was seen, and the line of its history beside that.
    pub(crate) async fn change_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        over: &Seen<TagTarget>,
        to: Option<&TagTarget>,
    ) -> Result<Written<TagTarget>> {
        let register = layout::tag(repository, tag);
        let writing = async {
            match to {
                Some(to) => register.publish(self.store(), over, to).await,
                None => register.bury(self.store(), over, true).await,
            }
        };
        let change = Change {
            id: self.change_id(),
            from: over.live().map(head),
            to: to.map(head),
            by: by().map(|by| by.to_string()),
        };
        if self.settings.undelete.is_zero() || change.from == change.to {
            return Ok(writing.await?);
        }
        let line = layout::history(repository, tag, change.id);
        // If we stop between these two, one of them may be there without the other; nobody was told of either.
        let (written, noted) = join(writing, pending::put(self.store(), line.clone(), &change)).await;
        let written = written?;
        if let Written::Lost(_) = written {
            // It did not happen.
            self.drop_later(line);
        } else {
            noted?;
        }
        Ok(written)
    }

    /// Up to `limit` changes, the latest first: those after `last`.
    pub(crate) async fn changes_after(
        &self,
        repository: &Repository,
        tag: &Tag,
        last: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Change>> {
        let begins = self.history_begins();
        let last_day = last.map(|last| layout::day(milliseconds_of(last)));
        // The clock of another replica may be ahead of ours, and have begun a day. What a client makes up may be ahead of all.
        let tomorrow = layout::day(self.milliseconds()) + 1;
        let latest_day = last_day.unwrap_or(tomorrow).min(tomorrow);
        let after = last.map(|last| layout::history(repository, tag, last));
        let lists = (layout::day(begins)..=latest_day).rev().map(|day| {
            let after = after.as_ref().filter(|_| Some(day) == last_day);
            self.changes_of_day(repository, tag, day, after, limit)
        });
        let mut lists = stream::iter(lists).buffered(PARALLEL);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(listed) = lists.try_next().await?
        {
            found.extend(listed.into_iter().filter(|(_, id)| milliseconds_of(*id) >= begins));
        }
        found.truncate(limit);
        let reads = found.into_iter().map(|(key, id)| async move {
            // It may have been collected since it was listed.
            let change: Option<Change> = pending::read(self.store(), &key).await?;
            Ok(change.map(|change| Change { id, ..change }))
        });
        stream::iter(reads).buffered(PARALLEL).try_filter_map(|change| async { Ok(change) }).try_collect().await
    }

    async fn changes_of_day(
        &self,
        repository: &Repository,
        tag: &Tag,
        day: u64,
        after: Option<&Key>,
        limit: usize,
    ) -> store::Result<Vec<(Key, Uuid)>> {
        let entries = self.store().list(&layout::history_of(repository, tag, day), after, limit).await?;
        let id = |key: &Key| match layout::parse(key) {
            Some(Named::History(_, _, id)) => Some(id),
            _ => None,
        };
        Ok(entries.into_iter().filter_map(|entry| id(&entry.key).map(|id| (entry.key, id))).collect())
    }

    /// What was before is forgotten; in milliseconds since the epoch.
    pub(crate) fn history_begins(&self) -> u64 {
        self.milliseconds().saturating_sub(milliseconds(self.settings.undelete))
    }

    /// Later than all that this replica gave before, so that changes made one after the other are listed so; unless its
    /// clock was far ahead meanwhile, which must not hide all changes that follow.
    fn change_id(&self) -> Uuid {
        let (now, order) = (self.milliseconds(), Ordering::Relaxed);
        let later = |last: u64| if last > now.saturating_add(AHEAD) { now } else { now.max(last.saturating_add(1)) };
        let last = self.last_change.fetch_update(order, order, |last| Some(later(last)));
        latest_first_id(last.map_or(now, later))
    }

    fn milliseconds(&self) -> u64 {
        milliseconds(self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

fn milliseconds(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

fn head(target: &TagTarget) -> ManifestHead {
    ManifestHead { digest: target.digest, media_type: target.media_type.clone(), size: target.size }
}
