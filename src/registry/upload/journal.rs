//! The journal of an open session. Record *n + 1* is created, never overwritten: of two writers one wins.

use std::mem;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::budget::{Budget, Grant};
use crate::{
    oci::{Algorithm, Digest, HashState, Hasher},
    registry::{
        layout,
        nonce::Nonce,
        register::{JsonValue, Seen, State},
        session::SessionId,
    },
    store::{self, Condition, Entry, Error, ErrorKind, Multipart, Part, Put, Store},
};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

/// Where a session stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The number of the latest record; 0 before the first.
    #[serde(skip)]
    pub(crate) seq: u64,
    /// When it was written, in seconds since the epoch.
    pub(crate) at: u64,
    /// The multipart upload that holds the parts, once there is one.
    pub(crate) upload: Option<Multipart>,
    /// The size of its parts, the same from the first to the last but one.
    pub(crate) part: u64,
    /// The first part number that nobody has claimed.
    pub(crate) next_part: u32,
    /// What was acknowledged.
    pub(crate) accepted: Point,
    /// The earlier records whose pieces, and then this one's own, make up the tail of that: no byte is written to the
    /// journal with every record anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tail_in: Vec<u64>,
    /// How much of the tail the earlier records hold.
    #[serde(default, skip_serializing_if = "is_zero")]
    tail_before: usize,
    /// What a body that broke off left durable beyond that. A client may go on from here, or send it all again.
    pub(crate) ahead: Option<Point>,
}

/// A place in a session's bytes, and all that is needed to go on from there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) offset: u64,
    pub(crate) parts: Vec<Part>,
    /// The running hash of all bytes before `offset`. It never outlives them: parts are durable before the record is.
    pub(crate) hash: HashState,
    /// The last bytes before `offset`, too few for a part.
    #[serde(skip)]
    pub(crate) tail: Bytes,
}

/// In how many records a tail may be scattered: more reads than this are not worth writing it once less.
const MAX_PIECES: usize = 16;

/// Who ended a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum End {
    /// Its bytes are, or are about to be, published as this digest. `content` is what the finisher hashed on their way in:
    /// who takes over a finisher that died must have the same bytes.
    Finished { digest: Digest, content: Digest },
    /// Cancelled by the client, or discarded because its content was not what the client said.
    Cancelled,
    /// Nobody worked on it for too long. The digest is that of the finisher who owned it until then.
    Expired { at: u64, digest: Option<Digest> },
}

impl JsonValue for End {}

/// A session as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) end: Seen<End>,
    pub(crate) journal: Journal,
}

#[derive(Serialize, Deserialize)]
struct Header {
    nonce: String,
    #[serde(flatten)]
    journal: Journal,
}

impl Journal {
    pub(crate) fn new(algorithm: Algorithm, part: u64) -> Self {
        let accepted = Point { offset: 0, parts: Vec::new(), hash: Hasher::new(algorithm).save(), tail: Bytes::new() };
        Self {
            seq: 0,
            at: 0,
            upload: None,
            part,
            next_part: 1,
            accepted,
            tail_in: Vec::new(),
            tail_before: 0,
            ahead: None,
        }
    }

    /// How far the bytes reach that a client need not send again.
    pub(crate) fn received(&self) -> u64 {
        self.ahead.as_ref().unwrap_or(&self.accepted).offset
    }

    /// Reads a session's end and latest record; a list tells which these are, since the newest sort first. Its tail holds
    /// what was granted for it, but where there is no budget: who holds memory must not wait for more.
    pub(crate) async fn load(
        store: &dyn Store,
        budget: Option<&Budget>,
        id: SessionId,
        algorithm: Algorithm,
    ) -> store::Result<Read> {
        let entries = store.list(&layout::session(id), None, 2).await?;
        let mut read = Read { end: Seen::absent(), journal: Self::new(algorithm, store.limits().part) };
        for entry in entries {
            match layout::parse(&entry.key) {
                Some(layout::Named::End(_)) => read.end = layout::end(id).read(store).await?,
                Some(layout::Named::Journal(_, seq)) => {
                    let Some((journal, grant)) = Self::read(store, budget, id, seq, entry.size).await? else {
                        // Removed since it was listed: the session has expired, which its end says by now.
                        read.end = layout::end(id).read(store).await?;
                        break;
                    };
                    read.journal = journal;
                    if !read.journal.fetch_tail(store, id, grant).await? {
                        read.end = layout::end(id).read(store).await?;
                        if read.is_open() {
                            return Err(corrupt(id, seq));
                        }
                    }
                    if read.journal.accepted.offset < read.journal.accepted.tail.len() as u64 {
                        return Err(corrupt(id, seq));
                    }
                    break;
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// One record, and memory for its whole tail.
    async fn read(
        store: &dyn Store,
        budget: Option<&Budget>,
        id: SessionId,
        seq: u64,
        size: u64,
    ) -> store::Result<Option<(Self, Option<Grant>)>> {
        // What cannot be looked at can hardly be read: memory for it would be waited for in vain.
        let mut needed = if size == Entry::UNKNOWN { 0 } else { size };
        loop {
            // It waits with nothing in its hands.
            let mut grant = match budget {
                Some(budget) => Some(budget.grant(needed).await),
                None => None,
            };
            let Some(found) = store.read(&layout::journal(id, seq)).await? else { return Ok(None) };
            let journal = Self::decode(seq, &found.bytes).ok_or_else(|| corrupt(id, seq))?.1;
            let whole = (found.bytes.len() as u64).saturating_add(journal.tail_before as u64);
            if whole <= needed || grant.as_mut().is_none_or(|grant| grant.grow(whole - needed)) {
                return Ok(Some((journal, grant)));
            }
            needed = whole;
        }
    }

    /// The tail, for the one who goes on from it. The records know where it is.
    pub(crate) fn take_tail(&mut self) -> Bytes {
        let tail = mem::take(&mut self.accepted.tail);
        if tail.len() > self.tail_before {
            self.tail_in.push(self.seq);
            self.tail_before = tail.len();
        }
        tail
    }

    /// The record after this one, with the same bytes acknowledged.
    pub(crate) fn next_same(&self) -> Self {
        let mut next = self.clone();
        next.take_tail();
        next
    }

    /// The record after this one, with these bytes acknowledged. `tail_grew`: its tail is the present one and more.
    pub(crate) fn next_accepted(&self, accepted: Point, tail_grew: bool) -> Self {
        let mut next = self.next_same();
        if !tail_grew || next.tail_in.len() >= MAX_PIECES {
            next.tail_in.clear();
            next.tail_before = 0;
        }
        Self { accepted, ahead: None, ..next }
    }

    /// Gathers the pieces of the tail. `false`: one is gone.
    async fn fetch_tail(&mut self, store: &dyn Store, id: SessionId, grant: Option<Grant>) -> store::Result<bool> {
        let pieces = self.tail_in.iter().map(|&seq| async move {
            let Some(found) = store.read(&layout::journal(id, seq)).await? else { return Ok(None) };
            let record = Self::decode(seq, &found.bytes).ok_or_else(|| corrupt(id, seq))?.1;
            Ok::<_, Error>(Some(record.accepted.tail))
        });
        let Some(pieces) = try_join_all(pieces).await?.into_iter().collect::<Option<Vec<Bytes>>>() else {
            return Ok(false);
        };
        if !pieces.is_empty() {
            let whole: Vec<Bytes> = pieces.into_iter().chain([self.accepted.tail.clone()]).collect();
            self.accepted.tail = whole.concat().into();
        }
        if let Some(grant) = grant.filter(|_| !self.accepted.tail.is_empty()) {
            self.accepted.tail = grant.hold(mem::take(&mut self.accepted.tail));
        }
        Ok(true)
    }

    /// Creates the record after this one. `false`: somebody else created it; nothing was written.
    pub(crate) async fn append(&mut self, store: &dyn Store, id: SessionId) -> store::Result<bool> {
        let seq = self.seq + 1;
        let key = layout::journal(id, seq);
        let nonce = Nonce::fresh().to_string();
        let bytes = self.encode(&nonce).map_err(|error| corrupt(id, seq).with_source(error))?;
        let mine = match store.put(&key, bytes.clone(), Condition::Create).await {
            Ok(Put::Stored(_)) => true,
            // Either somebody else's, or our own, sent twice.
            Ok(Put::Lost) => Self::is_mine(store, id, seq, &nonce).await?,
            // Once more, also if it is there: only then it is durable.
            Err(error) if error.kind.is_transient() => {
                matches!(store.put(&key, bytes, Condition::Create).await?, Put::Stored(_))
                    || Self::is_mine(store, id, seq, &nonce).await?
            }
            Err(error) => return Err(error),
        };
        if mine {
            self.seq = seq;
        }
        Ok(mine)
    }

    /// Whether the record that is there is ours.
    async fn is_mine(store: &dyn Store, id: SessionId, seq: u64, nonce: &str) -> store::Result<bool> {
        let Some(found) = store.read(&layout::journal(id, seq)).await? else { return Ok(false) };
        let (written_by, _) = Self::decode(seq, &found.bytes).ok_or_else(|| corrupt(id, seq))?;
        Ok(written_by == nonce)
    }

    fn encode(&self, nonce: &str) -> Result<Bytes, serde_json::Error> {
        let mut bytes = BytesMut::new();
        let header = Header { nonce: nonce.to_owned(), journal: self.clone() };
        serde_json::to_writer((&mut bytes).writer(), &header)?;
        bytes.put_u8(b'\n');
        bytes.put_slice(self.accepted.tail.get(self.tail_before..).unwrap_or_default());
        Ok(bytes.freeze())
    }

    pub(crate) fn decode(seq: u64, bytes: &Bytes) -> Option<(String, Self)> {
        let line = bytes.iter().position(|&b| b == b'\n')?;
        let Header { nonce, mut journal } = serde_json::from_slice(bytes.get(..line)?).ok()?;
        journal.seq = seq;
        journal.accepted.tail = bytes.slice(line + 1..);
        Some((nonce, journal))
    }
}

impl Point {
    /// The running hash, or `Corrupt` where it cannot be taken up again.
    pub(crate) fn hasher(&self) -> store::Result<Hasher> {
        let restored = self.hash.restore();
        restored.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a session's hash state is of another version"))
    }

    /// Whether the bytes up to here have this digest.
    pub(crate) fn is(&self, digest: &Digest) -> bool {
        self.hash.restore().is_some_and(|hasher| hasher.digest() == *digest)
    }
}

impl Read {
    /// Whether the session takes more bytes.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.end.state, State::Absent)
    }

    /// What the session was, or is about to be, published as.
    pub(crate) fn finished_as(&self) -> Option<Digest> {
        match &self.end.state {
            State::Live(End::Finished { digest, .. }) => Some(*digest),
            _ => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn corrupt(id: SessionId, seq: u64) -> Error {
    Error::new(ErrorKind::Corrupt, format!("record {seq} of upload {id}"))
}
