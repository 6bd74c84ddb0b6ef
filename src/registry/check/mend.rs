//! Mends what a check found. What is damaged is put in quarantine, where it counts as absent, so that the next push of the
//! same replaces it. What follows from something else is written anew. Nothing is deleted that anybody could want.
//!
//! # On a live store
//!
//! A finding stood through three looks, and each write is over exactly what was read just before it and is still what was
//! found: whoever came between wins, and the next check says what is left. If we stop anywhere the store is as it was or a
//! step better, and another repair goes on. An upload that saw a record just before that went into quarantine may hold the
//! blob after it: its holder then has no record, and is found and mended like any other.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Finding, Invariant,
    bytes::Reader,
    look::{Look, Problem},
    relies::lost_links,
};
use crate::{
    oci::{AnyDigest, Digest, Manifest, ManifestType, Repository, Tag},
    registry::{
        Error, Registry,
        gc::Unheld,
        layout::{self, Named},
        manifest::StoredManifest,
        nonce::timed_id,
        pending::{self, Dropped, DroppedWhat},
        register::{Register, Seen, Value, Written},
        tag::{RepositoryExists, TagTarget},
    },
    store::{self, Causes, Key, Store, Version},
};

mod blob;

/// Something that a check did about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// What was written.
    pub key: Key,
    /// Goes on where the key ends: "put in quarantine".
    pub what: String,
    /// It is as it should be. Otherwise something is lost until it is pushed again.
    pub is_whole: bool,
}

/// Mends for one check.
#[derive(Clone, Debug)]
pub(super) struct Mender {
    registry: Arc<Registry>,
    reader: Reader,
}

/// How many digests one entry of a queue names.
const ENTRY: usize = 100;

impl Mender {
    pub(super) fn new(registry: Arc<Registry>, reader: Reader) -> Self {
        Self { registry, reader }
    }

    /// What was done about what is wrong at a key, if anything. Fails only where the store does.
    pub(super) async fn mend(&self, found: &Look) -> store::Result<Vec<Mend>> {
        let version = found.version.as_ref();
        let is_unreadable = found.problems.iter().any(|problem| problem.invariant == Invariant::Object);
        let mended = match layout::parse(&found.key) {
            Some(Named::Record(digest) | Named::Holder(digest, _)) => self.mend_blob(&digest).await,
            Some(Named::Catalog(repository)) => self.rewrite_line(&repository, version).await,
            Some(Named::Manifest(repository, digest)) if is_unreadable => {
                self.put_manifest_away(&repository, &digest, version).await
            }
            Some(Named::Manifest(repository, digest)) => {
                self.mend_manifest(&repository, &digest, version, &found.problems).await
            }
            Some(Named::Tag(repository, tag)) if is_unreadable => {
                self.put_away(&layout::tag(&repository, &tag), version).await
            }
            Some(Named::Tag(repository, tag)) => self.mend_tag(&repository, &tag, version).await,
            Some(Named::Referrer { repository, subject, referrer }) => {
                self.mend_entry(&repository, &subject, &referrer, version).await
            }
            Some(Named::PendingBlob(_) | Named::PendingManifest(_)) if is_unreadable => {
                self.end_reference(&found.key).await
            }
            // What is in a queue or a journal cannot be told from anything else.
            _ => Ok(Vec::new()),
        };
        match mended {
            Err(Error::Store(error) | Error::Throttled(error) | Error::Full(error)) => Err(error),
            Err(error) => {
                tracing::debug!(key = %found.key, error = %Causes(&error), "not mended");
                Ok(Vec::new())
            }
            Ok(mends) => Ok(mends),
        }
    }

    /// Leaves strays to the collector, and says which. Bytes without a name stay: `gc --full` fences them first.
    pub(super) async fn queue(&self, strays: &[Finding]) -> store::Result<Vec<Mend>> {
        let mut holders: BTreeMap<Repository, Vec<Digest>> = BTreeMap::new();
        let mut records = Vec::new();
        let mut queued = Vec::new();
        for Finding { key, .. } in strays {
            match layout::parse(key) {
                Some(Named::Holder(digest, repository)) => holders.entry(repository).or_default().push(digest),
                Some(Named::Record(digest)) => records.push(digest),
                _ => continue,
            }
            queued.push(Mend { key: key.clone(), what: "left to the collector".to_owned(), is_whole: true });
        }
        let (store, now) = (self.store(), self.registry.now());
        for (repository, digests) in holders {
            for digests in digests.chunks(ENTRY) {
                let what = DroppedWhat::Blobs { digests: digests.to_vec() };
                Dropped { at: now, repository: repository.clone(), what }.put(store, 0).await?;
            }
        }
        for digests in records.chunks(ENTRY) {
            let entry = Unheld::new(now, digests.to_vec());
            pending::put(store, layout::unheld(timed_id(now)), &entry).await?;
        }
        Ok(queued)
    }

    /// Puts a register in quarantine that cannot be read, or is not what its key says.
    async fn put_away<T: Value>(&self, register: &Register<T>, version: Option<&Version>) -> Result {
        let seen = register.read_damaged(self.store()).await?;
        if !seen.is_at(version) || seen.is_put_away() {
            return Ok(Vec::new());
        }
        let written = register.quarantine(self.store(), &seen).await?;
        Ok(lost(register, &written, "put in quarantine: push it again, or delete it".to_owned()))
    }

    /// What has its digest and a type of manifests is what a client pushed, and is served: also if it would not be taken
    /// today.
    async fn put_manifest_away(&self, repository: &Repository, digest: &Digest, version: Option<&Version>) -> Result {
        let register = layout::manifest(repository, digest);
        let seen = register.read_damaged(self.store()).await?;
        let was_pushed = |stored: &StoredManifest| {
            ManifestType::parse(stored.media_type()).is_some()
                && Digest::of(digest.algorithm(), &stored.bytes) == *digest
        };
        if seen.present().is_some_and(was_pushed) { Ok(Vec::new()) } else { self.put_away(&register, version).await }
    }

    /// A reference in flight that cannot be read keeps whatever it may name. Nobody can be shut out by it: so it stays for
    /// as long as a tombstone would, in which whoever wrote it gave up.
    async fn end_reference(&self, key: &Key) -> Result {
        let rest = self.registry.settings.tombstones.as_secs();
        if layout::due(key).saturating_add(rest) > self.registry.now() {
            return Ok(Vec::new());
        }
        // Its name is never used again. If we stop here what it named is found as stray by the next check.
        self.store().delete(key).await?;
        let what = "deleted, long after it was due: what it named is found as stray, if it is".to_owned();
        Ok(vec![Mend { key: key.clone(), what, is_whole: true }])
    }

    /// A line of the catalog says what its key does.
    async fn rewrite_line(&self, repository: &Repository, version: Option<&Version>) -> Result {
        let register = layout::catalog(repository);
        let seen = register.read_damaged(self.store()).await?;
        if !seen.is_at(version) {
            return Ok(Vec::new());
        }
        let written = register.publish(self.store(), &seen, &RepositoryExists::of(repository)).await?;
        Ok(whole(&register, &written, "written anew from its key".to_owned()))
    }

    async fn mend_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        version: Option<&Version>,
        problems: &[Problem],
    ) -> Result {
        let register = layout::manifest(repository, digest);
        let seen = register.read(self.store()).await?;
        let Some(stored) = seen.present().filter(|_| seen.is_at(version)) else { return Ok(Vec::new()) };
        let manifest = Manifest::parse(Some(stored.media_type()), &stored.bytes);
        let manifest = manifest.map_err(|error| Error::ManifestInvalid(error.to_string()))?;
        let has = |invariant| problems.iter().any(|problem| problem.invariant == invariant);
        let mut mends = Vec::new();
        let done = |key: &Key, what: &str| Mend { key: key.clone(), what: what.to_owned(), is_whole: true };
        if has(Invariant::Catalog) {
            self.registry.ensure_repository(repository).await?;
            mends.push(done(layout::catalog(repository).key(), "written: its repository has manifests"));
        }
        if has(Invariant::I1) {
            for link in lost_links(self.store(), repository, stored, &manifest).await? {
                if let AnyDigest::Known(blob) = link {
                    mends.extend(self.hold_again(repository, &blob).await?);
                }
            }
        }
        if has(Invariant::I4) {
            self.registry.complete_push(repository, digest, manifest, stored.bytes.clone()).await?;
            mends.push(done(register.key(), "pushed again from what is stored: listed among its referrers"));
        }
        Ok(mends)
    }

    /// The header of its manifest names a tag, and a tag says what its manifest is.
    async fn mend_tag(&self, repository: &Repository, tag: &Tag, version: Option<&Version>) -> Result {
        let register = layout::tag(repository, tag);
        let seen = register.read(self.store()).await?;
        let Some(target) = seen.present().filter(|_| seen.is_at(version)) else { return Ok(Vec::new()) };
        let of = layout::manifest(repository, &target.digest);
        let manifest = of.read(self.store()).await?;
        // Whatever it pointed to has to be pushed again.
        let Some(stored) = manifest.present() else { return Ok(Vec::new()) };
        let mut mends = Vec::new();
        if let Some(naming) = stored.naming(tag) {
            let written = of.publish(self.store(), &manifest, &naming).await?;
            mends.extend(whole(&of, &written, format!("names the tag {tag} that points to it")));
        }
        let head = stored.head(&target.digest);
        let right = TagTarget { media_type: head.media_type, size: head.size, ..target.clone() };
        if *target != right {
            let written = register.publish(self.store(), &seen, &right).await?;
            mends.extend(whole(&register, &written, "written anew from its manifest".to_owned()));
        }
        Ok(mends)
    }

    /// An entry says again what its manifest does, which has it written anew; where there is none it goes.
    async fn mend_entry(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
        version: Option<&Version>,
    ) -> Result {
        let register = layout::referrer(repository, subject, referrer);
        let seen = register.read_damaged(self.store()).await?;
        if !seen.is_at(version) {
            return Ok(Vec::new());
        }
        let written = register.bury(self.store(), &seen, false).await?;
        // If we stop here the manifest lacks its entry, which is found.
        let manifest = layout::manifest(repository, referrer).read(self.store()).await?;
        if let Some(stored) = manifest.present().filter(|stored| stored.links.subject.as_ref() == Some(subject)) {
            let manifest = Manifest::parse(Some(stored.media_type()), &stored.bytes);
            let manifest = manifest.map_err(|error| Error::ManifestInvalid(error.to_string()))?;
            self.registry.complete_push(repository, referrer, manifest, stored.bytes.clone()).await?;
            return Ok(whole(&register, &written, "written anew from its manifest".to_owned()));
        }
        Ok(whole(&register, &written, "taken out of the list: no such manifest has that subject".to_owned()))
    }

    fn store(&self) -> &dyn Store {
        self.registry.store()
    }
}

type Result = crate::registry::Result<Vec<Mend>>;

/// It is as it should be, if it was written.
fn whole<T: Value>(register: &Register<T>, written: &Written<T>, what: String) -> Vec<Mend> {
    let mend = Mend { key: register.key().clone(), what, is_whole: true };
    if written.is_done() { vec![mend] } else { Vec::new() }
}

/// It is out of the way, if it was written.
fn lost<T: Value>(register: &Register<T>, written: &Written<T>, what: String) -> Vec<Mend> {
    whole(register, written, what).into_iter().map(|mend| Mend { is_whole: false, ..mend }).collect()
}

impl<T> Seen<T> {
    /// It is in quarantine, and not only unreadable.
    fn is_put_away(&self) -> bool {
        self.is_quarantined() && self.nonce().is_some()
    }
}
