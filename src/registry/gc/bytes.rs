//! The second level: the record of a blob, and its bytes.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};

use super::{Bytes, Collector, Event, Told, Unheld, Waiting};
use crate::{
    oci::Digest,
    registry::{
        Error, PARALLEL, Result,
        blob::{self, Record},
        layout::{self, Named},
        nonce::Nonce,
        pending,
        register::{LIVE_AT_LEAST, Seen, State, Written},
        upload::journal::End,
    },
    store::Key,
};

/// Whether a record is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    None,
    /// By who is about to hold it.
    InFlight,
    Held,
}

/// A record that was condemned, about to be taken.
struct Doomed {
    digest: Digest,
    seen: Seen<Record>,
    size: u64,
    data: Key,
}

/// An entry of `gc/bytes`, and those of its bytes that are not gone yet.
struct BytesEntry {
    entry: Key,
    bytes: Vec<(Digest, Key)>,
}

/// What became of bytes that an entry names.
enum Fate {
    /// Nothing named them.
    Deleted,
    /// Their record is live: whoever condemned it before cannot take it any more.
    Recorded,
    /// The record may go yet, or may come yet.
    Open,
}

/// How taking one ended.
enum Taken {
    Gone { size: u64, tombstone: (String, Nonce) },
    Waiting,
    Needed,
}

impl Collector {
    /// Works through entries, and consumes them.
    pub(super) async fn collect_bytes(&self, entries: &[Key], told: &mut Told<'_>) -> Result<()> {
        let mut candidates = BTreeSet::new();
        let (mut spent, mut named) = (Vec::new(), Vec::new());
        for key in entries {
            if let Some(Named::Unheld) = layout::parse(key) {
                let Some(entry) = self.read_entry::<Unheld>(key).await? else { continue };
                candidates.extend(entry.digests);
                spent.push(key.clone());
            } else {
                let Some(entry) = self.read_entry::<Bytes>(key).await? else { continue };
                let left = self.delete_unnamed(key, entry, told).await;
                let Some(left) = self.left.go_on(left.map(Some), key)? else { continue };
                candidates.extend(left.bytes.iter().map(|(digest, _)| *digest));
                named.push(left);
            }
        }
        let mut waiting = Vec::new();
        let mut tombstones = Vec::new();
        let doomed = self.condemn_records(&candidates, &mut waiting, &mut tombstones).await?;
        // Until their delete is answered something names the bytes: the record, and then this entry.
        let left = self.leave_bytes(&doomed).await?;
        let newest = left.as_ref().map(|left| left.entry.clone());
        named.extend(left);
        let take = |doomed: Doomed| async move { (doomed.digest, doomed.data.clone(), self.take_record(doomed).await) };
        let takes: Vec<_> = doomed.into_iter().map(take).collect();
        let mut takes = stream::iter(takes).buffer_unordered(PARALLEL);
        let (mut gone, mut missed) = (BTreeSet::new(), BTreeSet::new());
        while let Some((digest, data, taken)) = takes.next().await {
            match self.left.go_on(taken.map(Some), &digest)? {
                Some(Taken::Needed) => {}
                Some(Taken::Waiting) => waiting.push(digest),
                None => {
                    // Perhaps it is taken, and only the tombstone is still to be noted.
                    waiting.push(digest);
                    missed.insert(data);
                }
                Some(Taken::Gone { size, tombstone }) => {
                    told.tell(Event::BlobTaken { digest, size });
                    tombstones.push(tombstone);
                    gone.insert(data);
                }
            }
        }
        for BytesEntry { entry, bytes } in named {
            // Of all entries that name what was passed over the newest is enough, or there would be one more in each round.
            let mut is_settled = missed.is_empty() || Some(&entry) != newest.as_ref();
            let is_open = |data| !gone.contains(data) && !missed.contains(data);
            for (digest, data) in bytes.iter().filter(|(_, data)| is_open(data)) {
                let fate = self.left.go_on(self.delete_unless_named(digest, data).await.map(Some), digest)?;
                is_settled &= matches!(fate, Some(Fate::Deleted | Fate::Recorded));
            }
            // If not, the entry stays for the next round.
            spent.extend(is_settled.then_some(entry));
        }
        for digest in &waiting {
            told.tell(Event::Waiting { repository: None, digest: *digest, of: Waiting::Changed });
        }
        self.leave_unheld(waiting, self.wait()).await?;
        self.leave_tombstones(tombstones).await?;
        self.consume(&spent).await
    }

    /// Deletes those of the bytes in an entry that nothing names: somebody stopped before he had. Returns the others.
    async fn delete_unnamed(&self, key: &Key, entry: Bytes, told: &mut Told<'_>) -> Result<BytesEntry> {
        let mut left = BytesEntry { entry: key.clone(), bytes: Vec::new() };
        for (digest, data) in entry.bytes {
            let data = data_key(&data)?;
            let fate = self.left.go_on(self.delete_unless_named(&digest, &data).await.map(Some), &data)?;
            if let Some(Fate::Deleted) = fate {
                told.tell(Event::StrayTaken { data });
            } else {
                left.bytes.push((digest, data));
            }
        }
        Ok(left)
    }

    async fn condemn_records(
        &self,
        candidates: &BTreeSet<Digest>,
        waiting: &mut Vec<Digest>,
        tombstones: &mut Vec<(String, Nonce)>,
    ) -> Result<Vec<Doomed>> {
        let look = |digest| async move { (digest, self.look_at_record(digest).await) };
        let looks: Vec<_> = candidates.iter().map(look).collect();
        let mut looks = stream::iter(looks).buffer_unordered(PARALLEL);
        let mut doomed = Vec::new();
        while let Some((&digest, look)) = looks.next().await {
            let judged = match look {
                Ok((seen, need)) => self.condemn_record(digest, seen, need, waiting, tombstones).await,
                Err(error) => Err(error),
            };
            // One that is damaged or refused keeps no other waiting.
            match self.left.go_on(judged.map(Some), &digest)? {
                Some(found) => doomed.extend(found),
                None => waiting.push(digest),
            }
        }
        Ok(doomed)
    }

    async fn condemn_record(
        &self,
        digest: Digest,
        seen: Seen<Record>,
        need: Need,
        waiting: &mut Vec<Digest>,
        tombstones: &mut Vec<(String, Nonce)>,
    ) -> Result<Option<Doomed>> {
        let register = layout::record(&digest);
        match (&seen.state, need) {
            (State::Absent, _) | (State::Live(_) | State::Quarantined(_), Need::Held) => {}
            (State::Gone { .. }, _) => {
                tombstones.extend(seen.nonce().map(|nonce| (register.key().as_str().to_owned(), nonce)));
            }
            (State::Condemned(_), Need::Held) => drop(register.lift(self.store(), seen).await?),
            (State::Live(_) | State::Condemned(_) | State::Quarantined(_), Need::InFlight) => waiting.push(digest),
            // Nobody waits for it to be pushed again any more.
            (State::Quarantined(_), Need::None) => match seen.told() {
                Some(record) => return Ok(Some(Doomed { digest, size: record.size, data: record.data()?, seen })),
                // Its bytes have no name any more: a walk finds them. If we stop after this, the entry that led here is
                // still there, and notes the tombstone.
                None => match register.bury(self.store(), &seen, false).await? {
                    Written::Done(nonce) => tombstones.push((register.key().as_str().to_owned(), nonce)),
                    Written::Lost(_) | Written::Unclear(_) => waiting.push(digest),
                },
            },
            (State::Condemned(record), Need::None) => {
                let (size, data) = (record.size, record.data()?);
                return Ok(Some(Doomed { digest, seen, size, data }));
            }
            (State::Live(record), Need::None) => {
                if register.condemn(self.store(), &seen, record).await?.is_done()
                    && let seen = register.read(self.store()).await?
                    && let State::Condemned(record) = &seen.state
                {
                    // Perhaps not the one that we condemned: what counts is what was read.
                    let (size, data) = (record.size, record.data()?);
                    return Ok(Some(Doomed { digest, seen, size, data }));
                }
                waiting.push(digest);
            }
        }
        Ok(None)
    }

    async fn look_at_record(&self, digest: &Digest) -> Result<(Seen<Record>, Need)> {
        let seen = layout::record(digest).read(self.store()).await?;
        // One that says no place of bytes is damaged too.
        seen.told().as_ref().map(Record::data).transpose()?;
        let need =
            if seen.present().is_some() || seen.is_quarantined() { self.need_of(digest).await? } else { Need::None };
        Ok((seen, need))
    }

    /// References in flight first, and then what they turn into: holders.
    async fn need_of(&self, digest: &Digest) -> Result<Need> {
        let in_flight = !self.store().list(&layout::pending_blobs(digest), None, 1).await?.is_empty();
        let prefix = layout::holders(digest);
        let mut after = None;
        loop {
            let entries = self.store().list(&prefix, after.as_ref(), crate::registry::pages::LIST).await?;
            let is_held = |entry: &crate::store::Entry| {
                entry.size >= LIVE_AT_LEAST && matches!(layout::parse(&entry.key), Some(Named::Holder(..)))
            };
            if entries.iter().any(is_held) {
                return Ok(Need::Held);
            }
            if entries.len() < crate::registry::pages::LIST {
                return Ok(if in_flight { Need::InFlight } else { Need::None });
            }
            after = entries.last().map(|entry| entry.key.clone());
        }
    }

    async fn leave_bytes(&self, doomed: &[Doomed]) -> Result<Option<BytesEntry>> {
        if doomed.is_empty() {
            return Ok(None);
        }
        let bytes: Vec<_> = doomed.iter().map(|doomed| (doomed.digest, doomed.data.clone())).collect();
        let entry = Bytes::new(self.registry.now(), bytes.iter().cloned());
        let entry = pending::put(self.store(), layout::bytes(self.id_in(0)), &entry).await?;
        Ok(Some(BytesEntry { entry, bytes }))
    }

    async fn take_record(&self, doomed: Doomed) -> Result<Taken> {
        let Doomed { digest, seen, size, data } = doomed;
        // From here on the session that brought these bytes does not bring them again.
        self.end_session_of(&data, &digest).await?;
        let register = layout::record(&digest);
        match self.need_of(&digest).await? {
            Need::None => {}
            need => {
                register.lift(self.store(), seen).await?;
                return Ok(if need == Need::Held { Taken::Needed } else { Taken::Waiting });
            }
        }
        // Whoever lifted it meanwhile wins.
        match register.bury(self.store(), &seen, false).await? {
            Written::Done(nonce) => {
                // If we stop here the entry names the bytes.
                self.store().delete(&data).await?;
                Ok(Taken::Gone { size, tombstone: (register.key().as_str().to_owned(), nonce) })
            }
            Written::Lost(_) | Written::Unclear(_) => Ok(Taken::Waiting),
        }
    }

    /// Deletes bytes, unless their record names them or may come to name them. Condemned it may be taken at any moment by
    /// another collector, who may die before he deletes them.
    async fn delete_unless_named(&self, digest: &Digest, data: &Key) -> Result<Fate> {
        let register = layout::record(digest);
        let named = |seen: Seen<Record>| {
            let is_named = blob::bytes_of(&seen)?.as_ref() == Some(data);
            let fate = if seen.live().is_some() { Fate::Recorded } else { Fate::Open };
            Ok::<_, Error>(is_named.then_some(fate))
        };
        if let Some(fate) = named(register.read(self.store()).await?)? {
            return Ok(fate);
        }
        self.end_session_of(data, digest).await?;
        // Who owned that end before says so by a reference in flight until he has published them, or was shut out.
        if pending::brings(self.store(), digest, data).await? {
            return Ok(Fate::Open);
        }
        if let Some(fate) = named(register.read(self.store()).await?)? {
            return Ok(fate);
        }
        self.store().delete(data).await?;
        Ok(Fate::Deleted)
    }

    /// A finisher that stalled may not publish the bytes again.
    async fn end_session_of(&self, data: &Key, digest: &Digest) -> Result<()> {
        let Some(session) = layout::session_of(data) else { return Ok(()) };
        let register = layout::end(session);
        let mut seen = register.read(self.store()).await?;
        while let State::Live(End::Finished { .. }) = seen.state {
            let ours = End::Expired { at: self.registry.now(), digest: Some(*digest) };
            match register.publish(self.store(), &seen, &ours).await? {
                Written::Done(_) => break,
                Written::Lost(now) | Written::Unclear(now) => seen = now,
            }
        }
        Ok(())
    }
}

fn data_key(text: &str) -> Result<Key> {
    Key::parse(text).ok_or_else(|| {
        crate::store::Error::new(crate::store::ErrorKind::Corrupt, format!("{text:?} is not a data key")).into()
    })
}
