//! The first level: that a repository holds a blob.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Collector, Condemned, Event, READS, Told, Waiting, Why, look};
use crate::{
    oci::{Digest, Repository, Tag},
    registry::{
        Error, PARALLEL, Result,
        blob::Holder,
        layout::{self, Named},
        nonce::Nonce,
        pending::{self, Dropped, DroppedWhat},
        register::{Register, Seen, State, Value, Written},
    },
    store::Key,
};

/// What the entries of one repository lead to.
#[derive(Default)]
struct Work {
    /// These entries.
    read: Vec<Key>,
    /// Perhaps not needed any more.
    candidates: BTreeMap<Digest, Why>,
    /// Condemned, and rested since.
    rested: Vec<(Digest, Nonce, Why)>,
    /// Where tombstones were left.
    tombstones: Vec<(String, Nonce)>,
    /// The repository may have no manifest any more.
    may_be_empty: bool,
}

/// What is left of it for other entries.
#[derive(Default)]
struct Rest {
    condemned: Vec<(Digest, Nonce, Why)>,
    unheld: Vec<Digest>,
    waiting: Vec<Digest>,
}

impl Collector {
    /// Works through entries of one repository, and consumes them.
    pub(super) async fn collect_holders(
        &self,
        repository: &Repository,
        entries: &[Key],
        told: &mut Told<'_>,
    ) -> Result<()> {
        let mut work = self.read_entries(repository, entries).await?;
        let mut rest = Rest::default();
        self.take_rested(repository, &mut work, &mut rest, told).await?;
        self.condemn_unneeded(repository, &mut work, &mut rest, told).await?;
        if work.may_be_empty {
            self.collect_catalog(repository, &mut work.tombstones, told).await?;
        }
        // If we stop anywhere before the end, the entries lead here again.
        self.leave_condemned(repository, rest.condemned).await?;
        self.leave_unheld(rest.unheld, 0).await?;
        if !rest.waiting.is_empty() {
            let what = DroppedWhat::Blobs { digests: rest.waiting };
            let dropped = Dropped { at: self.registry.now(), repository: repository.clone(), what };
            dropped.put(self.store(), self.wait()).await?;
        }
        self.leave_tombstones(work.tombstones).await?;
        self.consume(&work.read).await
    }

    async fn read_entries(&self, repository: &Repository, entries: &[Key]) -> Result<Work> {
        let mut work = Work::default();
        let reads: Vec<_> =
            entries.iter().map(|key| async move { Ok::<_, Error>((key, self.read_either(key).await?)) }).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        while let Some((key, read)) = reads.try_next().await? {
            match read {
                Read::Nothing => continue,
                Read::Condemned(condemned) => work.rested.extend(condemned.holders),
                Read::Dropped(dropped) => {
                    let known = self.take_up(repository, dropped, &mut work).await.map(|()| true);
                    if !self.left.go_on(known, key)? {
                        continue;
                    }
                }
            }
            work.read.push(key.clone());
        }
        Ok(work)
    }

    async fn read_either(&self, key: &Key) -> Result<Read> {
        Ok(if let Some(Named::Condemned(_)) = layout::parse(key) {
            self.read_entry(key).await?.map_or(Read::Nothing, Read::Condemned)
        } else {
            self.read_entry(key).await?.map_or(Read::Nothing, Read::Dropped)
        })
    }

    /// What was taken away leads to.
    async fn take_up(&self, repository: &Repository, dropped: Dropped, work: &mut Work) -> Result<()> {
        match dropped.what {
            DroppedWhat::Blobs { digests } => {
                for digest in digests {
                    work.candidates.entry(digest).or_insert(Why::Unnamed);
                }
            }
            DroppedWhat::Tag { tag, .. } => {
                self.note_tombstone(&layout::tag(repository, &tag), &mut work.tombstones).await?;
            }
            DroppedWhat::Push { digest, tags, digests } => {
                self.note_tombstones(repository, &digest, tags, None, &mut work.tombstones).await?;
                for digest in digests {
                    work.candidates.entry(digest).or_insert(Why::Unnamed);
                }
                work.may_be_empty = true;
            }
            DroppedWhat::Catalog {} => work.may_be_empty = true,
            DroppedWhat::Manifest { digest, media_type, tags, subject, manifest } => {
                // Also if it is back: perhaps without its tags.
                self.note_tombstones(repository, &digest, tags, subject, &mut work.tombstones).await?;
                if self.is_back(repository, &digest).await? {
                    return Ok(());
                }
                let why = Why::Deleted { manifest: digest, at: dropped.at };
                let named = look::names_in(&media_type, manifest.as_bytes());
                work.candidates.extend(named.into_iter().map(|named| (named, why)));
                work.may_be_empty = true;
            }
        }
        Ok(())
    }

    /// Whether a manifest is there although a delete of it was announced. Then it is written anew: a delete that stalled
    /// loses, and announces itself again.
    async fn is_back(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let register = layout::manifest(repository, digest);
        loop {
            let seen = register.read(self.store()).await?;
            if seen.present().is_none() {
                return Ok(false);
            }
            if let State::Condemned(_) = seen.state {
                return Ok(register.lift(self.store(), seen).await?.is_some());
            }
            if register.refresh(self.store(), &seen).await? {
                return Ok(true);
            }
        }
    }

    /// Those of a manifest, and of what hangs on it.
    async fn note_tombstones(
        &self,
        repository: &Repository,
        digest: &Digest,
        tags: Vec<Tag>,
        subject: Option<Digest>,
        into: &mut Vec<(String, Nonce)>,
    ) -> Result<()> {
        self.note_tombstone(&layout::manifest(repository, digest), into).await?;
        for tag in tags {
            self.note_tombstone(&layout::tag(repository, &tag), into).await?;
        }
        if let Some(subject) = subject {
            self.note_tombstone(&layout::referrer(repository, &subject, digest), into).await?;
        }
        Ok(())
    }

    async fn note_tombstone<T: Value>(&self, register: &Register<T>, into: &mut Vec<(String, Nonce)>) -> Result<()> {
        if self.store().limits().conditional_delete {
            let seen = register.read(self.store()).await?;
            if let (State::Gone { .. }, Some(nonce)) = (&seen.state, seen.nonce()) {
                into.push((register.key().as_str().to_owned(), nonce));
            }
        }
        Ok(())
    }

    /// Takes the holders that have rested and are still what they were when they were condemned, unless they are needed.
    async fn take_rested(
        &self,
        repository: &Repository,
        work: &mut Work,
        rest: &mut Rest,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let digests = work.rested.iter().map(|(digest, ..)| *digest);
        let mut holders = self.read_holders(repository, digests, &mut rest.waiting).await?;
        let mut ripe = Vec::new();
        for (digest, nonce, why) in &work.rested {
            // Where two entries name it, one of them is enough: it leads on, whichever it is.
            let Some(seen) = holders.remove(digest) else { continue };
            match &seen.state {
                State::Absent => rest.unheld.push(*digest),
                State::Gone { .. } => {
                    // Perhaps taken by one that stopped before it could note the tombstone.
                    let key = layout::holder(digest, repository).key().as_str().to_owned();
                    work.tombstones.extend(seen.nonce().map(|nonce| (key, nonce)));
                    rest.unheld.push(*digest);
                }
                State::Condemned(_) if seen.nonce() == Some(*nonce) => ripe.push((*digest, *why, seen)),
                // Lifted since, and perhaps condemned by somebody else: to be looked at like any other.
                State::Condemned(_) | State::Live(_) | State::Quarantined(_) => {
                    work.candidates.insert(*digest, *why);
                }
            }
        }
        let needed = self.needed(repository, &ripe.iter().map(|(digest, ..)| *digest).collect()).await?;
        for (digest, why, seen) in ripe {
            let taken = async {
                let in_flight = needed.in_flight(&digest);
                if needed.is_named(&digest) || in_flight.is_some() {
                    self.lift(repository, digest, told).await?;
                    if let Some(of) = in_flight.filter(|_| !needed.is_named(&digest)) {
                        rest.wait(repository, digest, Waiting::InFlight(of), told);
                    }
                // Whoever lifted it meanwhile wins. If we stop after this, the entry leads to the bytes.
                } else if self.bury(repository, digest, &seen, work, rest, told).await? {
                    let size = seen.present().map_or(0, |holder| holder.size);
                    told.tell(Event::HolderTaken { repository: repository.clone(), digest, size, why });
                }
                Ok::<_, Error>(true)
            };
            if !self.left.go_on(taken.await, &digest)? {
                rest.waiting.push(digest);
            }
        }
        Ok(())
    }

    /// Leaves a tombstone over what was seen, unless it has changed since.
    async fn bury(
        &self,
        repository: &Repository,
        digest: Digest,
        seen: &Seen<Holder>,
        work: &mut Work,
        rest: &mut Rest,
        told: &mut Told<'_>,
    ) -> Result<bool> {
        let register = layout::holder(&digest, repository);
        match register.bury(self.store(), seen, false).await? {
            Written::Done(nonce) => {
                work.tombstones.push((register.key().as_str().to_owned(), nonce));
                rest.unheld.push(digest);
                Ok(true)
            }
            Written::Lost(_) | Written::Unclear(_) => {
                rest.wait(repository, digest, Waiting::Changed, told);
                Ok(false)
            }
        }
    }

    /// Condemns what of the candidates is held and not needed.
    async fn condemn_unneeded(
        &self,
        repository: &Repository,
        work: &mut Work,
        rest: &mut Rest,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let mut held = Vec::new();
        let digests = work.candidates.keys().copied();
        for (digest, seen) in self.read_holders(repository, digests, &mut rest.waiting).await? {
            match &seen.state {
                State::Live(_) | State::Condemned(_) | State::Quarantined(_) => held.push((digest, seen)),
                State::Absent => rest.unheld.push(digest),
                State::Gone { .. } => {
                    let key = layout::holder(&digest, repository).key().as_str().to_owned();
                    work.tombstones.extend(seen.nonce().map(|nonce| (key, nonce)));
                    rest.unheld.push(digest);
                }
            }
        }
        let needed = self.needed(repository, &held.iter().map(|(digest, _)| *digest).collect()).await?;
        let mut condemned: Vec<(Digest, Nonce, u64)> = Vec::new();
        for (digest, seen) in held {
            let done = async {
                if needed.is_named(&digest) {
                    // Perhaps condemned by one that stopped before it could look again.
                    if let State::Condemned(_) = seen.state {
                        self.lift(repository, digest, told).await?;
                    }
                } else if let Some(of) = needed.in_flight(&digest) {
                    rest.wait(repository, digest, Waiting::InFlight(of), told);
                } else if seen.is_quarantined() {
                    // Nobody was told that it exists, so it need not rest. Whoever pushed it again meanwhile wins.
                    self.bury(repository, digest, &seen, work, rest, told).await?;
                } else {
                    match self.condemn(repository, &digest, &seen).await? {
                        Some(nonce) => condemned.push((digest, nonce, seen.present().map_or(0, |holder| holder.size))),
                        None => rest.wait(repository, digest, Waiting::Changed, told),
                    }
                }
                Ok::<_, Error>(true)
            };
            if !self.left.go_on(done.await, &digest)? {
                rest.waiting.push(digest);
            }
        }
        // A push may have looked before that and published since. It is safe: the last look finds it. But nobody should be
        // told meanwhile that its blob is absent.
        let needed = self.needed(repository, &condemned.iter().map(|(digest, ..)| *digest).collect()).await?;
        let until = self.registry.now().saturating_add(self.registry.settings.grace.as_secs());
        for (digest, nonce, size) in condemned {
            let in_flight = needed.in_flight(&digest);
            if needed.is_named(&digest) || in_flight.is_some() {
                self.left.go_on(self.lift(repository, digest, told).await, &digest)?;
                rest.wait(repository, digest, in_flight.map_or(Waiting::Changed, Waiting::InFlight), told);
            } else {
                let why = work.candidates.get(&digest).copied().unwrap_or(Why::Unnamed);
                rest.condemned.push((digest, nonce, why));
                told.tell(Event::Condemned { repository: repository.clone(), digest, size, why, until });
            }
        }
        Ok(())
    }

    async fn lift(&self, repository: &Repository, digest: Digest, told: &mut Told<'_>) -> Result<()> {
        self.registry.lift_holder(repository, &digest).await?;
        told.tell(Event::Lifted { repository: repository.clone(), digest });
        Ok(())
    }

    /// `None`: it changed meanwhile.
    async fn condemn(&self, repository: &Repository, digest: &Digest, seen: &Seen<Holder>) -> Result<Option<Nonce>> {
        match &seen.state {
            State::Condemned(_) => Ok(seen.nonce()),
            State::Live(holder) => {
                match layout::holder(digest, repository).condemn(self.store(), seen, holder).await? {
                    Written::Done(nonce) => Ok(Some(nonce)),
                    Written::Lost(_) | Written::Unclear(_) => Ok(None),
                }
            }
            State::Absent | State::Gone { .. } | State::Quarantined(_) => Ok(None),
        }
    }

    /// What is read of each; one that is damaged or refused waits, and keeps no other waiting.
    async fn read_holders(
        &self,
        repository: &Repository,
        digests: impl Iterator<Item = Digest>,
        waiting: &mut Vec<Digest>,
    ) -> Result<BTreeMap<Digest, Seen<Holder>>> {
        let read = |digest| async move { (digest, layout::holder(&digest, repository).read(self.store()).await) };
        let reads: Vec<_> = digests.map(read).collect();
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
        let mut holders = BTreeMap::new();
        while let Some((digest, read)) = reads.next().await {
            match self.left.go_on(read.map(Some), layout::holder(&digest, repository).key())? {
                Some(seen) => drop(holders.insert(digest, seen)),
                None => waiting.push(digest),
            }
        }
        Ok(holders)
    }

    async fn leave_condemned(&self, repository: &Repository, holders: Vec<(Digest, Nonce, Why)>) -> Result<()> {
        if !holders.is_empty() {
            let entry = Condemned { at: self.registry.now(), holders };
            let key = layout::condemned(repository, self.id_in(self.registry.settings.grace.as_secs()));
            pending::put(self.store(), key, &entry).await?;
        }
        Ok(())
    }
}

impl Rest {
    /// Looked at again later.
    fn wait(&mut self, repository: &Repository, digest: Digest, of: Waiting, told: &mut Told<'_>) {
        self.waiting.push(digest);
        told.tell(Event::Waiting { repository: Some(repository.clone()), digest, of });
    }
}

enum Read {
    /// Consumed by another collector, or damaged.
    Nothing,
    Dropped(Dropped),
    Condemned(Condemned),
}
