//! Uploads: sessions whose journal is in the store, so that any replica takes any request of them.

use std::{
    fmt,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, future::try_join};
use lru::LruCache;

use super::{
    Error, Registry, Result, layout,
    register::{Seen, State, Written},
    session::{self, SessionId},
};
use crate::{
    oci::{Algorithm, Digest, Hasher, Repository},
    store::{self, Multipart},
};

mod budget;
pub(crate) mod journal;
pub(crate) mod source;
mod writer;

pub(crate) use budget::Budget;
use journal::{End, Journal, Point, Read};
use source::Source;
use writer::{Content, Writer};

/// A piece of a blob on its way in.
pub struct Chunk {
    /// Where it begins, if the client says.
    pub start: Option<u64>,
    /// How long its range says it is.
    pub declared: Option<u64>,
    /// How long the body says it is.
    pub length: Option<u64>,
    pub body: ByteStream,
}

/// A body. After one [`Torn`] nothing more is read.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, Torn>> + Send>>;

/// The body broke off: the client is gone, or silent for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body broke off")]
pub struct Torn;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub id: SessionId,
    /// How many bytes the client need not send again.
    pub received: u64,
}

/// What became of a blob sent in the request that starts an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    Stored,
    /// There was no body, and the digest is not that of nothing: the client means to go on in a session.
    NothingSent,
}

/// Where sessions stood when this process last wrote to them. Right or wrong: who uses one finds out by a create.
pub(crate) struct Hints(Mutex<LruCache<SessionId, Journal>>);

/// How many sessions are remembered.
const HINTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

impl Registry {
    /// Where the next byte goes. Changes nothing.
    pub async fn upload_status(&self, repository: &Repository, id: SessionId) -> Result<Progress> {
        let read = self.open_session(repository, id).await?;
        Ok(Progress { id, received: read.journal.received() })
    }

    /// Appends a chunk. All of it or, as far as the offset says, none.
    pub async fn append(self: &Arc<Self>, repository: &Repository, id: SessionId, chunk: Chunk) -> Result<Progress> {
        let (this, repository) = (Arc::clone(self), repository.clone());
        self.run(async move { this.append_to_the_end(&repository, id, chunk).await }).await
    }

    /// Appends a last chunk, which may be empty, and publishes the blob.
    pub async fn finish(
        self: &Arc<Self>,
        repository: &Repository,
        id: SessionId,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<()> {
        let (this, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        self.run(async move {
            match this.finish_to_the_end(&repository, id, &digest, chunk).await {
                // The reply to an earlier finish may have been lost: then the blob is here.
                Err(Error::UploadUnknown) => match this.stat_blob(&repository, &digest).await {
                    Ok(_) => Ok(()),
                    Err(Error::BlobUnknown(_)) => Err(Error::UploadUnknown),
                    Err(error) => Err(error),
                },
                done => done,
            }
        })
        .await
    }

    /// Publishes a blob that came whole, in the request that would have started an upload.
    pub async fn upload_whole(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<Whole> {
        let (this, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        self.run(async move {
            let id = SessionId::private();
            let read = Read { end: Seen::absent(), journal: this.new_journal(digest.algorithm()) };
            let (writer, received) = this.take_last(id, &read, &digest, chunk).await?;
            let matches = writer.digest() == digest;
            match received {
                0 if !matches => return Ok(Whole::NothingSent),
                _ if matches => this.publish_content(&repository, id, &digest, writer, None, false).await?,
                _ => return Err(this.refuse(id, &digest, writer.digest()).await),
            }
            Ok(Whole::Stored)
        })
        .await
    }

    /// Ends a session and drops what it brought.
    pub async fn cancel_upload(self: &Arc<Self>, repository: &Repository, id: SessionId) -> Result<()> {
        let (this, repository) = (Arc::clone(self), repository.clone());
        self.run(async move {
            let read = this.open_session(&repository, id).await?;
            if !this.end_session(id, &read.end, &End::Cancelled).await? {
                return Err(Error::UploadUnknown);
            }
            // From here on nobody can publish these bytes. If we stop here, the expiry of the session drops them.
            if let Some(upload) = read.journal.upload {
                this.store().abort(&upload).await?;
            }
            Ok(())
        })
        .await
    }

    async fn append_to_the_end(&self, repository: &Repository, id: SessionId, chunk: Chunk) -> Result<Progress> {
        let issued = self.session_key.check(repository, id).ok_or(Error::UploadUnknown)?;
        // A client that says where its chunk begins agrees or disagrees with what we remember; the create below decides.
        let remembered = self.sessions.get(id).filter(|journal| chunk.start == Some(journal.received()));
        let journal = match remembered {
            Some(journal) => journal,
            None => self.load_open(id, issued).await?.journal,
        };
        check_lengths(&chunk)?;
        let from = starting_point(&journal, id, chunk.start)?;
        let hasher = from.hasher()?;
        let mut writer = Writer::new(self, id, journal, from, hasher);
        let taken = writer.take(chunk).await?;
        if taken.torn {
            self.sessions.forget(id);
            return Err(keep_torn(writer).await);
        }
        if taken.received == 0 {
            return Ok(Progress { id, received: writer.offset() });
        }
        let closed = writer.close().await;
        match closed {
            Ok((progress, journal)) => {
                self.sessions.remember(id, journal);
                Ok(progress)
            }
            Err(error) => {
                self.sessions.forget(id);
                Err(error)
            }
        }
    }

    async fn finish_to_the_end(
        &self,
        repository: &Repository,
        id: SessionId,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<()> {
        let issued = self.session_key.check(repository, id).ok_or(Error::UploadUnknown)?;
        let nothing_more = chunk.length == Some(0) && chunk.start.is_none();
        let read = self.load_to_finish(id, issued, digest, nothing_more).await?;
        check_lengths(&chunk)?;
        let (writer, _) = self.take_last(id, &read, digest, chunk).await?;
        let actual = writer.digest();
        let verify = actual.algorithm() != digest.algorithm();
        if !verify && actual != *digest {
            return Err(self.refuse(id, digest, actual).await);
        }
        match self.publish_content(repository, id, digest, writer, Some(read.end), verify).await {
            Err(Error::DigestMismatch { actual, .. }) => Err(self.refuse(id, digest, actual).await),
            done => done,
        }
    }

    /// Takes in a session's last bytes.
    async fn take_last(&self, id: SessionId, read: &Read, digest: &Digest, chunk: Chunk) -> Result<(Writer<'_>, u64)> {
        let mut from = starting_point(&read.journal, id, chunk.start)?;
        if let (Some(0), None, Some(ahead)) = (chunk.length, chunk.start, &read.journal.ahead) {
            // Nothing more comes and two places are possible: the digest says which the client means.
            if !from.is(digest) {
                from = ahead.clone();
            }
        }
        // Nothing hashed yet: then hash what the client asks for.
        let hasher = if from.offset == 0 { Hasher::new(digest.algorithm()) } else { from.hasher()? };
        let mut writer = Writer::new(self, id, read.journal.clone(), from, hasher);
        let taken = writer.take(chunk).await?;
        if taken.torn {
            return Err(keep_torn(writer).await);
        }
        Ok((writer, taken.received))
    }

    /// Publishes what a writer took in. `end` is that of the session, where a client knows of one.
    async fn publish_content(
        &self,
        repository: &Repository,
        id: SessionId,
        digest: &Digest,
        writer: Writer<'_>,
        end: Option<Seen<End>>,
        verify: bool,
    ) -> Result<()> {
        let size = writer.offset();
        match writer.content().await? {
            Content::Buffered(bytes) => {
                if verify {
                    let actual = Digest::of(digest.algorithm(), &bytes);
                    if actual != *digest {
                        return Err(Error::DigestMismatch { expected: *digest, actual });
                    }
                }
                let mut source = Source::attempt(id, bytes);
                let close = async {
                    // Nobody waits for this end: the bytes are the attempt's own. It only closes the client's session.
                    let Some(end) = end else { return Ok(()) };
                    self.end_session(id, &end, &End::Finished { digest: *digest }).await.map(drop)
                };
                try_join(self.publish_blob(repository, digest, size, &mut source), close).await?;
            }
            Content::Parts { upload, parts, tail } => {
                let end = end.unwrap_or_else(Seen::absent);
                let mut source = Source::session_of(id, (upload, parts, tail), end, verify);
                self.publish_blob(repository, digest, size, &mut source).await?;
            }
        }
        self.sessions.forget(id);
        Ok(())
    }

    /// The content is not what the client said: the session is over and its bytes are dropped.
    async fn refuse(&self, id: SessionId, expected: &Digest, actual: Digest) -> Error {
        self.sessions.forget(id);
        let discard = async {
            let end = layout::end(id).read(self.store()).await?;
            self.end_session(id, &end, &End::Cancelled).await
        };
        match discard.await {
            Ok(_) => Error::DigestMismatch { expected: *expected, actual },
            Err(error) => error,
        }
    }

    /// Ends a session over what was seen of its end. `false`: somebody else has.
    async fn end_session(&self, id: SessionId, over: &Seen<End>, end: &End) -> Result<bool> {
        match layout::end(id).publish(self.store(), over, end).await? {
            Written::Done => Ok(true),
            Written::Lost(_) | Written::Unclear(_) => Ok(false),
        }
    }

    async fn open_session(&self, repository: &Repository, id: SessionId) -> Result<Read> {
        let issued = self.session_key.check(repository, id).ok_or(Error::UploadUnknown)?;
        self.load_open(id, issued).await
    }

    async fn load_open(&self, id: SessionId, issued: session::Issued) -> Result<Read> {
        let read = self.load(id, issued).await?;
        if read.is_open() { Ok(read) } else { Err(Error::UploadUnknown) }
    }

    async fn load(&self, id: SessionId, issued: session::Issued) -> Result<Read> {
        let read = Journal::load(self.store(), id, issued.algorithm).await?;
        let life = self.settings.upload_expiry.as_secs();
        // The id says when it was issued to a unit, in the client's favour.
        let last = if read.journal.seq == 0 { issued.at + session::UNIT } else { read.journal.at };
        if last.saturating_add(life) < self.now() {
            return Err(Error::UploadUnknown);
        }
        Ok(read)
    }

    /// The session to finish: open, or being finished as this very digest by somebody who may be dead.
    async fn load_to_finish(
        &self,
        id: SessionId,
        issued: session::Issued,
        digest: &Digest,
        nothing_more: bool,
    ) -> Result<Read> {
        if nothing_more {
            // What we remember hashes to what the client says: then it is the content, whatever came after. Who owns the
            // end decides.
            if let Some(journal) = self.sessions.get(id).filter(|journal| journal.accepted.is(digest)) {
                return Ok(Read { end: Seen::absent(), journal });
            }
        }
        let read = self.load(id, issued).await?;
        match &read.end.state {
            State::Absent => Ok(read),
            State::Live(End::Finished { digest: theirs }) if theirs == digest => Ok(read),
            _ => Err(Error::UploadUnknown),
        }
    }

    fn new_journal(&self, algorithm: Algorithm) -> Journal {
        Journal::new(algorithm, self.store.limits().part)
    }

    async fn begin(&self, id: SessionId) -> store::Result<Multipart> {
        self.store.begin(&layout::data(id, None)).await
    }
}

/// Where a chunk goes: at what was acknowledged or, if it says so, at what a torn body left beyond that.
fn starting_point(journal: &Journal, id: SessionId, start: Option<u64>) -> Result<Point> {
    match (start, &journal.ahead) {
        (None, _) => Ok(journal.accepted.clone()),
        (Some(start), _) if start == journal.accepted.offset => Ok(journal.accepted.clone()),
        (Some(start), Some(ahead)) if start == ahead.offset => Ok(ahead.clone()),
        (Some(_), _) => Err(Error::OutOfOrder(Progress { id, received: journal.received() })),
    }
}

fn check_lengths(chunk: &Chunk) -> Result<()> {
    match (chunk.declared, chunk.length) {
        (Some(declared), Some(received)) if declared != received => Err(Error::SizeInvalid { declared, received }),
        _ => Ok(()),
    }
}

/// The client is gone: what it left is written down for its return. Failing that, it starts from the old offset.
async fn keep_torn(writer: Writer<'_>) -> Error {
    if let Err(error) = writer.keep().await {
        tracing::debug!(%error, "what a torn body left is not kept");
    }
    Error::BodyTorn
}

impl Hints {
    fn get(&self, id: SessionId) -> Option<Journal> {
        self.lock().get(&id).cloned()
    }

    fn remember(&self, id: SessionId, journal: Journal) {
        self.lock().put(id, journal);
    }

    fn forget(&self, id: SessionId) {
        self.lock().pop(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<SessionId, Journal>> {
        // Hints only: whatever a panicking holder left is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Hints {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(HINTS)))
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, declared, length, body: _ } = self;
        f.debug_struct("Chunk").field("start", start).field("declared", declared).field("length", length).finish()
    }
}
