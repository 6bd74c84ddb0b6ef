//! What was begun and never ended: upload sessions, and references in flight.
//!
//! A clock says what is old enough to look at. It never decides who wins: every step below shuts out, by a write that
//! its owner loses against, whoever may still be at work on what expires.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Error, PARALLEL, Registry, Result,
    blob::bytes_of,
    gc, layout,
    left::Left,
    manifest::StoredManifest,
    nonce::timed_id,
    pages::Pages,
    pending::{self, Dropped, DroppedWhat, PendingBlob, PendingManifest},
    register::{Register, Seen, State, Value, Written},
    session::{self, SessionId},
    upload::journal::{End, Journal},
};
use crate::{
    oci::{Algorithm, AnyDigest, Digest, Manifest, Repository},
    store::{Key, Store},
};

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Upload sessions of which nothing is left but a mark.
    pub sessions: u64,
    /// References in flight that were given up.
    pub references: u64,
    /// Steps that were given up; those of a round count with its others.
    pub left: u64,
}

impl Registry {
    /// Looks through all sessions and references in flight, and ends those that are older than they may be. Any number
    /// of replicas may do so at the same time, and each may stop anywhere: the next round goes on.
    pub async fn expire(self: &Arc<Self>) -> Result<Expired> {
        let left = Left::default();
        let expired = self.expire_telling(&mut gc::Told::new(&mut |_| {}), &left).await?;
        Ok(Expired { left: left.take(), ..expired })
    }

    pub(crate) async fn expire_telling(self: &Arc<Self>, told: &mut gc::Told<'_>, left: &Left) -> Result<Expired> {
        let mut expired = Expired::default();
        left.go_on(self.expire_sessions(&mut expired, told, left).await, &layout::UPLOADS)?;
        for prefix in layout::PENDING_BLOBS {
            left.go_on(self.expire_blob_references(prefix, &mut expired, left).await, &prefix)?;
        }
        left.go_on(self.expire_manifest_references(&mut expired, left).await, &layout::PENDING_MANIFESTS)?;
        Ok(expired)
    }

    async fn expire_sessions(&self, expired: &mut Expired, told: &mut gc::Told<'_>, left: &Left) -> Result<()> {
        let mut pages = Pages::new(layout::UPLOADS);
        let mut last = None;
        while let Some(keys) = pages.next(self.store()).await? {
            for (id, is_end) in keys.iter().filter_map(session_at) {
                // Its age is in its name: of what is younger than a life nothing need be read, nor in its second life of
                // what has nothing left but an end.
                let (begun, life) =
                    (id.issued() + session::UNIT, self.settings.upload_expiry.as_secs() + session::UNIT);
                if last != Some(id) && self.is_over(if is_end { begun.saturating_add(life) } else { begun }) {
                    last = Some(id);
                    expired.sessions +=
                        u64::from(left.go_on(self.expire_session(id, told).await, &layout::session(id))?);
                }
            }
        }
        Ok(())
    }

    /// Ends a session that nobody has worked on for too long, and drops its bytes unless they were published. Whether there
    /// was more of it than a mark.
    async fn expire_session(&self, id: SessionId, told: &mut gc::Told<'_>) -> Result<bool> {
        let read = Journal::load(self.store(), Some(&self.budget), id, Algorithm::Sha256).await?;
        let (at, digest) = match &read.end.state {
            State::Live(End::Expired { at, digest }) => (*at, *digest),
            // Nothing of it is left: another round was faster, and it needs no new mark.
            State::Absent if read.journal.seq == 0 => return Ok(false),
            // It left no bytes of its own, and its end is as good a mark.
            State::Live(_) if read.journal.seq == 0 => (id.issued() + session::UNIT, None),
            state => {
                let last = if read.journal.seq > 0 { read.journal.at } else { id.issued() + session::UNIT };
                if !self.is_over(last) {
                    return Ok(false);
                }
                let digest = match state {
                    State::Live(End::Finished { digest, .. }) => Some(*digest),
                    _ => None,
                };
                // From here on no finisher can own these bytes. If we stop here the next round goes on.
                let ours = End::Expired { at: self.now(), digest };
                match layout::end(id).publish(self.store(), &read.end, &ours).await? {
                    Written::Done(_) => (self.now(), digest),
                    Written::Lost(_) | Written::Unclear(_) => return Ok(false),
                }
            }
        };
        if !self.drop_session_bytes(&read.journal, digest).await? {
            return Ok(false);
        }
        let mut pages = Pages::new(&layout::session(id));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                // A later one was written since we looked, and may name bytes: for the next round.
                if matches!(layout::parse(&key), Some(layout::Named::Journal(_, seq)) if seq <= read.journal.seq) {
                    self.store().delete(&key).await?;
                }
            }
        }
        if read.journal.seq > 0 && digest.is_none() {
            told.tell(gc::Event::UploadExpired { session: id, bytes: read.journal.received() });
        }
        // The mark stays for another lifetime: no replica, were its clock that far behind, takes the id for a new one. It is
        // the last word on the session, which nobody writes over, and so it may be deleted by name.
        if self.is_over(at.saturating_add(session::UNIT)) {
            self.store().delete(layout::end(id).key()).await?;
        }
        Ok(read.journal.seq > 0)
    }

    /// `false`: a finisher may still be about to publish them; not yet.
    async fn drop_session_bytes(&self, journal: &Journal, digest: Option<Digest>) -> Result<bool> {
        let Some(upload) = &journal.upload else { return Ok(true) };
        if let Some(digest) = digest {
            // Who owned the end wrote a reference in flight before that, and may publish until it has been fenced.
            if pending::brings(self.store(), &digest, &upload.key).await? {
                return Ok(false);
            }
        }
        // From here on nobody completes them. A finisher that was stopped just before may have done so.
        self.store().abort(upload).await?;
        let record = match digest {
            Some(digest) => layout::record(&digest).read(self.store()).await?,
            // Nobody published them: at most a finisher found that they were not what the client had said.
            None => Seen::absent(),
        };
        let named = bytes_of(&record)?;
        if named.as_ref() != Some(&upload.key) {
            self.store().delete(&upload.key).await?;
        }
        Ok(true)
    }

    async fn expire_blob_references(&self, prefix: &str, expired: &mut Expired, left: &Left) -> Result<()> {
        let mut pages = Pages::new(prefix);
        while let Some(keys) = pages.next(self.store()).await? {
            self.expire_page(&keys, expired, left).await?;
        }
        Ok(())
    }

    /// Gives up blob references in flight: shuts their owners out, and leaves what they named to the collector.
    async fn expire_page(&self, keys: &[Key], expired: &mut Expired, left: &Left) -> Result<()> {
        let due = keys.iter().filter(|key| self.is_due(key));
        let fenced: Vec<_> =
            due.map(|key| async move { left.go_on(self.fence_blob_reference(key).await, key) }).collect();
        let mut fenced = stream::iter(fenced).buffer_unordered(PARALLEL);
        let mut repositories: BTreeMap<Repository, Vec<(&Key, Digest)>> = BTreeMap::new();
        let mut strays = Vec::new();
        while let Some(fenced) = fenced.next().await {
            let Some(Fenced { key, entry, stray }) = fenced? else { continue };
            strays.extend(stray.map(|data| (entry.digest, data)));
            repositories.entry(entry.repository).or_default().push((key, entry.digest));
        }
        if !strays.is_empty() {
            // Its owner, should it have stalled just before, may still put them: looked at once more, much later.
            let rest = self.now().saturating_add(self.settings.grace.as_secs());
            let entry = gc::Bytes::new(self.now(), strays);
            pending::put(self.store(), layout::bytes(timed_id(rest)), &entry).await?;
        }
        for (repository, entries) in repositories {
            let (keys, digests): (Vec<&Key>, _) = entries.into_iter().unzip();
            let dropped =
                Dropped { at: self.now(), repository: repository.clone(), what: DroppedWhat::Blobs { digests } };
            // If we stop between these two, both name it, and the next round does this again.
            if left.go_on(dropped.put(self.store(), 0).await.map(|_| true), &repository)? {
                expired.references += keys.len() as u64;
                delete_each(self.store(), keys, left).await?;
            }
        }
        Ok(())
    }

    /// Shuts out the owner of a reference in flight; `None`: it has been consumed.
    async fn fence_blob_reference<'a>(&self, key: &'a Key) -> Result<Option<Fenced<'a>>> {
        let Some(entry) = pending::read::<PendingBlob>(self.store(), key).await? else { return Ok(None) };
        let record = fence(self.store(), &layout::record(&entry.digest)).await?;
        let holder = fence(self.store(), &layout::holder(&entry.digest, &entry.repository)).await?;
        // From here on the owner loses, and starts again with other names. The bytes of a session are the session's.
        // Where the record is damaged they may be what mends it, and what it named if it does not say that any more.
        let held = holder.told().and_then(|holder| holder.data().ok());
        let is_named = |data: &Key| {
            bytes_of(&record).map_or(true, |recorded| recorded.as_ref() == Some(data)) || held.as_ref() == Some(data)
        };
        let stray = entry.data().filter(|data| layout::session_of(data).is_none() && !is_named(data));
        if let Some(data) = &stray {
            self.store().delete(data).await?;
        }
        Ok(Some(Fenced { key, entry, stray }))
    }

    async fn expire_manifest_references(self: &Arc<Self>, expired: &mut Expired, left: &Left) -> Result<()> {
        let mut pages = Pages::new(layout::PENDING_MANIFESTS);
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys.iter().filter(|key| self.is_due(key)) {
                expired.references += u64::from(left.go_on(self.expire_manifest_reference(key).await, key)?);
            }
        }
        Ok(())
    }

    /// Gives up a manifest push in flight. One that came as far as its manifest is completed; any other is shut out.
    async fn expire_manifest_reference(self: &Arc<Self>, key: &Key) -> Result<bool> {
        let Some(entry) = pending::read::<PendingManifest>(self.store(), key).await? else { return Ok(false) };
        let stored = fence(self.store(), &layout::manifest(&entry.repository, &entry.digest)).await?;
        if let Some(stored) = stored.present() {
            self.complete_manifest(&entry, stored).await?;
        } else {
            // Nor may it list a repository without manifests. If we stop here the next round does this again.
            fence(self.store(), &layout::catalog(&entry.repository)).await?;
        }
        let digests = entry.references.iter().filter_map(AnyDigest::known).copied().collect();
        let what = DroppedWhat::Push { digest: entry.digest, tags: entry.tags, digests };
        // If we stop between these two, both name it, and the next round does this again.
        Dropped { at: self.now(), repository: entry.repository, what }.put(self.store(), 0).await?;
        self.store().delete(key).await?;
        Ok(true)
    }

    /// Publishes what a push that died after its manifest left out, and shuts it out of its tags where only its reference
    /// in flight says that it meant to set them.
    async fn complete_manifest(self: &Arc<Self>, entry: &PendingManifest, stored: &StoredManifest) -> Result<()> {
        self.ensure_repository(&entry.repository).await?;
        if let Some(subject) = &entry.subject {
            let listed = layout::referrer(&entry.repository, subject, &entry.digest).read(self.store()).await?;
            if listed.live().is_none() {
                let parsed = Manifest::parse(Some(stored.media_type()), &stored.bytes);
                let parsed = parsed.map_err(|error| Error::ManifestInvalid(error.to_string()))?;
                self.complete_push(&entry.repository, &entry.digest, parsed, stored.bytes.clone()).await?;
            }
        }
        if stored.links.more_tags {
            for tag in &entry.tags {
                let register = layout::tag(&entry.repository, tag);
                while !register.refresh(self.store(), &register.read(self.store()).await?).await? {}
            }
        }
        Ok(())
    }

    /// Whether a session that was last active then has lived its life.
    pub(super) fn is_over(&self, last: u64) -> bool {
        last.saturating_add(self.settings.upload_expiry.as_secs()) < self.now()
    }

    pub(crate) fn is_due(&self, key: &Key) -> bool {
        layout::due(key) <= self.now()
    }
}

/// A reference in flight whose owner was shut out.
struct Fenced<'a> {
    key: &'a Key,
    entry: PendingBlob,
    /// Bytes that no record names.
    stray: Option<Key>,
}

/// The session at a key, and whether that is its end.
fn session_at(key: &Key) -> Option<(SessionId, bool)> {
    match layout::parse(key)? {
        layout::Named::Journal(id, _) => Some((id, false)),
        layout::Named::End(id) => Some((id, true)),
        _ => None,
    }
}

/// Deletes entries that nothing depends on any more. Those that it cannot delete are worked on again, to no effect.
pub(crate) async fn delete_each(store: &dyn Store, keys: impl IntoIterator<Item = &Key>, left: &Left) -> Result<()> {
    let delete = |key| async move { left.go_on(store.delete(key).await, key) };
    let deletes: Vec<_> = keys.into_iter().map(delete).collect();
    stream::iter(deletes).buffer_unordered(PARALLEL).try_collect().await
}

/// Leaves a fresh tombstone where nothing is, so that whoever read "nothing" before loses. What is there stays.
async fn fence<T: Value>(store: &dyn Store, register: &Register<T>) -> Result<Seen<T>> {
    let mut seen = register.read(store).await?;
    while seen.present().is_none() {
        let written = if seen.is_quarantined() {
            register.quarantine(store, &seen).await?
        } else {
            register.bury(store, &seen, seen.is_by_client()).await?
        };
        match written {
            Written::Done(_) => break,
            Written::Lost(now) | Written::Unclear(now) => seen = now,
        }
    }
    Ok(seen)
}
