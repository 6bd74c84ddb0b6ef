//! Where the bytes of a blob that is being published come from.

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join};
use uuid::Uuid;

use super::journal::End;
use crate::{
    oci::{Digest, Hasher},
    registry::{
        Error, Registry, Result, layout,
        nonce::fresh_id,
        once,
        register::{Seen, State, Written},
        session::SessionId,
    },
    store::{self, ErrorKind, Key, Multipart, Part, Placed, Span, Store},
};

pub(crate) enum Source {
    Attempt(Attempt),
    Session(Finish),
}

/// Bytes in memory, put whole under a key of this attempt. Starting again means another key and the bytes once more.
pub(crate) struct Attempt {
    session: SessionId,
    id: Uuid,
    bytes: Bytes,
    /// The end of the session, where a client knows of one.
    end: Option<Ending>,
}

/// The bytes of a session, completed in place. Only who owns the session's end publishes them.
pub(crate) struct Finish {
    upload: Multipart,
    parts: Vec<Part>,
    tail: Bytes,
    /// The tail follows the last part, and both came with this request.
    follows: bool,
    end: Ending,
    /// Nobody has compared the bytes with the digest: read them once when they are complete.
    verify: bool,
    complete: bool,
}

/// A session's end, about to be taken for these bytes.
pub(crate) struct Ending {
    id: SessionId,
    seen: Seen<End>,
    ours: End,
}

impl Source {
    pub(crate) fn attempt(session: SessionId, bytes: Bytes, end: Option<Ending>) -> Self {
        Self::Attempt(Attempt { session, id: fresh_id(), bytes, end })
    }

    /// Parts and what is left over, about to be completed.
    pub(crate) fn parts(upload: Multipart, parts: Vec<Part>, tail: Bytes, follows: bool, end: Ending) -> Self {
        let verify = end.is_unverified();
        Self::Session(Finish { upload, parts, tail, follows, end, verify, complete: false })
    }

    /// Bytes that an earlier finisher completed. What it knew of them died with it, so they are read once.
    pub(crate) fn complete(upload: Multipart, end: Ending) -> Self {
        let (parts, tail) = (Vec::new(), Bytes::new());
        Self::Session(Finish { upload, parts, tail, follows: false, end, verify: true, complete: true })
    }

    pub(crate) fn data_key(&self) -> Key {
        match self {
            Self::Attempt(source) => layout::data(source.session, Some(source.id)),
            Self::Session(source) => source.upload.key.clone(),
        }
    }

    /// Takes the right to publish these bytes. After the reference in flight, never before nor beside it: an expiry takes
    /// the end first and looks for references then, so one of the two sees the other.
    pub(crate) async fn own(&mut self, registry: &Registry) -> Result<()> {
        match self {
            // The bytes are the attempt's own anyhow.
            Self::Attempt(_) => Ok(()),
            Self::Session(source) => source.end.take(registry).await,
        }
    }

    /// Has the bytes at the data key, whole and durable. Whether that took something that need not be done again.
    pub(crate) async fn bring(&mut self, registry: &Registry, digest: &Digest, size: u64) -> Result<bool> {
        match self {
            Self::Attempt(source) => source.bring(registry).await.map(|()| false),
            Self::Session(source) => {
                let news = !source.complete || source.verify;
                if !source.complete {
                    source.complete(registry, size).await?;
                }
                if source.verify {
                    source.read_through(registry, digest).await?;
                }
                Ok(news)
            }
        }
    }

    /// Before the next try, once the registers have been read again.
    pub(crate) async fn restart(&mut self, registry: &Registry) -> Result<()> {
        match self {
            Self::Attempt(source) => source.id = fresh_id(),
            Self::Session(_) => {}
        }
        match self {
            Self::Attempt(Attempt { end: Some(end), .. }) | Self::Session(Finish { end, .. }) => {
                end.seen = layout::end(end.id).read(registry.store()).await?;
            }
            Self::Attempt(Attempt { end: None, .. }) => {}
        }
        Ok(())
    }
}

impl Ending {
    pub(crate) fn new(id: SessionId, seen: Seen<End>, ours: End) -> Self {
        Self { id, seen, ours }
    }

    /// The bytes were hashed by another algorithm on their way in.
    fn is_unverified(&self) -> bool {
        matches!(&self.ours, End::Finished { digest, content } if digest.algorithm() != content.algorithm())
    }

    /// Ends the session for these bytes. A finisher that died is taken over by one that has the same.
    async fn take(&mut self, registry: &Registry) -> Result<()> {
        let register = layout::end(self.id);
        loop {
            match &self.seen.state {
                State::Absent => {}
                State::Live(theirs) if *theirs == self.ours => {}
                _ => return Err(Error::UploadUnknown),
            }
            match register.publish(registry.store(), &self.seen, &self.ours).await? {
                Written::Done(_) => return Ok(()),
                Written::Lost(now) | Written::Unclear(now) => self.seen = now,
            }
        }
    }
}

impl Attempt {
    /// Puts the bytes and, beside that, ends the session: if that is lost to a cancel, nothing is published.
    async fn bring(&mut self, registry: &Registry) -> Result<()> {
        let key = layout::data(self.session, Some(self.id));
        let bytes = async { Ok(once::create(registry.store(), &key, self.bytes.clone()).await?) };
        match &mut self.end {
            Some(end) => try_join(bytes, end.take(registry)).await.map(drop),
            None => bytes.await,
        }
    }
}

impl Finish {
    async fn complete(&mut self, registry: &Registry, size: u64) -> Result<()> {
        let store = &registry.store;
        if !self.tail.is_empty() {
            self.put_tail(store.as_ref()).await?;
        }
        let completed = if self.tail.is_empty() {
            store.complete(&self.upload, &self.parts).await
        } else {
            Err(store::Error::new(ErrorKind::NotFound, format!("upload {}", self.upload.id)))
        };
        if let Err(error) = completed {
            // Perhaps it was completed after all, by us or by a finisher before us: then the bytes are there, and durable, which
            // to read them would not tell.
            if store.head(&self.upload.key).await? != Some(size) {
                return Err(match error.kind {
                    // Another finisher has written the last part anew: one of us two will do it.
                    ErrorKind::Corrupt => Error::Busy,
                    ErrorKind::NotFound
                    | ErrorKind::Unavailable
                    | ErrorKind::Refused
                    | ErrorKind::Throttled
                    | ErrorKind::Full => error.into(),
                });
            }
        }
        // If we stop here the bytes are whole, and the reference in flight and the session's end lead to them.
        self.complete = true;
        Ok(())
    }

    /// Makes the last part of what is left. The highest number is the finisher's: if one that was taken over writes it too,
    /// one of the two fails to complete, since the tag names the bytes. The tail stays where the upload is gone.
    async fn put_tail(&mut self, store: &dyn Store) -> Result<()> {
        let previous = if self.follows { self.parts.last() } else { None };
        match store.put_part(&self.upload, store.limits().max_parts, self.tail.clone(), previous).await {
            Ok(Placed::New(part)) => self.parts.push(part),
            Ok(Placed::Grown(part)) => {
                self.parts.pop();
                self.parts.push(part);
            }
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.tail = Bytes::new();
        Ok(())
    }

    /// Compares the complete bytes with the digest.
    async fn read_through(&mut self, registry: &Registry, digest: &Digest) -> Result<()> {
        let object = registry.store.open(&self.upload.key, Span::ALL).await?.ok_or(Error::UploadUnknown)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut bytes = object.body.into_stream();
        while let Some(bytes) = bytes.next().await {
            hasher.update(&bytes?);
        }
        let actual = hasher.digest();
        if actual != *digest {
            return Err(Error::DigestMismatch { expected: *digest, actual });
        }
        self.verify = false;
        Ok(())
    }
}
