//! Where the bytes of a blob that is being published come from.

use bytes::Bytes;
use futures_util::StreamExt;
use uuid::Uuid;

use super::journal::End;
use crate::{
    oci::{Digest, Hasher},
    registry::{
        Error, Registry, Result, layout,
        nonce::fresh_id,
        register::{Seen, State, Written},
        session::SessionId,
    },
    store::{Condition, ErrorKind, Key, Multipart, Part, Span},
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
}

/// The bytes of a session, completed in place. Only who owns the session's end publishes them.
pub(crate) struct Finish {
    id: SessionId,
    upload: Multipart,
    parts: Vec<Part>,
    tail: Bytes,
    end: Seen<End>,
    /// The digest is of an algorithm that was not hashed on the way in: read the bytes once when they are complete.
    verify: bool,
    complete: bool,
}

impl Source {
    pub(crate) fn attempt(session: SessionId, bytes: Bytes) -> Self {
        Self::Attempt(Attempt { session, id: fresh_id(), bytes })
    }

    pub(crate) fn session_of(
        id: SessionId,
        (upload, parts, tail): (Multipart, Vec<Part>, Bytes),
        end: Seen<End>,
        verify: bool,
    ) -> Self {
        Self::Session(Finish { id, upload, parts, tail, end, verify, complete: false })
    }

    pub(crate) fn data_key(&self) -> Key {
        match self {
            Self::Attempt(source) => layout::data(source.session, Some(source.id)),
            Self::Session(source) => source.upload.key.clone(),
        }
    }

    /// The session whose end decides over these bytes.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Attempt(_) => None,
            Self::Session(source) => Some(source.id),
        }
    }

    /// Takes the right to publish these bytes. After the reference in flight, never before nor beside it: an expiry takes
    /// the end first and looks for references then, so one of the two sees the other.
    pub(crate) async fn own(&mut self, registry: &Registry, digest: &Digest) -> Result<()> {
        let Self::Session(source) = self else { return Ok(()) };
        let register = layout::end(source.id);
        loop {
            // A finisher that died is taken over by one that says the same digest: the bytes are the same.
            match &source.end.state {
                State::Absent => {}
                State::Live(End::Finished { digest: theirs }) if theirs == digest => {}
                _ => return Err(Error::UploadUnknown),
            }
            let ours = End::Finished { digest: *digest };
            match register.publish(registry.store(), &source.end, &ours).await? {
                Written::Done => return Ok(()),
                Written::Lost(now) | Written::Unclear(now) => source.end = now,
            }
        }
    }

    /// Has the bytes at the data key, whole and durable.
    pub(crate) async fn bring(&mut self, registry: &Registry, digest: &Digest, size: u64) -> Result<()> {
        match self {
            Self::Attempt(source) => {
                let key = layout::data(source.session, Some(source.id));
                // An uncertain put is simply put again: nobody else uses this name.
                match registry.store.put(&key, source.bytes.clone(), Condition::Create).await {
                    Err(error) if error.kind == ErrorKind::Unavailable => {
                        registry.store.put(&key, source.bytes.clone(), Condition::Create).await?;
                    }
                    done => drop(done?),
                }
                Ok(())
            }
            Self::Session(source) => source.complete(registry, digest, size).await,
        }
    }

    /// Before the next try, once the registers have been read again.
    pub(crate) async fn restart(&mut self, registry: &Registry) -> Result<()> {
        match self {
            Self::Attempt(source) => source.id = fresh_id(),
            Self::Session(source) => source.end = layout::end(source.id).read(registry.store()).await?,
        }
        Ok(())
    }
}

impl Finish {
    async fn complete(&mut self, registry: &Registry, digest: &Digest, size: u64) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        let store = &registry.store;
        if !self.tail.is_empty() {
            // The highest number is the finisher's. If a finisher that was taken over writes it too, one of the two
            // fails to complete: the tag names the bytes.
            let number = store.limits().max_parts;
            match store.put_part(&self.upload, number, self.tail.clone(), None).await {
                Ok(crate::store::Placed::New(part) | crate::store::Placed::Grown(part)) => {
                    self.parts.push(part);
                    self.tail = Bytes::new();
                }
                // Completed by a finisher before us: the look below says so.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Err(error) = store.complete(&self.upload, &self.parts).await {
            // Perhaps it was completed after all, by us or by a finisher before us: then the bytes are there.
            if store.head(&self.upload.key).await? != Some(size) {
                return Err(error.into());
            }
        }
        // If we stop here the bytes are whole, and the reference in flight and the session's end lead to them.
        self.complete = true;
        if self.verify { self.read_through(registry, digest).await } else { Ok(()) }
    }

    /// Hashes the complete bytes in the algorithm that the client named only now.
    async fn read_through(&self, registry: &Registry, digest: &Digest) -> Result<()> {
        let object = registry.store.open(&self.upload.key, Span::ALL).await?.ok_or(Error::UploadUnknown)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut bytes = object.body.into_stream();
        while let Some(bytes) = bytes.next().await {
            hasher.update(&bytes?);
        }
        let actual = hasher.digest();
        if actual == *digest { Ok(()) } else { Err(Error::DigestMismatch { expected: *digest, actual }) }
    }
}
