//! Takes in one body: hashes it, cuts it into parts, and writes down how far it came.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::{
    Chunk, Progress,
    budget::Grant,
    journal::{Journal, Point},
};
use crate::{
    oci::{Digest, HashState, Hasher},
    registry::{Error, Registry, Result, session::SessionId},
    store::{self, Multipart, Part, Placed},
};

/// How many part numbers a writer claims at a time. Each claim is also a checkpoint: what is lost when a replica dies is
/// at most this many parts.
const CLAIM: u32 = 16;

/// Below this many bytes a rest is not worth a part of its own, where the store takes parts of any size.
const WORTH_A_PART: u64 = 64 << 10;

/// One writer of one session, from a place in it on. Several may race; only one closes.
pub(crate) struct Writer<'a> {
    registry: &'a Registry,
    id: SessionId,
    /// As last read or written.
    journal: Journal,
    /// What was acknowledged when this writer started. Has it moved, then another one won.
    accepted: u64,
    /// The next byte.
    offset: u64,
    hasher: Hasher,
    /// All parts up to `landed`, those before this writer's first included.
    parts: Vec<Part>,
    /// How many of them this writer found.
    found: usize,
    landed: Boundary,
    flying: Option<Flying>,
    /// What is not in a part yet.
    buffer: BytesMut,
    grant: Option<Grant>,
    /// Part numbers that are this writer's alone.
    numbers: Range<u32>,
}

/// A place between two parts.
struct Boundary {
    offset: u64,
    hash: HashState,
}

/// A part under way, and where the session stands when it has landed.
struct Flying {
    part: JoinHandle<store::Result<Placed>>,
    then: Boundary,
}

/// How a body ended.
pub(crate) struct Taken {
    pub(crate) received: u64,
    pub(crate) torn: bool,
}

/// All bytes of a session, as its writer left them.
pub(crate) enum Content {
    /// No part was needed.
    Buffered(Bytes),
    /// `follows`: the tail follows the last part directly, and both are of this writer.
    Parts { upload: Multipart, parts: Vec<Part>, tail: Bytes, follows: bool },
}

impl<'a> Writer<'a> {
    pub(crate) fn new(registry: &'a Registry, id: SessionId, journal: Journal, from: Point, hasher: Hasher) -> Self {
        let accepted = journal.accepted.offset;
        let landed = Boundary { offset: from.offset - from.tail.len() as u64, hash: from.hash };
        Self {
            registry,
            id,
            journal,
            accepted,
            offset: from.offset,
            hasher,
            found: from.parts.len(),
            parts: from.parts,
            landed,
            flying: None,
            buffer: BytesMut::from(from.tail.as_ref()),
            grant: None,
            numbers: 0..0,
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The multipart upload that holds parts of this writer or of those before it.
    pub(crate) fn upload(&self) -> Option<&Multipart> {
        self.journal.upload.as_ref()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    /// Reads a body to its end, or to where it broke off. Full parts go to the store while the next one fills.
    pub(crate) async fn take(&mut self, mut chunk: Chunk) -> Result<Taken> {
        let limit = chunk.declared.or(chunk.length);
        let start = self.offset;
        let mut received = 0;
        while let Some(frame) = chunk.body.next().await {
            let Ok(mut bytes) = frame else { return Ok(Taken { received, torn: true }) };
            received += bytes.len() as u64;
            if let Some(declared) = limit.filter(|&limit| received > limit) {
                return Err(Error::SizeInvalid { declared, received });
            }
            while !bytes.is_empty() {
                let room = self.journal.part - self.buffer.len() as u64;
                if self.grant.is_none() {
                    let expected = limit.map_or(room, |limit| room.min(limit - (self.offset - start)));
                    self.grant = Some(self.registry.budget.grant(expected).await);
                }
                let here = bytes.split_to(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
                self.hasher.update(&here);
                self.offset += here.len() as u64;
                self.buffer.extend_from_slice(&here);
                if self.buffer.len() as u64 == self.journal.part {
                    self.launch().await?;
                }
            }
        }
        match limit {
            Some(declared) if declared != received => Err(Error::SizeInvalid { declared, received }),
            _ => Ok(Taken { received, torn: false }),
        }
    }

    /// Acknowledges all that was taken: parts durable first, record second. `OutOfOrder` if another writer was faster.
    pub(crate) async fn close(mut self) -> Result<(Progress, Journal)> {
        self.flush().await?;
        let tail = self.buffer.split().freeze();
        let accepted = Point { offset: self.offset, parts: self.parts.clone(), hash: self.hasher.save(), tail };
        self.sync().await?;
        // If we stop here the old offset stands, and the parts are what the last checkpoint says.
        loop {
            let mut next = self.journal.next_accepted(accepted.clone(), self.parts.len() == self.found);
            if next.next_part == self.numbers.end && !self.numbers.is_empty() {
                next.next_part = self.numbers.start;
            }
            if self.write(next).await? {
                return Ok((Progress { id: self.id, received: accepted.offset }, self.journal));
            }
        }
    }

    /// After a torn body: writes down what is durable beyond what was acknowledged, for a client that asks. The old
    /// offset stays valid. If this fails, the old offset is all there is, which is true as well.
    pub(crate) async fn keep(mut self) -> Result<()> {
        self.flush().await?;
        self.sync().await?;
        while self.landed.offset > self.journal.received() {
            if self.checkpoint(0).await? {
                break;
            }
        }
        Ok(())
    }

    /// Everything, for the one who finishes the session now.
    pub(crate) async fn content(mut self) -> Result<Content> {
        self.land().await?;
        let tail = self.buffer.split().freeze();
        Ok(match self.journal.upload {
            Some(upload) if !self.parts.is_empty() => {
                Content::Parts { upload, follows: self.parts.len() > self.found, parts: self.parts, tail }
            }
            _ => Content::Buffered(tail),
        })
    }

    /// Makes a part of what is left, where the store takes parts of any size. What is small and would be a part of its own
    /// rides in the journal instead.
    async fn flush(&mut self) -> Result<()> {
        self.land().await?;
        let limits = self.registry.store.limits();
        let least = if self.parts.len() > self.found { limits.min_part } else { limits.min_part.max(WORTH_A_PART) };
        if !limits.uniform_parts && self.buffer.len() as u64 >= least {
            self.launch().await?;
        }
        self.land().await
    }

    /// Sends the buffer off as a part. At most one is under way.
    async fn launch(&mut self) -> Result<()> {
        self.land().await?;
        if self.numbers.is_empty() {
            self.sync().await?;
            while !self.checkpoint(CLAIM).await? {}
        }
        let Some(upload) = self.journal.upload.clone() else { return Err(Error::Busy) };
        let number = self.numbers.start;
        self.numbers.start += 1;
        let previous = self.parts.get(self.found..).and_then(<[Part]>::last).cloned();
        let (store, bytes, grant) = (Arc::clone(&self.registry.store), self.buffer.split().freeze(), self.grant.take());
        let part = tokio::spawn(async move {
            let placed = store.put_part(&upload, number, bytes, previous.as_ref()).await;
            drop(grant);
            placed
        });
        self.flying = Some(Flying { part, then: Boundary { offset: self.offset, hash: self.hasher.save() } });
        Ok(())
    }

    async fn land(&mut self) -> Result<()> {
        let Some(Flying { part, then }) = self.flying.take() else { return Ok(()) };
        match part.await.map_err(|_| Error::Busy)?? {
            Placed::New(part) => self.parts.push(part),
            Placed::Grown(part) => {
                self.parts.pop();
                self.parts.push(part);
            }
        }
        self.landed = then;
        Ok(())
    }

    async fn sync(&self) -> Result<()> {
        match (&self.journal.upload, self.parts.get(self.found..)) {
            (Some(upload), Some(own)) if !own.is_empty() => Ok(self.registry.store.sync_parts(upload, own).await?),
            _ => Ok(()),
        }
    }

    /// Claims part numbers and, if parts have landed, writes down that they have. `false`: another writer's record came
    /// first; look again.
    async fn checkpoint(&mut self, claim: u32) -> Result<bool> {
        let mut next = self.journal.next_same();
        let mut begun = None;
        if next.upload.is_none() {
            // If we stop here the store holds an empty multipart upload that nothing names. On S3 a lifecycle rule ends it.
            let upload = self.registry.begin(self.id).await?;
            begun = Some(upload.clone());
            next.upload = Some(upload);
        }
        if self.landed.offset > next.received() {
            next.ahead = Some(Point {
                offset: self.landed.offset,
                parts: self.parts.clone(),
                hash: self.landed.hash.clone(),
                tail: Bytes::new(),
            });
        }
        // The highest number is the finisher's, for what is left over.
        let last = self.registry.store.limits().max_parts - 1;
        let numbers = next.next_part..next.next_part.saturating_add(claim).min(last);
        if claim > 0 && numbers.is_empty() {
            return Err(Error::UploadInvalid("the blob is larger than the store can take".into()));
        }
        next.next_part = numbers.end.max(next.next_part);
        let claimed = self.write(next).await;
        match (&claimed, begun) {
            (Ok(true), _) => self.numbers = numbers,
            // Somebody else was first: ours was never written down.
            (Ok(false) | Err(Error::UploadUnknown | Error::OutOfOrder(_)), Some(ours)) => {
                self.registry.store.abort(&ours).await?;
            }
            (Ok(false) | Err(_), _) => {}
        }
        claimed
    }

    /// Creates the next record. `false`: another one was there, and the session is still where this writer found it.
    async fn write(&mut self, mut next: Journal) -> Result<bool> {
        next.at = self.registry.now();
        if next.append(self.registry.store(), self.id).await? {
            self.journal = next;
            return Ok(true);
        }
        let now = Journal::load(self.registry.store(), self.id, self.hasher.algorithm()).await?;
        if !now.is_open() {
            return Err(Error::UploadUnknown);
        }
        if now.journal.accepted.offset != self.accepted {
            return Err(Error::OutOfOrder(Progress { id: self.id, received: now.journal.received() }));
        }
        self.journal = now.journal;
        Ok(false)
    }
}
