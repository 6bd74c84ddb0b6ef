//! Uploads: sessions whose journal is in the store, so that any replica takes any request of them.

use std::{fmt, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, future::try_join};

use super::{
    Error, Registry, Result, layout,
    register::{Seen, State},
    session::{self, SessionId},
};
use crate::{
    oci::{Digest, Hasher, Repository},
    store::{Causes, Multipart},
};

mod budget;
mod buffers;
mod held;
mod hints;
pub(crate) mod journal;
pub(crate) mod source;
mod spool;
mod writer;

pub(crate) use budget::Budget;
pub use budget::Grant;
pub(crate) use hints::Hints;
use journal::{End, Journal, Point, Read};
use source::{Ending, Source};
use writer::{Content, Taken, Writer};

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

impl Registry {
    /// Where the next byte goes. Changes nothing.
    pub async fn upload_status(&self, repository: &Repository, id: SessionId) -> Result<Progress> {
        let issued = self.session_key.check(repository, id).ok_or(Error::UploadUnknown)?;
        let read = self.load(id, issued).await?;
        // A finish that failed half-way may be sent again, and goes on from where the session stands.
        let goes_on = match read.finished_as() {
            Some(digest) => !self.was_held(repository, &digest).await?,
            None => read.is_open(),
        };
        if goes_on { Ok(Progress { id, received: read.journal.received() }) } else { Err(Error::UploadUnknown) }
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
        let issued = self.session_key.check(repository, id).ok_or(Error::UploadUnknown)?;
        let (this, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        self.run(async move {
            match this.finish_to_the_end(&repository, id, issued, &digest, chunk).await {
                // Ended while we were at it, perhaps by a finish of the same.
                Err(Error::UploadUnknown) => {
                    let read = this.load(id, issued).await?;
                    if this.finished_before(&repository, id, &digest, read).await? {
                        Ok(())
                    } else {
                        Err(Error::UploadUnknown)
                    }
                }
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
            // A session that no client knows of.
            let id = this.start_upload(&repository, digest.algorithm());
            let journal = Journal::new(digest.algorithm(), this.store.limits().part);
            let from = journal.accepted.clone();
            let hasher = from.hasher()?;
            let mut writer = Writer::new(&this, id, journal, from, hasher);
            let taken = writer.take(chunk).await;
            let refused = match taken {
                Ok(Taken { torn: false, .. }) if writer.digest() == digest => {
                    this.publish_content(&repository, id, &digest, writer, None).await?;
                    return Ok(Whole::Stored);
                }
                Ok(Taken { torn: false, received: 0 }) => return Ok(Whole::NothingSent),
                Ok(Taken { torn: false, .. }) => Error::DigestMismatch { expected: digest, actual: writer.digest() },
                Ok(Taken { torn: true, .. }) => Error::BodyTorn,
                Err(error) => error,
            };
            // Nobody can go on with it: what it brought is dropped. If that fails, the expiry does it.
            if let Some(upload) = writer.upload().cloned() {
                drop(writer);
                this.discard(id, Some(&upload), None).await?;
            }
            Err(refused)
        })
        .await
        .map_err(|error| match error {
            // It stood still for so long that its session expired. The client knows of none.
            Error::UploadUnknown => Error::Busy,
            error => error,
        })
    }

    /// Ends a session and drops what it brought.
    pub async fn cancel_upload(self: &Arc<Self>, repository: &Repository, id: SessionId) -> Result<()> {
        let (this, repository) = (Arc::clone(self), repository.clone());
        self.run(async move {
            let issued = this.session_key.check(&repository, id).ok_or(Error::UploadUnknown)?;
            let read = this.load_open(id, issued).await?;
            if this.discard(id, read.journal.upload.as_ref(), None).await? { Ok(()) } else { Err(Error::UploadUnknown) }
        })
        .await
    }

    async fn append_to_the_end(&self, repository: &Repository, id: SessionId, chunk: Chunk) -> Result<Progress> {
        let issued = self.session_key.check(repository, id).ok_or(Error::UploadUnknown)?;
        // A client that says where its chunk begins agrees or disagrees with what we remember. Whether others have written
        // since is decided by the create of the next record; whether the session has ended is asked beside the body.
        let remembered = self.remembered(id).filter(|journal| chunk.start == Some(journal.received()));
        let appended = match remembered {
            Some(journal) => match try_join(self.take_in(id, journal, chunk), self.still_open(id)).await {
                Ok((done, ())) => Ok(done),
                // Once the session has ended, what is wrong with a chunk matters no more.
                Err(refusal) => self.still_open(id).await.and(Err(refusal)),
            },
            None => self.take_in(id, self.load_open(id, issued).await?.journal, chunk).await,
        };
        if appended.is_err() {
            self.sessions.forget(id);
        }
        appended
    }

    async fn take_in(&self, id: SessionId, journal: Journal, chunk: Chunk) -> Result<Progress> {
        check_lengths(&chunk)?;
        let from = starting_point(&journal, id, chunk.start)?;
        let hasher = from.hasher()?;
        let mut writer = Writer::new(self, id, journal, from, hasher);
        let taken = writer.take(chunk).await?;
        if taken.torn {
            return Err(keep_torn(writer).await);
        }
        if taken.received == 0 {
            return Ok(Progress { id, received: writer.offset() });
        }
        let (progress, journal) = writer.close().await?;
        self.sessions.remember(id, journal);
        Ok(progress)
    }

    async fn still_open(&self, id: SessionId) -> Result<()> {
        match layout::end(id).read(self.store()).await?.state {
            State::Absent => Ok(()),
            _ => Err(Error::UploadUnknown),
        }
    }

    async fn finish_to_the_end(
        &self,
        repository: &Repository,
        id: SessionId,
        issued: session::Issued,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<()> {
        let nothing_more = chunk.length == Some(0) && chunk.start.is_none();
        // What we remember hashes to what the client says: then it is the content, whatever came after. Who takes the end
        // decides.
        let remembered = self.remembered(id).filter(|journal| nothing_more && journal.accepted.is(digest));
        let read = match remembered {
            Some(journal) => Read { end: Seen::absent(), journal },
            None => self.load(id, issued).await?,
        };
        if !read.is_open() {
            let takes_over = matches!(&read.end.state, State::Live(End::Finished { digest: it, .. }) if it == digest);
            if self.finished_before(repository, id, digest, read.clone()).await? {
                return Ok(());
            }
            if !takes_over {
                return Err(Error::UploadUnknown);
            }
        }
        check_lengths(&chunk)?;
        let writer = self.take_last(id, read.journal, digest, chunk).await?;
        let (content, upload) = (writer.digest(), writer.upload().cloned());
        if content.algorithm() == digest.algorithm() && content != *digest {
            // Whoever ended it had other bytes: what came after those is not what the client finishes.
            let ours = self.discard(id, upload.as_ref(), None).await?;
            let mismatch = Error::DigestMismatch { expected: *digest, actual: content };
            return Err(if ours { mismatch } else { Error::UploadUnknown });
        }
        let published = self.publish_content(repository, id, digest, writer, Some(read.end)).await;
        if let Err(Error::DigestMismatch { .. }) = published {
            self.discard(id, upload.as_ref(), Some(&End::Finished { digest: *digest, content })).await?;
        }
        published
    }

    /// What is left to do of a finish that did its work, and whose reply was lost; or that died when the bytes were complete,
    /// so that no part can be added any more. `false`: it did not come so far, or was none.
    async fn finished_before(
        &self,
        repository: &Repository,
        id: SessionId,
        digest: &Digest,
        Read { end, journal }: Read,
    ) -> Result<bool> {
        if self.holds(repository, digest).await? {
            return Ok(true);
        }
        let (State::Live(ours @ End::Finished { digest: theirs, .. }), Some(upload)) = (&end.state, journal.upload)
        else {
            return Ok(false);
        };
        let size = self.store().head(&upload.key).await?;
        let Some(size) = size.filter(|_| theirs == digest) else { return Ok(false) };
        let mut source = Source::complete(upload.clone(), Ending::new(id, end.clone(), ours.clone()));
        let published = self.publish_blob(repository, digest, size, &mut source).await;
        if let Err(Error::DigestMismatch { .. }) = published {
            self.discard(id, Some(&upload), Some(ours)).await?;
        }
        published.map(|()| true)
    }

    /// Takes in a session's last bytes.
    async fn take_last(&self, id: SessionId, journal: Journal, digest: &Digest, chunk: Chunk) -> Result<Writer<'_>> {
        let mut from = starting_point(&journal, id, chunk.start)?;
        if let (Some(0), None, Some(ahead)) = (chunk.length, chunk.start, &journal.ahead) {
            // Nothing more comes and two places are possible: the digest says which the client means.
            if !from.is(digest) {
                from = ahead.clone();
            }
        }
        // Nothing hashed yet: then hash what the client asks for.
        let hasher = if from.offset == 0 { Hasher::new(digest.algorithm()) } else { from.hasher()? };
        let mut writer = Writer::new(self, id, journal, from, hasher);
        let taken = writer.take(chunk).await?;
        if taken.torn {
            return Err(keep_torn(writer).await);
        }
        Ok(writer)
    }

    /// Publishes what a writer took in. `end` is that of the session, where a client knows of one.
    async fn publish_content(
        &self,
        repository: &Repository,
        id: SessionId,
        digest: &Digest,
        writer: Writer<'_>,
        end: Option<Seen<End>>,
    ) -> Result<()> {
        let (size, content) = (writer.offset(), writer.digest());
        let ours = End::Finished { digest: *digest, content };
        let mut source = match writer.content().await? {
            Content::Buffered(bytes) => {
                if content.algorithm() != digest.algorithm() {
                    let actual = Digest::of(digest.algorithm(), &bytes);
                    if actual != *digest {
                        return Err(Error::DigestMismatch { expected: *digest, actual });
                    }
                }
                Source::attempt(id, bytes, end.map(|end| Ending::new(id, end, ours)))
            }
            Content::Parts { upload, parts, tail, follows } => {
                let ending = Ending::new(id, end.unwrap_or_else(Seen::absent), ours);
                Source::parts(upload, parts, tail, follows, ending)
            }
        };
        self.publish_blob(repository, digest, size, &mut source).await?;
        self.sessions.forget(id);
        Ok(())
    }

    /// Ends a session without a blob and drops what it brought, unless somebody else has ended it; `owned` is an end that the
    /// caller has taken itself.
    async fn discard(&self, id: SessionId, upload: Option<&Multipart>, owned: Option<&End>) -> Result<bool> {
        self.sessions.forget(id);
        let register = layout::end(id);
        let seen = register.read(self.store()).await?;
        match &seen.state {
            State::Absent => {}
            State::Live(end) if Some(end) == owned => {}
            _ => return Ok(false),
        }
        if !register.publish(self.store(), &seen, &End::Cancelled).await?.is_done() {
            return Ok(false);
        }
        // From here on nobody can publish these bytes. If we stop here, the expiry of the session drops them.
        if let Some(upload) = upload {
            self.store().abort(upload).await?;
        }
        Ok(true)
    }

    /// What this process knows of a session, unless its life is over: its end may have been removed.
    fn remembered(&self, id: SessionId) -> Option<Journal> {
        self.sessions.get(id, &self.budget).filter(|journal| !self.is_over(journal.at))
    }

    async fn load_open(&self, id: SessionId, issued: session::Issued) -> Result<Read> {
        let read = self.load(id, issued).await?;
        if read.is_open() { Ok(read) } else { Err(Error::UploadUnknown) }
    }

    async fn load(&self, id: SessionId, issued: session::Issued) -> Result<Read> {
        let read = Journal::load(self.store(), Some(&self.budget), id, issued.algorithm).await?;
        // The id says when it was issued to a unit, in the client's favour.
        let last = if read.journal.seq == 0 { issued.at + session::UNIT } else { read.journal.at };
        if self.is_over(last) { Err(Error::UploadUnknown) } else { Ok(read) }
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
    let kept = writer.keep().await;
    kept.unwrap_or_else(|error| tracing::debug!(error = %Causes(&error), "what a torn body left is not kept"));
    Error::BodyTorn
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, declared, length, body: _ } = self;
        f.debug_struct("Chunk").field("start", start).field("declared", declared).field("length", length).finish()
    }
}
