//! One look at one key, and at what the object there relies on.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    Invariant,
    bytes::{Compared, Reader},
    relies::{is_in_flight, is_lost, lacks_entry, lost_links, readable},
};
use crate::{
    oci::{Descriptor, Digest, Manifest, Repository, Tag},
    registry::{
        blob::{Holder, Record},
        gc::{Bytes as DoomedBytes, Condemned, Lease, Tombstones, Unheld},
        history::Change,
        layout::{self, Named},
        manifest::StoredManifest,
        pending::{Dropped, PendingBlob, PendingManifest},
        referrers,
        register::{State, Value},
        tag::{RepositoryExists, TagTarget},
        upload::journal::{End, Journal},
    },
    store::{Causes, ErrorKind, Key, Result, Store, Version},
};

/// What was seen at a key.
pub(super) struct Look {
    pub(super) key: Key,
    /// Which content was there, where it was read.
    pub(super) version: Option<Version>,
    pub(super) counted: Counted,
    pub(super) problems: Vec<Problem>,
}

#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) invariant: Invariant,
    pub(super) reason: String,
}

/// What a store says of a refusal may be another text each time.
impl PartialEq for Problem {
    fn eq(&self, other: &Self) -> bool {
        self.invariant == other.invariant && (self.invariant == Invariant::Refused || self.reason == other.reason)
    }
}

/// As what an object counts in the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Nothing,
    Repository,
    Manifest,
    Tag,
    Blob { size: u64, is_hashed: bool },
    Pending,
    Dropped,
}

impl Look {
    /// `deep`: who reads the bytes of blobs.
    pub(super) async fn at(store: &dyn Store, deep: Option<&Reader>, key: Key) -> Result<Self> {
        let mut look = Self { key, version: None, counted: Counted::Nothing, problems: Vec::new() };
        match look.look(store, deep).await {
            Err(error) if error.kind == ErrorKind::Refused => {
                look.blame(Invariant::Refused, format!("cannot be judged: {}", Causes(&error)));
            }
            looked => looked?,
        }
        Ok(look)
    }

    async fn look(&mut self, store: &dyn Store, deep: Option<&Reader>) -> Result<()> {
        match layout::parse(&self.key) {
            None if store.head(&self.key).await?.is_some() => {
                self.blame(Invariant::Key, "is not a key of this registry");
            }
            // Bytes answer for nothing; their record does.
            None | Some(Named::Data | Named::Scratch) => {}
            Some(named) => match store.read(&self.key).await {
                // Gone since it was listed.
                Ok(None) => {}
                Ok(Some(found)) => {
                    self.version = Some(found.version);
                    self.judge(store, deep, named, &found.bytes).await?;
                }
                Err(error) if error.kind == ErrorKind::Corrupt => {
                    self.blame(Invariant::Object, format!("cannot be read: {}", error.context));
                }
                Err(error) => return Err(error),
            },
        }
        Ok(())
    }

    /// What is wrong in both looks, if they saw the same content.
    pub(super) fn upheld_by(mut self, again: &Self) -> Option<Self> {
        self.problems.retain(|problem| again.problems.contains(problem));
        (self.version == again.version && !self.problems.is_empty()).then_some(self)
    }

    async fn judge(&mut self, store: &dyn Store, deep: Option<&Reader>, named: Named, bytes: &Bytes) -> Result<()> {
        match named {
            Named::Data | Named::Scratch => {}
            Named::Record(digest) => self.record(store, deep, &digest, bytes).await?,
            Named::Holder(digest, _) => self.holder(store, &digest, bytes).await?,
            Named::Manifest(repository, digest) => self.manifest(store, &repository, &digest, bytes).await?,
            Named::Tag(repository, tag) => self.tag(store, &repository, &tag, bytes).await?,
            Named::Referrer { repository, subject, referrer } => {
                self.referrer(store, &repository, &subject, &referrer, bytes).await?;
            }
            Named::Catalog(repository) => self.catalog(&repository, bytes),
            Named::End(_) => drop(self.register::<End>(bytes)),
            Named::Journal(_, seq) => {
                if Journal::decode(seq, bytes).is_none() {
                    self.blame(Invariant::Object, "is no readable record of a journal");
                }
            }
            Named::PendingBlob(digest) => {
                self.counted = Counted::Pending;
                self.entry(bytes, |entry: &PendingBlob| entry.digest == digest);
            }
            Named::PendingManifest(repository) => {
                self.counted = Counted::Pending;
                self.entry(bytes, |entry: &PendingManifest| entry.repository == repository);
            }
            Named::Dropped(repository) => {
                self.counted = Counted::Dropped;
                self.entry(bytes, |entry: &Dropped| entry.repository == repository);
            }
            Named::History(..) => self.entry(bytes, |_: &Change| true),
            Named::Condemned(_) => self.entry(bytes, |_: &Condemned| true),
            Named::Unheld => self.entry(bytes, |_: &Unheld| true),
            Named::Bytes => self.entry(bytes, |_: &DoomedBytes| true),
            Named::Tombstones => self.entry(bytes, |_: &Tombstones| true),
            Named::Lease => drop(self.register::<Lease>(bytes)),
            Named::SessionKey => {
                if bytes.len() != SESSION_KEY {
                    self.blame(Invariant::Object, "is not a key that signs session ids");
                }
            }
        }
        Ok(())
    }

    /// I2: the bytes are there, and those that they should be.
    async fn record(&mut self, store: &dyn Store, deep: Option<&Reader>, digest: &Digest, bytes: &Bytes) -> Result<()> {
        let Some(record) = self.register::<Record>(bytes) else { return Ok(()) };
        let deep = deep.filter(|reader| reader.reads(digest));
        self.counted = Counted::Blob { size: record.size, is_hashed: false };
        let Some(data) = record.data().ok().filter(|data| layout::parse(data) == Some(Named::Data)) else {
            self.blame(Invariant::I2, "names no place where bytes could be");
            return Ok(());
        };
        let found = match store.head(&data).await {
            Ok(None) => Compared::Absent,
            Ok(Some(size)) if size != record.size => {
                self.blame(Invariant::I2, format!("says that {data} has {} bytes, and it has {size}", record.size));
                return Ok(());
            }
            Ok(Some(_)) => match deep {
                Some(reader) => reader.compare(&data, record.size, digest).await?,
                None => Compared::Right,
            },
            Err(error) if error.kind == ErrorKind::Corrupt => Compared::Unreadable,
            Err(error) => return Err(error),
        };
        let is_hashed = deep.is_some() && matches!(found, Compared::Right | Compared::Other(..));
        self.counted = Counted::Blob { size: record.size, is_hashed };
        match found {
            Compared::Right => {}
            Compared::Other(_, actual) => {
                self.blame(Invariant::I2, format!("says that its bytes are at {data}, whose digest is {actual}"));
            }
            Compared::Absent => {
                self.blame(Invariant::I2, format!("says that its bytes are at {data}, and nothing is there"));
            }
            Compared::Unreadable => {
                self.blame(Invariant::I2, format!("says that its bytes are at {data}, which cannot be read"));
            }
        }
        Ok(())
    }

    /// I2: the record is there and says the same. The record answers for the bytes.
    async fn holder(&mut self, store: &dyn Store, digest: &Digest, bytes: &Bytes) -> Result<()> {
        let Some(holder) = self.register::<Holder>(bytes) else { return Ok(()) };
        let Some(record) = readable(store, &layout::record(digest)).await? else { return Ok(()) };
        match record.present() {
            None => self.blame(Invariant::I2, "holds a blob that has no record"),
            Some(record) if !holder.agrees_with(record) => {
                self.blame(Invariant::I2, "says another size or place than the record");
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// I1: what it names is held. Besides: it is what its key and its header say, it can be found in the catalog and, if
    /// it has a subject, among the referrers of that.
    async fn manifest(
        &mut self,
        store: &dyn Store,
        repository: &Repository,
        digest: &Digest,
        bytes: &Bytes,
    ) -> Result<()> {
        let Some(stored) = self.register::<StoredManifest>(bytes) else { return Ok(()) };
        self.counted = Counted::Manifest;
        let line = layout::catalog(repository);
        // A push writes the line beside the manifest, and drops its reference after both: so the line is read once more.
        if is_lost(store, &line).await?
            && !is_in_flight(store, repository, digest).await?
            && is_lost(store, &line).await?
        {
            self.blame(Invariant::Catalog, "is in a repository that is not in the catalog");
        }
        let actual = Digest::of(digest.algorithm(), &stored.bytes);
        if actual != *digest {
            self.blame(Invariant::Object, format!("has bytes whose digest is {actual}"));
            return Ok(());
        }
        let manifest = match Manifest::parse(Some(stored.media_type()), &stored.bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.blame(Invariant::Object, format!("is not of its type {}: {error}", stored.media_type()));
                return Ok(());
            }
        };
        for link in lost_links(store, repository, &stored, &manifest).await? {
            self.blame(Invariant::I1, format!("names {link}, which its repository does not hold"));
        }
        let subject = manifest.subject.as_ref().and_then(|subject| subject.digest.known());
        if let Some(subject) = subject.filter(|_| stored.links.subject.as_ref() != subject) {
            self.blame(Invariant::I4, format!("has the subject {subject}, which its header does not say"));
        }
        if let Some(subject) = &stored.links.subject
            && lacks_entry(store, repository, subject, digest).await?
        {
            self.blame(Invariant::I4, format!("is not among the referrers of {subject}"));
        }
        Ok(())
    }

    /// I3: the manifest is there, it is what the tag says, and its header names the tag: a delete relies on that.
    async fn tag(&mut self, store: &dyn Store, repository: &Repository, tag: &Tag, bytes: &Bytes) -> Result<()> {
        let Some(target) = self.register::<TagTarget>(bytes) else { return Ok(()) };
        self.counted = Counted::Tag;
        let TagTarget { media_type, digest, size, conditional: _, at: _ } = target;
        let Some(manifest) = readable(store, &layout::manifest(repository, &digest)).await? else { return Ok(()) };
        let Some(manifest) = manifest.present() else {
            self.blame(Invariant::I3, format!("points to {digest}, which is not there"));
            return Ok(());
        };
        let head = manifest.head(&digest);
        if (&media_type, size) != (&head.media_type, head.size) {
            self.blame(Invariant::I3, format!("says another type or size of {digest} than that does"));
        }
        if !manifest.links.more_tags && !manifest.links.tags.contains(tag) {
            self.blame(Invariant::I3, format!("points to {digest}, whose header does not name the tag"));
        }
        Ok(())
    }

    /// I4: the manifest is there, it is what the entry says, and the subject is its subject.
    async fn referrer(
        &mut self,
        store: &dyn Store,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
        bytes: &Bytes,
    ) -> Result<()> {
        let Some(entry) = self.register::<Descriptor>(bytes) else { return Ok(()) };
        let Some(stored) = readable(store, &layout::manifest(repository, referrer)).await? else { return Ok(()) };
        let Some(stored) = stored.present() else {
            self.blame(Invariant::I4, "lists a manifest that is not there");
            return Ok(());
        };
        if stored.links.subject.as_ref() != Some(subject) {
            self.blame(Invariant::I4, "lists a manifest whose header says another subject");
        }
        // If it cannot be parsed, that is said of the manifest.
        if let Ok(manifest) = Manifest::parse(Some(stored.media_type()), &stored.bytes)
            && entry != referrers::descriptor(&manifest, *referrer, stored.bytes.len())
        {
            self.blame(Invariant::I4, "describes its manifest otherwise than it is");
        }
        Ok(())
    }

    fn catalog(&mut self, repository: &Repository, bytes: &Bytes) {
        let Some(exists) = self.register::<RepositoryExists>(bytes) else { return };
        self.counted = Counted::Repository;
        if exists != RepositoryExists::of(repository) {
            self.blame(Invariant::Object, "names another repository than its key");
        }
    }

    /// The value of a register, where there is one.
    fn register<T: Value>(&mut self, bytes: &Bytes) -> Option<T> {
        match State::decode(bytes) {
            Ok((_, State::Live(value) | State::Condemned(value))) => Some(value),
            Ok((_, State::Absent | State::Gone { .. })) => None,
            Ok((_, State::Quarantined(_))) => {
                self.blame(Invariant::Object, "is in quarantine: damaged, until it is pushed again or deleted");
                None
            }
            Err(why) => {
                self.blame(Invariant::Object, why);
                None
            }
        }
    }

    /// An entry of a queue, which must be of what its key says.
    fn entry<T: DeserializeOwned>(&mut self, bytes: &Bytes, is_of_key: impl FnOnce(&T) -> bool) {
        match serde_json::from_slice(bytes) {
            Ok(entry) if is_of_key(&entry) => {}
            Ok(_) => self.blame(Invariant::Object, "is of something else than its key says"),
            Err(_) => self.blame(Invariant::Object, "is no readable entry"),
        }
    }

    fn blame(&mut self, invariant: Invariant, reason: impl Into<String>) {
        self.problems.push(Problem { invariant, reason: reason.into() });
    }
}

/// The size of the key that signs session ids.
const SESSION_KEY: usize = 32;
