//! What was begun and never ended: upload sessions, and references in flight.
//!
//! A clock says what is old enough to look at. It never decides who wins: every step below shuts out, by a write that
//! its owner loses against, whoever may still be at work on what expires.

use std::sync::Arc;

use super::{
    Error, Registry, Result,
    blob::Record,
    layout,
    manifest::StoredManifest,
    pages::Pages,
    pending::{self, Dropped, DroppedWhat, PendingBlob, PendingManifest},
    register::{Register, Seen, State, Value, Written},
    session::{self, SessionId},
    upload::journal::{End, Journal},
};
use crate::{
    oci::{Algorithm, Digest, Manifest},
    store::{Key, Store},
};

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Upload sessions of which nothing is left but a mark, or not even that any more.
    pub sessions: u64,
    /// References in flight that were given up.
    pub references: u64,
}

impl Registry {
    /// Looks through all sessions and references in flight, and ends those that are older than they may be. Any number
    /// of replicas may do so at the same time, and each may stop anywhere: the next round goes on.
    pub async fn expire(self: &Arc<Self>) -> Result<Expired> {
        let mut expired = Expired::default();
        let mut after = None;
        while let Some(session) = self.next_session(&mut after).await? {
            expired.sessions += u64::from(go_on(self.expire_session(session).await, &layout::session(session))?);
        }
        for prefix in layout::PENDING_BLOBS {
            let mut pages = Pages::new(prefix);
            while let Some(keys) = pages.next(self.store()).await? {
                for key in keys {
                    expired.references += u64::from(go_on(self.expire_blob_reference(&key).await, &key)?);
                }
            }
        }
        let mut pages = Pages::new(layout::PENDING_MANIFESTS);
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                expired.references += u64::from(go_on(self.expire_manifest_reference(&key).await, &key)?);
            }
        }
        Ok(expired)
    }

    /// The first session after `after`, which moves behind all its keys.
    async fn next_session(&self, after: &mut Option<Key>) -> Result<Option<SessionId>> {
        loop {
            let Some(entry) = self.store().list(layout::UPLOADS, after.as_ref(), 1).await?.pop() else {
                return Ok(None);
            };
            match layout::parse(&entry.key) {
                Some(layout::Named::Journal(id, _) | layout::Named::End(id)) => {
                    *after = Some(layout::journal(id, 0));
                    return Ok(Some(id));
                }
                _ => *after = Some(entry.key),
            }
        }
    }

    /// Ends a session that nobody has worked on for too long, and drops its bytes unless they were published.
    async fn expire_session(&self, id: SessionId) -> Result<bool> {
        let life = self.settings.upload_expiry.as_secs();
        let read = Journal::load(self.store(), id, Algorithm::Sha256).await?;
        let (at, digest) = match &read.end.state {
            State::Live(End::Expired { at, digest }) => (*at, *digest),
            state => {
                let last = if read.journal.seq > 0 { read.journal.at } else { id.issued() + session::UNIT };
                if last.saturating_add(life) >= self.now() {
                    return Ok(false);
                }
                let digest = match state {
                    State::Live(End::Finished { digest, .. }) => Some(*digest),
                    _ => None,
                };
                // From here on no finisher can own these bytes. If we stop here the next round goes on.
                let ours = End::Expired { at: self.now(), digest };
                match layout::end(id).publish(self.store(), &read.end, &ours).await? {
                    Written::Done => (self.now(), digest),
                    Written::Lost(_) | Written::Unclear(_) => return Ok(false),
                }
            }
        };
        if !self.drop_session_bytes(id, &read.journal, digest).await? {
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
        // The mark stays for another lifetime: no replica, were its clock that far behind, takes the id for a new one.
        if at.saturating_add(life).saturating_add(session::UNIT) < self.now() && self.store.limits().conditional_delete
        {
            layout::end(id).remove(self.store()).await?;
        }
        Ok(true)
    }

    /// `false`: a finisher may still be about to publish them; not yet.
    async fn drop_session_bytes(&self, id: SessionId, journal: &Journal, digest: Option<Digest>) -> Result<bool> {
        let Some(upload) = &journal.upload else { return Ok(true) };
        if let Some(digest) = digest {
            // Who owned the end wrote a reference in flight before that, and may publish until it has been fenced.
            let mut pages = Pages::new(&layout::pending_blobs(&digest));
            while let Some(keys) = pages.next(self.store()).await? {
                for key in keys {
                    let entry: Option<PendingBlob> = pending::read(self.store(), &key).await?;
                    if entry.is_some_and(|entry| entry.of_session(id)) {
                        return Ok(false);
                    }
                }
            }
        }
        // From here on nobody completes them. A finisher that was stopped just before may have done so.
        self.store().abort(upload).await?;
        if let Some(digest) = digest {
            let record = layout::record(&digest).read(self.store()).await?;
            let named = record.present().map(Record::data).transpose()?;
            if named.as_ref() != Some(&upload.key) {
                self.store().delete(&upload.key).await?;
            }
        }
        Ok(true)
    }

    /// Gives up a blob reference in flight: shuts its owner out, and leaves what it named to the collector.
    async fn expire_blob_reference(&self, key: &Key) -> Result<bool> {
        let Some(entry) = pending::read::<PendingBlob>(self.store(), key).await? else { return Ok(false) };
        if !self.is_old(entry.at) {
            return Ok(false);
        }
        let record = fence(self.store(), &layout::record(&entry.digest)).await?;
        fence(self.store(), &layout::holder(&entry.digest, &entry.repository)).await?;
        // From here on the owner loses, and starts again with other names. The bytes of a session are the session's.
        if let Some(data) = entry.data().filter(layout::is_attempt) {
            let named = record.present().map(Record::data).transpose()?;
            if named.as_ref() != Some(&data) {
                self.store().delete(&data).await?;
            }
        }
        let what = DroppedWhat::Blob { digest: entry.digest, data: entry.data };
        // If we stop between these two, both name it, and the next round does this again.
        Dropped { at: self.now(), repository: entry.repository, what }.put(self.store()).await?;
        self.store().delete(key).await?;
        Ok(true)
    }

    /// Gives up a manifest push in flight. One that came as far as its manifest is completed; any other is shut out.
    async fn expire_manifest_reference(self: &Arc<Self>, key: &Key) -> Result<bool> {
        let Some(entry) = pending::read::<PendingManifest>(self.store(), key).await? else { return Ok(false) };
        if !self.is_old(entry.at) {
            return Ok(false);
        }
        let stored = fence(self.store(), &layout::manifest(&entry.repository, &entry.digest)).await?;
        if let Some(stored) = stored.present() {
            self.complete_manifest(&entry, stored).await?;
        }
        let what = DroppedWhat::Manifest { digest: entry.digest };
        // If we stop between these two, both name it, and the next round does this again.
        Dropped { at: self.now(), repository: entry.repository, what }.put(self.store()).await?;
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

    fn is_old(&self, at: u64) -> bool {
        at.saturating_add(self.settings.grace.as_secs()) < self.now()
    }
}

/// One damaged entry must not keep all others from expiring: it stays where it is, and the log says so.
fn go_on(expired: Result<bool>, what: &impl std::fmt::Display) -> Result<bool> {
    match expired {
        Err(error @ (Error::Corrupt(_) | Error::ManifestInvalid(_))) => {
            tracing::error!(%what, %error, "cannot expire");
            Ok(false)
        }
        expired => expired,
    }
}

/// Leaves a fresh tombstone where nothing is, so that whoever read "nothing" before loses. What is there stays.
async fn fence<T: Value>(store: &dyn Store, register: &Register<T>) -> Result<Seen<T>> {
    let mut seen = register.read(store).await?;
    while seen.present().is_none() {
        match register.bury(store, &seen, seen.is_by_client()).await? {
            Written::Done => break,
            Written::Lost(now) | Written::Unclear(now) => seen = now,
        }
    }
    Ok(seen)
}
