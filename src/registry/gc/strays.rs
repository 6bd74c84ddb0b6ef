//! Bytes that nothing names: of uploads whose journals and references in flight were lost. No entry leads to these, and
//! they do not say which digest they would have had; so all names there are have to be looked through.
//!
//! # Why this takes nothing that anybody could still publish
//!
//! Bytes are published by a record, and only by who wrote a reference in flight that names them before they were there.
//!
//! 1. The bytes are listed: they exist.
//! 2. The end of their session is taken, if they are a session's: who begins to publish them from now on fails. Bytes of an
//!    attempt belong to one reference in flight, for which there will be no second.
//! 3. References in flight are listed. If one names the bytes they stay. If none does, whoever wrote one was shut out when it
//!    expired, by a tombstone where he expects no record: he loses.
//! 4. Records are listed: whoever published before he was shut out is found here. What holders name counts as well: where
//!    they say other bytes than the record, or there is none, it may be those that mend the blob.
//! 5. What nothing named is deleted. If we stop anywhere the next walk finds it again.
//!
//! Steps 3 and 4 cost a read for each reference in flight, each blob and each holder. They are made once before, without
//! fencing and without holders, so that only suspects are fenced, and a second time only if there are any.
//!
//! # Memory
//!
//! Names are kept in a [`Filter`]: now and then it takes a stray for a name, and keeps it until another walk. Suspects are at
//! most [`SUSPECTS`] at a time.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Bytes, Collector, Event, Told};
use crate::{
    oci::{Digest, Repository},
    registry::{
        PARALLEL, Result,
        blob::{Holder, bytes_of},
        filter::Filter,
        layout::{self, Named},
        pages::Pages,
        pending::{self, PendingBlob},
        register::{LIVE_AT_LEAST, State},
        upload::journal::End,
    },
    store::{self, Key, Store},
};

/// How many bytes that nothing seems to name are looked at together, or a page more.
const SUSPECTS: usize = 10_000;

impl Collector {
    pub(super) async fn delete_strays(&self, told: &mut Told<'_>) -> Result<u64> {
        let mut pages = Pages::new(layout::DATA);
        let mut named = self.named_bytes().await?;
        let mut deleted = 0;
        loop {
            let suspects = self.suspects(&mut pages, &named).await?;
            if suspects.is_empty() {
                return Ok(deleted);
            }
            let mut fenced = Vec::new();
            for data in suspects {
                if self.left.go_on(self.end_lost_session(&data).await, &data)? {
                    fenced.push(data);
                }
            }
            if fenced.is_empty() {
                continue;
            }
            // Never two of them.
            drop(named);
            named = self.named_bytes().await?;
            // Where a record is damaged, what holders name may be the blob.
            add_held(self.store(), &mut named).await?;
            for data in fenced.into_iter().filter(|data| !named.has(data)) {
                if self.left.go_on(self.store().delete(&data).await.map(|()| true), &data)? {
                    told.tell(Event::StrayTaken { data });
                    deleted += 1;
                }
            }
        }
    }

    async fn named_bytes(&self) -> Result<Filter> {
        let mut named = Filter::new();
        add_named_bytes(self.store(), &mut named).await?;
        Ok(named)
    }

    /// The next that nothing names as far as is known; none behind the last.
    async fn suspects(&self, pages: &mut Pages, named: &Filter) -> Result<Vec<Key>> {
        let mut suspects = Vec::new();
        while let Some(keys) = pages.next(self.store()).await? {
            let is_stray = |key: &Key| layout::parse(key) == Some(Named::Data) && !named.has(key);
            suspects.extend(keys.into_iter().filter(is_stray));
            if suspects.len() >= SUSPECTS {
                break;
            }
        }
        Ok(suspects)
    }

    /// Ends the session of these bytes, of which nothing is left. `false`: something is, and its expiry drops them.
    async fn end_lost_session(&self, data: &Key) -> Result<bool> {
        let Some(id) = layout::session_of(data) else { return Ok(true) };
        let left = self.store().list(&layout::session(id), None, 2).await?;
        if left.iter().any(|entry| matches!(layout::parse(&entry.key), Some(Named::Journal(..)))) {
            return Ok(false);
        }
        let register = layout::end(id);
        let seen = register.read(self.store()).await?;
        if let State::Live(End::Expired { .. }) = seen.state {
            return Ok(true);
        }
        let ours = End::Expired { at: self.registry.now(), digest: None };
        Ok(register.publish(self.store(), &seen, &ours).await?.is_done())
    }
}

/// The names of all bytes that are or may become those of a blob: references in flight first, then records.
pub(crate) async fn add_named_bytes(store: &dyn Store, named: &mut Filter) -> store::Result<()> {
    for prefix in layout::PENDING_BLOBS {
        let mut pages = Pages::new(prefix);
        while let Some(keys) = pages.next(store).await? {
            let reads: Vec<_> = keys.iter().map(|key| pending::read::<PendingBlob>(store, key)).collect();
            let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
            while let Some(entry) = reads.try_next().await? {
                named.extend(entry.and_then(|entry| entry.data()));
            }
        }
    }
    let mut pages = Pages::new(layout::BYTES);
    while let Some(keys) = pages.next(store).await? {
        for key in keys {
            let entry: Option<Bytes> = pending::read(store, &key).await?;
            let bytes = entry.into_iter().flat_map(|entry| entry.bytes);
            named.extend(bytes.filter_map(|(_, data)| Key::parse(data)));
        }
    }
    add_recorded(store, named).await
}

async fn add_recorded(store: &dyn Store, named: &mut Filter) -> store::Result<()> {
    let mut pages = Pages::new(layout::BLOBS);
    // The blob whose keys are being read, and whether its record was among them.
    let mut blob: Option<(Digest, bool)> = None;
    while let Some(page) = pages.next_entries(store).await? {
        let mut records = Vec::new();
        for entry in page {
            let Some(parsed @ (Named::Record(digest) | Named::Holder(digest, _))) = layout::parse(&entry.key) else {
                continue;
            };
            if blob.is_none_or(|(of, _)| of != digest) {
                add_unrecorded(store, blob.replace((digest, false)), named).await?;
            }
            if entry.size >= LIVE_AT_LEAST && parsed == Named::Record(digest) {
                blob = Some((digest, true));
                records.push(digest);
            }
        }
        let read = |digest: Digest| async move {
            let seen = layout::record(&digest).read(store).await?;
            // One in quarantine that does not say its bytes: what they were is said by holders, or by nobody any more.
            if seen.is_quarantined() && seen.told().is_none() { Ok(None) } else { bytes_of(&seen) }
        };
        let reads: Vec<_> = records.into_iter().map(read).collect();
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
        while let Some(data) = reads.try_next().await? {
            named.extend(data);
        }
    }
    add_unrecorded(store, blob, named).await
}

/// What all holders name.
async fn add_held(store: &dyn Store, named: &mut Filter) -> store::Result<()> {
    let mut pages = Pages::new(layout::BLOBS);
    while let Some(page) = pages.next_entries(store).await? {
        let holders =
            page.into_iter().filter(|entry| entry.size >= LIVE_AT_LEAST).map(|entry| layout::parse(&entry.key));
        let reads = holders.map(|parsed| async move {
            let Some(Named::Holder(digest, repository)) = parsed else { return Ok(None) };
            told_by_holder(store, &digest, &repository).await
        });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(PARALLEL);
        while let Some(data) = reads.try_next().await? {
            named.extend(data);
        }
    }
    Ok(())
}

async fn told_by_holder(store: &dyn Store, digest: &Digest, repository: &Repository) -> store::Result<Option<Key>> {
    let seen = layout::holder(digest, repository).read(store).await?;
    seen.told().as_ref().map(Holder::data).transpose()
}

/// What the holders of a blob name that has no record.
async fn add_unrecorded(store: &dyn Store, blob: Option<(Digest, bool)>, named: &mut Filter) -> store::Result<()> {
    let Some((digest, false)) = blob else { return Ok(()) };
    let mut pages = Pages::new(&layout::holders(&digest));
    while let Some(keys) = pages.next(store).await? {
        for key in keys {
            if let Some(Named::Holder(digest, repository)) = layout::parse(&key) {
                named.extend(told_by_holder(store, &digest, &repository).await?);
            }
        }
    }
    Ok(())
}
