//! Blobs: a record says which bytes are a digest, once for the whole store; a holder says that a repository has it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::try_join, stream::BoxStream};
use serde::{Deserialize, Serialize};

use super::{
    Deadline, Error, Registry, Result, gc, layout,
    nonce::timed_id,
    pending::{self, Dropped, DroppedWhat, PendingBlob},
    register::{JsonValue, LIVE_AT_LEAST, Seen, Written},
};
use crate::{
    oci::{Digest, Repository},
    registry::upload::source::Source,
    store::{self, Body, ErrorKind, Key, Span},
};

/// `digest -> bytes`. One per digest, for all repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) size: u64,
    data: String,
}

/// `(digest, repository) -> bytes`. Says the record's words again, so that one read answers existence, right, size and
/// place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) size: u64,
    data: String,
}

impl JsonValue for Record {}
impl JsonValue for Holder {}

/// A blob that a repository holds.
#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
    repository: Repository,
    data: Key,
    condemned: bool,
}

/// How many holders a mount without a source looks at before it gives up.
const ANONYMOUS_CANDIDATES: usize = 8;

impl Record {
    pub(crate) fn new(size: u64, data: &Key) -> Self {
        Self { size, data: data.as_str().to_owned() }
    }

    pub(crate) fn data(&self) -> store::Result<Key> {
        data_key(&self.data)
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder { size: self.size, data: self.data.clone() }
    }
}

impl Holder {
    pub(crate) fn data(&self) -> store::Result<Key> {
        data_key(&self.data)
    }

    pub(crate) fn record(&self) -> Record {
        Record { size: self.size, data: self.data.clone() }
    }

    pub(crate) fn agrees_with(&self, record: &Record) -> bool {
        *self == record.holder()
    }
}

/// The bytes that a record names, also one in quarantine: they are damaged, and kept.
pub(crate) fn bytes_of(record: &Seen<Record>) -> store::Result<Option<Key>> {
    match record.told() {
        Some(record) => record.data().map(Some),
        None if record.is_quarantined() => {
            Err(store::Error::new(ErrorKind::Corrupt, "a record in quarantine does not say which bytes it named"))
        }
        None => Ok(None),
    }
}

impl Registry {
    /// A blob that a client may count on. What is condemned answers as if it were absent: the client uploads it again,
    /// which lifts it, so nobody who was told "exists" finds it gone before the push is over.
    pub async fn stat_blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob> {
        let holder = layout::holder(digest, repository).read(self.store()).await?;
        blob(repository, digest, holder.live(), false)
    }

    /// Whether [`Registry::stat_blob`] finds it.
    pub(crate) async fn holds(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        Ok(layout::holder(digest, repository).read(self.store()).await?.live().is_some())
    }

    /// Whether it is held, or was until a client deleted it.
    pub(crate) async fn was_held(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let holder = layout::holder(digest, repository).read(self.store()).await?;
        Ok(holder.live().is_some() || holder.is_by_client())
    }

    /// A blob to read, also one that is condemned.
    pub async fn find_blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob> {
        let holder = layout::holder(digest, repository).read(self.store()).await?;
        blob(repository, digest, holder.present(), holder.live().is_none())
    }

    /// A URL of the store from which anybody reads the blob for that long. `None`: the store has none, or the collector
    /// may take the bytes sooner. No store call.
    pub async fn blob_url(&self, blob: &Blob, life: Duration) -> Result<Option<String>> {
        if blob.condemned {
            return Ok(None);
        }
        Ok(self.store().presign(&blob.data, life).await?)
    }

    /// The whole blob. If it is damaged the stream ends with an error in the place of its last bytes.
    pub async fn stream_blob(&self, blob: &Blob) -> Result<BoxStream<'static, store::Result<Bytes>>> {
        let bytes = self.read_blob(blob, Span::ALL).await?.into_stream();
        Ok(self.verified.compare(bytes, &blob.data, blob.size, &blob.digest))
    }

    /// A span of it, not compared with anything.
    pub async fn read_blob(&self, blob: &Blob, span: Span) -> Result<Body> {
        match self.store().open(&blob.data, span).await? {
            Some(object) if object.size == blob.size => Ok(object.body),
            found => {
                // Deleted and collected since the holder was read, or else damaged.
                self.find_blob(&blob.repository, &blob.digest).await?;
                let is = found.map_or("absent".to_owned(), |object| format!("{} bytes", object.size));
                let context = format!("{}: {is} instead of {} bytes", blob.data, blob.size);
                Err(store::Error::new(ErrorKind::Corrupt, context).into())
            }
        }
    }

    pub async fn delete_blob(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Result<()> {
        let (this, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        self.run(async move { this.delete_blob_to_the_end(&repository, &digest).await }).await
    }

    async fn delete_blob_to_the_end(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        let register = layout::holder(digest, repository);
        let mut deadline = self.deadline();
        loop {
            let seen = register.read(self.store()).await?;
            if seen.present().is_none() && !seen.is_quarantined() {
                return Err(Error::BlobUnknown(*digest));
            }
            let what = DroppedWhat::Blobs { digests: vec![*digest] };
            // The collector learns of it first. If we stop here it looks, finds the holder, and leaves it.
            Dropped { at: self.now(), repository: repository.clone(), what }.put(self.store(), 0).await?;
            deadline.check()?;
            // Gone in one write, for every replica. The bytes are the collector's business.
            match register.bury(self.store(), &seen, true).await? {
                Written::Done(_) => return Ok(()),
                Written::Lost(_) => deadline.again().await?,
                // Perhaps it was gone and is back by now; one delete does not take both.
                Written::Unclear(_) => return Err(Error::Busy),
            }
        }
    }

    /// Makes `repository` hold a blob that another one holds. `false`: it cannot be done, and nothing has changed.
    pub async fn mount(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
    ) -> Result<bool> {
        let (this, repository, digest, from) = (Arc::clone(self), repository.clone(), *digest, from.cloned());
        self.run(async move {
            let source = match from {
                Some(source) => source,
                None => match this.any_holder(&digest).await? {
                    Some(source) => source,
                    None => return Ok(false),
                },
            };
            this.mount_to_the_end(&repository, &digest, &source).await
        })
        .await
    }

    async fn mount_to_the_end(&self, repository: &Repository, digest: &Digest, source: &Repository) -> Result<bool> {
        let (own, theirs) = (layout::holder(digest, repository), layout::holder(digest, source));
        let mut deadline = self.deadline();
        let mut is_unclear = false;
        loop {
            let over = own.read(self.store()).await?;
            may_be_held_again(&over, is_unclear)?;
            let pending = self.announce(repository, digest, None).await?;
            // From here on no collector that has not condemned the record yet will: it sees the reference in flight.
            let record = layout::record(digest);
            let (held, recorded) = try_join(theirs.read(self.store()), record.read(self.store())).await?;
            // What is held already may be mounted from anywhere.
            let Some(held) = held.live().or(over.live()) else {
                self.drop_later(pending);
                return Ok(false);
            };
            let lifted = record.lift(self.store(), recorded).await?;
            let Some(lifted) = lifted.filter(|record| held.agrees_with(record)) else {
                self.drop_later(pending);
                return Ok(false);
            };
            deadline.check()?;
            // If we stop here nothing is held, and the reference in flight expires.
            match own.publish(self.store(), &over, &lifted.holder()).await? {
                Written::Done(_) => return Ok(true),
                Written::Lost(_) => {}
                Written::Unclear(_) => is_unclear = true,
            }
            deadline.again().await?;
        }
    }

    /// Some repository that holds the blob.
    async fn any_holder(&self, digest: &Digest) -> Result<Option<Repository>> {
        let entries = self.store().list(&layout::holders(digest), None, ANONYMOUS_CANDIDATES + 1).await?;
        for entry in entries.into_iter().filter(|entry| entry.size >= LIVE_AT_LEAST) {
            let Some(layout::Named::Holder(_, repository)) = layout::parse(&entry.key) else { continue };
            if layout::holder(digest, &repository).read(self.store()).await?.live().is_some() {
                return Ok(Some(repository));
            }
        }
        Ok(None)
    }

    /// Publishes a blob: brings its bytes where nobody else has, records them, and makes the repository hold them.
    pub(crate) async fn publish_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        source: &mut Source,
    ) -> Result<()> {
        let register = layout::holder(digest, repository);
        let mut deadline = self.deadline();
        // A new blob is the usual case: both expected absent. Where that is wrong, the write below loses.
        let (mut held, mut recorded) = (Seen::absent(), Seen::absent());
        let mut is_unclear = false;
        loop {
            let data = source.data_key();
            // Protects the fresh blob for the grace period, and leads the collector to bytes that are never published.
            self.announce(repository, digest, Some(&data)).await?;
            source.own(self).await?;
            if let Some(record) = self.settle_record(digest, size, recorded, source, &data, &mut deadline).await? {
                deadline.check()?;
                // If we stop here the record may be new: a blob that nobody holds, which the pending entry leads to.
                match register.publish(self.store(), &held, &record.holder()).await? {
                    Written::Done(_) => return Ok(()),
                    Written::Lost(_) => {}
                    Written::Unclear(_) => is_unclear = true,
                }
            }
            // A twin, a delete, or an expiry was here first. Start again, from the reads.
            deadline.again().await?;
            (held, recorded) = try_join(register.read(self.store()), layout::record(digest).read(self.store())).await?;
            may_be_held_again(&held, is_unclear)?;
            source.restart(self).await?;
        }
    }

    /// The record of a digest: ours over what was seen, or the one that is there. `None`: it went; start again.
    async fn settle_record(
        &self,
        digest: &Digest,
        size: u64,
        seen: Seen<Record>,
        source: &mut Source,
        data: &Key,
        deadline: &mut Deadline,
    ) -> Result<Option<Record>> {
        let register = layout::record(digest);
        if seen.present().is_some() {
            // It was there before our reference in flight was; is it still?
            let now = register.read(self.store()).await?;
            return Ok(register.lift(self.store(), now).await?);
        }
        // Bytes first: if we stop here nothing names them but the reference in flight.
        let news = source.bring(self, digest, size).await?;
        if news && deadline.check().is_err() {
            // Hundreds of gigabytes were read through. What was seen before that is too old to write over; they are there now.
            *deadline = self.deadline();
            return Ok(None);
        }
        deadline.check()?;
        let ours = Record::new(size, data);
        if seen.is_quarantined() {
            self.leave_damaged(digest, &seen).await?;
        }
        match register.publish(self.store(), &seen, &ours).await? {
            Written::Done(_) => Ok(Some(ours)),
            Written::Lost(now) | Written::Unclear(now) => Ok(register.lift(self.store(), now).await?),
        }
    }

    /// Leaves bytes in quarantine to the collector, which takes them when their record names others.
    pub(crate) async fn leave_damaged(&self, digest: &Digest, seen: &Seen<Record>) -> Result<()> {
        if let Some(damaged) = seen.told() {
            let entry = gc::Bytes::new(self.now(), [(*digest, damaged.data()?)]);
            let rest = self.now().saturating_add(self.settings.grace.as_secs());
            pending::put(self.store(), layout::bytes(timed_id(rest)), &entry).await?;
        }
        Ok(())
    }

    /// Whether the repository holds the blob, with its size; lifted if it is condemned.
    pub(crate) async fn lift_holder(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        let register = layout::holder(digest, repository);
        let seen = register.read(self.store()).await?;
        Ok(register.lift(self.store(), seen).await?.map(|holder| holder.size))
    }

    /// Writes a reference in flight.
    pub(crate) async fn announce(&self, repository: &Repository, digest: &Digest, data: Option<&Key>) -> Result<Key> {
        let entry = PendingBlob {
            at: self.now(),
            repository: repository.clone(),
            digest: *digest,
            data: data.map(|data| data.as_str().to_owned()),
        };
        Ok(entry.put(self.store(), self.settings.grace.as_secs()).await?)
    }
}

/// After a write of which nobody knows whether it happened. Perhaps it did, and a client has deleted the blob since: one
/// upload or mount does not undo that. To hold what is held, by a twin's write or its own, undoes nothing.
fn may_be_held_again(holder: &Seen<Holder>, is_unclear: bool) -> Result<()> {
    if is_unclear && holder.present().is_none() { Err(Error::Busy) } else { Ok(()) }
}

fn blob(repository: &Repository, digest: &Digest, holder: Option<&Holder>, condemned: bool) -> Result<Blob> {
    let holder = holder.ok_or(Error::BlobUnknown(*digest))?;
    Ok(Blob { digest: *digest, size: holder.size, repository: repository.clone(), data: holder.data()?, condemned })
}

fn data_key(text: &str) -> store::Result<Key> {
    let key = Key::parse(text);
    key.ok_or_else(|| store::Error::new(ErrorKind::Corrupt, format!("{text:?} is not a data key")))
}
