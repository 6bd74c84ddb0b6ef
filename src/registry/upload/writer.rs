//! Takes in one body: hashes it, cuts it into parts, and writes down how far it came.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::{
    ByteStream, Chunk, Progress, Torn,
    held::Held,
    journal::{Journal, Point},
};
use crate::{
    oci::{Digest, HashState, Hasher},
    registry::{Error, Registry, Result, layout, session::SessionId},
    store::{self, Multipart, Part, Placed},
};

/// How many whole parts a writer uploads between two checkpoints: what is lost when a replica dies is at most this much.
/// Each checkpoint also claims the part numbers up to the next.
const CHECKPOINT: u64 = 16;

/// Below this many bytes a rest is not worth a part of its own, where the store takes parts of any size.
const WORTH_A_PART: u64 = 64 << 10;
/// Where parts may be of any size, bodies that are longer than a part go in pieces of this size: they lengthen each other,
/// and buffers of one small size leave no holes in memory.
const PIECE: u64 = 2 * WORTH_A_PART;

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
    /// It goes on from what was acknowledged, and not from what a torn body left beyond that.
    from_accepted: bool,
    landed: Boundary,
    flying: Option<Flying>,
    /// What is not in a part yet.
    held: Held,
    /// Part numbers that are this writer's alone.
    numbers: Range<u32>,
    /// Up to where the journal knew the parts at the last checkpoint.
    checkpointed: u64,
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
    pub(crate) fn new(
        registry: &'a Registry,
        id: SessionId,
        mut journal: Journal,
        from: Point,
        hasher: Hasher,
    ) -> Self {
        // Where it is needed, `from` has it.
        drop(journal.take_tail());
        let (accepted, part) = (journal.accepted.offset, journal.part);
        let landed = Boundary { offset: from.offset - from.tail.len() as u64, hash: from.hash };
        let checkpointed = landed.offset;
        Self {
            registry,
            id,
            journal,
            accepted,
            offset: from.offset,
            hasher,
            found: from.parts.len(),
            from_accepted: from.offset == accepted,
            parts: from.parts,
            landed,
            flying: None,
            held: Held::new(from.tail, part, registry.store.limits().uniform_parts),
            numbers: 0..0,
            checkpointed,
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
        while let Some(frame) = self.next(&mut chunk.body).await? {
            let Ok(mut bytes) = frame else { return Ok(Taken { received, torn: true }) };
            received += bytes.len() as u64;
            if let Some(declared) = limit.filter(|&limit| received > limit) {
                return Err(Error::SizeInvalid { declared, received });
            }
            while !bytes.is_empty() {
                let room = self.room(limit.map_or(u64::MAX, |limit| limit - (self.offset - start))).await?;
                let here = bytes.split_to(bytes.len().min(room));
                self.hasher.update(&here);
                self.offset += here.len() as u64;
                self.held.extend(here, &self.registry.budget).await?;
                if self.held.len() == self.journal.part {
                    self.launch().await?;
                }
            }
        }
        match limit {
            Some(declared) if declared != received => Err(Error::SizeInvalid { declared, received }),
            _ => Ok(Taken { received, torn: false }),
        }
    }

    /// The next frame of a body. While the client is silent and others wait for memory, it does not keep what can go.
    async fn next(&mut self, body: &mut ByteStream) -> Result<Option<std::result::Result<Bytes, Torn>>> {
        let (limits, budget) = (self.registry.store.limits(), &self.registry.budget);
        while self.held.may_let_go() {
            tokio::select! {
                biased;
                frame = body.next() => return Ok(frame),
                () = self.held.is_in_the_way(budget) => self.held.let_go(budget).await,
            };
        }
        while !limits.uniform_parts && self.held.is_granted() && self.held.len() >= limits.min_part {
            tokio::select! {
                biased;
                frame = body.next() => return Ok(frame),
                () = budget.wanted() => self.launch().await?,
            }
        }
        Ok(body.next().await)
    }

    /// How many bytes can be taken into the buffer now, at least one; `left` is how many may come.
    ///
    /// A writer waits for memory only while it holds none that is not on its way to the store. Where parts may be of any
    /// size it waits for a little, and beyond that takes what nobody else needs; elsewhere it waits for that of a part.
    async fn room(&mut self, left: u64) -> Result<usize> {
        let limits = self.registry.store.limits();
        loop {
            let held = self.held.len();
            let most = held.saturating_add(left);
            // What fits in one buffer needs no parts at all, unless there are some already.
            let pieces = !limits.uniform_parts && (most > self.journal.part || self.journal.upload.is_some());
            let whole = if pieces { PIECE.max(limits.min_part) } else { most.min(self.journal.part) };
            let room = if self.held.is_spooled() { whole.saturating_sub(held) } else { self.held.room() };
            if held >= whole {
                self.launch().await?;
            } else if room > 0 {
                return Ok(usize::try_from(room).unwrap_or(usize::MAX));
            } else if !self.held.is_granted() {
                let first = if limits.uniform_parts { whole } else { whole.min(self.smallest().max(held + 1)) };
                self.held.start(first, &self.registry.budget).await?;
            } else if !self.held.grow(held.min(whole - held), &self.registry.budget) {
                self.launch().await?;
            }
        }
    }

    /// Acknowledges all that was taken: parts durable first, record second. `OutOfOrder` if another writer was faster.
    pub(crate) async fn close(mut self) -> Result<(Progress, Journal)> {
        self.flush().await?;
        // It is remembered for longer than the room that was made for it.
        let tail = self.held.take_to_keep(&self.registry.budget).await?;
        let accepted = Point { offset: self.offset, parts: self.parts.clone(), hash: self.hasher.save(), tail };
        self.sync().await?;
        // If we stop here the old offset stands, and the parts are what the last checkpoint says.
        loop {
            let tail_grew = self.from_accepted && self.parts.len() == self.found;
            let mut next = self.journal.next_accepted(accepted.clone(), tail_grew);
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
        let tail = self.held.take(&self.registry.budget).await?;
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
        let least = if self.parts.len() > self.found { limits.min_part } else { self.smallest() };
        if !limits.uniform_parts && self.held.len() >= least {
            self.launch().await?;
        }
        self.land().await
    }

    /// Sends the buffer off as a part. At most one is under way.
    async fn launch(&mut self) -> Result<()> {
        self.land().await?;
        let since = self.landed.offset - self.checkpointed;
        if self.numbers.is_empty() || since >= self.stride() {
            self.sync().await?;
            while !self.checkpoint(self.claim()).await? {}
            self.checkpointed = self.landed.offset;
        }
        let Some(upload) = self.journal.upload.clone() else { return Err(Error::Busy) };
        let number = self.numbers.start;
        self.numbers.start += 1;
        let previous = self.parts.get(self.found..).and_then(<[Part]>::last).cloned();
        let bytes = self.held.take(&self.registry.budget).await?;
        let store = Arc::clone(&self.registry.store);
        let part = tokio::spawn(async move { store.put_part(&upload, number, bytes, previous.as_ref()).await });
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

    /// The smallest part that is worth it.
    fn smallest(&self) -> u64 {
        let limits = self.registry.store.limits();
        if limits.uniform_parts { self.journal.part } else { limits.min_part.max(WORTH_A_PART) }
    }

    /// How many bytes from one checkpoint to the next.
    fn stride(&self) -> u64 {
        CHECKPOINT.saturating_mul(self.journal.part)
    }

    /// How many part numbers that takes. Should parts be smaller yet, the next checkpoint comes sooner.
    fn claim(&self) -> u32 {
        u32::try_from(self.stride().div_ceil(self.smallest().max(1))).unwrap_or(u32::MAX)
    }

    /// Claims part numbers and, if parts have landed, writes down that they have. `false`: another writer's record came
    /// first; look again.
    async fn checkpoint(&mut self, claim: u32) -> Result<bool> {
        let mut next = self.journal.next_same();
        let mut begun = None;
        if next.upload.is_none() {
            // If we stop here the store holds an empty multipart upload that nothing names. On S3 a lifecycle rule ends it.
            let upload = self.registry.store.begin(&layout::data(self.id, None)).await?;
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
        let finisher = self.registry.store.limits().max_parts;
        let numbers = next.next_part..next.next_part.saturating_add(claim).min(finisher);
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
        let now = Journal::load(self.registry.store(), None, self.id, self.hasher.algorithm()).await?;
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
