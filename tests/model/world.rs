//! The store of the model: one array of words, so that a state is cheap to copy, compare and hash.

use std::fmt;

mod calls;

pub(crate) use calls::*;

/// Everything that a state is: the registers, sets of write-once objects, the write that may still land, where each
/// process stands.
pub(crate) type State = [u32; WORDS];

pub(crate) const WORDS: usize = 54;
pub(crate) const PROCESSES: usize = 8;
/// The word of the first process: where it stands.
pub(crate) const FIRST: usize = WORDS - PROCESSES;
/// How many more store calls may fail.
pub(crate) const FAULTS: usize = 22;
const CATALOG: usize = 23;
const DATA: usize = 16;
const PENDING: usize = 17;
/// Journals, uploads; and the clients who have been told that a blob is there and have not pushed yet.
const SESSIONS: usize = 18;
const TOLD: u8 = 8;
/// A write that failed and may still land: key, value, what it is over.
const LATE: [usize; 3] = [19, 20, 21];
/// Entries by deletes and expiries, and which of them are not due.
const DROPPED: usize = 24;
const RESTING: usize = 25;
/// Entries by collectors: which blobs may not be held any more, which are to be looked at again.
const LEFT: usize = 26;
/// The bytes that each collector is about to delete.
const BYTES: usize = 28;
/// Of each collector, the nonces that it left of two holders; and the clients who may still count on those.
const CONDEMNED: usize = 30;
const COUNT_ON: usize = 38;
/// Of each collector, the nonce of a tombstone that it noted; and who may still mean what was before that.
const TOMBSTONES: usize = 40;
const MAY_MEAN: usize = 44;

/// The last process died before anything ran. What it left is there from the start.
pub(crate) const GHOST: u8 = PROCESSES as u8 - 1;

/// References in flight and attempts are numbered by process and try.
pub(crate) const TRIES: u8 = 3;

/// An object of the store. Two repositories, two blobs, four manifests, two tags, two sessions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Record(u8),
    Holder {
        repo: u8,
        blob: u8,
    },
    Manifest {
        repo: u8,
        manifest: u8,
    },
    Tag(u8),
    /// The entry of manifest [`D`] among the referrers of a subject.
    Entry,
    End(u8),
    Data(u8),
    Pending(u8),
    Journal(u8),
    /// The line of a repository.
    Catalog(u8),
    /// A reference taken away or given up; its number is that of a process and a try.
    Dropped(u8),
    /// Blobs that a collector means to look at again, in the queue of those.
    Again(u8),
    /// And that the repository may have no manifest.
    AgainLine(u8),
    /// Holders that a collector condemned, each with the nonce that says so.
    Condemned(u8),
    /// Blobs that a collector found held no more; and what it says of one of them, which is worked on by itself.
    Unheld(u8),
    UnheldBlob {
        by: u8,
        blob: u8,
    },
    /// Bytes that a collector, or an expiry, is about to delete.
    Bytes(u8),
    /// A tombstone that a collector noted, by its nonce.
    Tombstones(u8),
}

/// An image of blob 0. In both repositories, and the only manifest that may have a subject.
pub(crate) const D: u8 = 0;
/// An image of blobs 0 and 1.
pub(crate) const WIDE: u8 = 1;
/// An index of [`D`].
pub(crate) const INDEX: u8 = 2;
/// Names nothing.
pub(crate) const OTHER: u8 = 3;
pub(crate) const MANIFESTS: u8 = 4;

pub(crate) fn names_blob(manifest: u8, blob: u8) -> bool {
    matches!((manifest, blob), (D | WIDE, 0) | (WIDE, 1))
}

pub(crate) fn names_manifest(manifest: u8, child: u8) -> bool {
    (manifest, child) == (INDEX, D)
}

/// In the body of a tag, beside its manifest: it was set on a condition.
pub(crate) const ON_CONDITION: u8 = 0x80;

/// The manifest that a tag points to.
pub(crate) fn target(tag: Value) -> u8 {
    tag.body() & !ON_CONDITION
}

/// A content of a register: a state, a body (data key, header, target) and a nonce that makes it new. 0: absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Value(pub(crate) u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Is {
    Absent,
    Live,
    Condemned,
    Gone,
    /// Gone because a client deleted it.
    Deleted,
}

impl Value {
    pub(crate) const ABSENT: Self = Self(0);

    pub(crate) fn new(is: Is, body: u8, nonce: u16) -> Self {
        Self(u32::from(nonce) << 16 | u32::from(body) << 8 | is as u32)
    }

    pub(crate) fn is(self) -> Is {
        match self.0 & 0xff {
            0 => Is::Absent,
            1 => Is::Live,
            2 => Is::Condemned,
            3 => Is::Gone,
            _ => Is::Deleted,
        }
    }

    pub(crate) fn body(self) -> u8 {
        (self.0 >> 8) as u8
    }

    pub(crate) fn nonce(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub(crate) fn is_live(self) -> bool {
        self.is() == Is::Live
    }

    /// Live, or condemned and not yet gone.
    pub(crate) fn is_present(self) -> bool {
        matches!(self.is(), Is::Live | Is::Condemned)
    }
}

enum Place {
    Word(usize),
    Bit(usize, u8),
    /// So many bits from this one on, which are the body.
    Field(usize, u8, u8),
    /// A word, or half a word, of nonces.
    Nonces(usize, u8, u8),
    Entry(u8),
    Nowhere,
}

/// Those who may be clients that count on something.
const CLIENTS: u8 = GHOST;

impl Key {
    fn place(self) -> Place {
        match self {
            Self::Record(blob) => Place::Word(usize::from(blob)),
            Self::Holder { repo, blob } => Place::Word(usize::from(2 + repo * 2 + blob)),
            Self::Manifest { repo: 0, manifest } => Place::Word(usize::from(6 + manifest)),
            Self::Manifest { .. } => Place::Word(10),
            Self::Tag(tag) => Place::Word(usize::from(11 + tag)),
            Self::Entry => Place::Word(13),
            Self::End(session) => Place::Word(usize::from(14 + session)),
            Self::Data(id) => Place::Bit(DATA, id),
            Self::Pending(id) => Place::Bit(PENDING, id),
            Self::Journal(session) => Place::Bit(SESSIONS, session),
            Self::Catalog(0) => Place::Word(CATALOG),
            Self::Catalog(_) => Place::Nowhere,
            Self::Dropped(id) => Place::Entry(id),
            Self::Unheld(process) => Place::Field(LEFT, process * 2, 2),
            Self::UnheldBlob { by, blob } => Place::Field(LEFT, by * 2 + blob, 1),
            Self::Again(process) => Place::Field(LEFT + 1, process * 3, 2),
            Self::AgainLine(process) => Place::Field(LEFT + 1, process * 3 + 2, 1),
            Self::Bytes(process) => Place::Field(BYTES + usize::from(process / 4), process % 4 * 8, 8),
            Self::Condemned(process) => Place::Nonces(CONDEMNED + usize::from(process), 0, 32),
            Self::Tombstones(process) => Place::Nonces(TOMBSTONES + usize::from(process / 2), process % 2 * 16, 16),
        }
    }
}

/// The names of write-once objects.
pub(crate) fn of_attempt(process: u8, tries: u8) -> Key {
    Key::Data(4 + process * TRIES + tries)
}

pub(crate) fn of_session(session: u8) -> Key {
    Key::Data(session)
}

/// The bytes that a blob had before anything ran.
pub(crate) fn of_old(blob: u8) -> Key {
    Key::Data(2 + blob)
}

pub(crate) fn pending(process: u8, tries: u8) -> Key {
    Key::Pending(process * TRIES + tries)
}

/// What an entry says that names these bytes.
pub(crate) fn bytes_of(data: Key) -> Value {
    let Key::Data(id) = data else { return Value::ABSENT };
    Value::new(Is::Live, id + 1, 0)
}

pub(crate) fn dropped(process: u8, tries: u8) -> Key {
    Key::Dropped(process * TRIES + tries)
}

pub(crate) fn session_of(data: u8) -> Option<u8> {
    (data < 2).then_some(data)
}

pub(crate) fn get(state: &State, key: Key) -> Value {
    match key.place() {
        Place::Word(at) => Value(state[at]),
        Place::Bit(at, bit) if state[at] >> bit & 1 == 1 => Value::new(Is::Live, 0, 0),
        Place::Field(at, shift, width) => match (state[at] & mask(shift, width)) >> shift {
            0 => Value::ABSENT,
            body => Value::new(Is::Live, body as u8, 0),
        },
        Place::Nonces(at, shift, width) => Value((state[at] & mask(shift, width)) >> shift),
        Place::Entry(id) if state[DROPPED] >> id & 1 == 1 => Value::new(Is::Live, (state[RESTING] >> id & 1) as u8, 0),
        Place::Bit(..) | Place::Entry(_) | Place::Nowhere => Value::ABSENT,
    }
}

fn mask(shift: u8, width: u8) -> u32 {
    (u32::MAX >> (32 - width)) << shift
}

pub(crate) fn set(state: &mut State, key: Key, value: Value) {
    match key.place() {
        Place::Word(at) => state[at] = value.0,
        Place::Bit(at, bit) => {
            state[at] = state[at] & !(1 << bit) | u32::from(value != Value::ABSENT) << bit;
        }
        Place::Field(at, shift, width) => put_bits(state, at, (shift, width), value.body().into()),
        Place::Nonces(at, shift, width) => put_bits(state, at, (shift, width), value.0),
        Place::Entry(id) => {
            put_bits(state, DROPPED, (id, 1), u32::from(value != Value::ABSENT));
            put_bits(state, RESTING, (id, 1), value.body().into());
        }
        Place::Nowhere => {}
    }
}

fn put_bits(state: &mut State, at: usize, (shift, width): (u8, u8), bits: u32) {
    state[at] = state[at] & !mask(shift, width) | bits << shift;
}

/// A client has been told that a blob is there, or has pushed.
fn promise(state: &mut State, client: u8, holds: bool) {
    put_bits(state, SESSIONS, (TOLD + client, 1), u32::from(holds));
}

/// The process is over, or has answered: nothing rests for its sake any more, and nobody may mean what it saw.
pub(crate) fn is_over(state: &mut State, process: u8, writes_no_more: bool) {
    if process >= CLIENTS {
        return;
    }
    promise(state, process, false);
    for entry in 0..=GHOST {
        set_clients(state, COUNT_ON, entry, clients(state, COUNT_ON, entry) & !(1 << process));
        if writes_no_more {
            set_clients(state, MAY_MEAN, entry, clients(state, MAY_MEAN, entry) & !(1 << process));
        }
    }
}

fn clients(state: &State, at: usize, entry: u8) -> u32 {
    state[at + usize::from(entry / 4)] >> (entry % 4 * 8) & mask(0, CLIENTS)
}

fn set_clients(state: &mut State, at: usize, entry: u8, clients: u32) {
    put_bits(state, at + usize::from(entry / 4), (entry % 4 * 8, CLIENTS), clients);
}

/// Time passes: whatever was kept for a while is due.
fn ripen(state: &mut State) {
    state[RESTING] = 0;
}

/// Opens a multipart upload and its journal.
pub(crate) fn open_session(state: &mut State, session: u8) {
    set(state, Key::Journal(session), Value::new(Is::Live, 0, 0));
    state[SESSIONS] |= 1 << (2 + session);
}

fn is_uploading(state: &State, session: u8) -> bool {
    state[SESSIONS] >> (2 + session) & 1 == 1
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(blob) => write!(f, "record {blob}"),
            Self::Holder { repo, blob } => write!(f, "holder {repo}/{blob}"),
            Self::Manifest { repo, manifest } => write!(f, "manifest {repo}/{manifest}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Entry => write!(f, "entry"),
            Self::End(session) => write!(f, "end {session}"),
            Self::Data(id) => write!(f, "data {id}"),
            Self::Pending(id) => write!(f, "pending {}.{}", id / TRIES, id % TRIES),
            Self::Journal(session) => write!(f, "journal {session}"),
            Self::Catalog(repo) => write!(f, "catalog {repo}"),
            Self::Dropped(id) => write!(f, "dropped {}.{}", id / TRIES, id % TRIES),
            Self::AgainLine(of) => write!(f, "again {of}, line"),
            Self::Again(of) => write!(f, "again {of}"),
            Self::Condemned(of) => write!(f, "condemned {of}"),
            Self::Unheld(of) => write!(f, "unheld {of}"),
            Self::UnheldBlob { by, blob } => write!(f, "unheld {by}, blob {blob}"),
            Self::Bytes(of) => write!(f, "bytes {of}"),
            Self::Tombstones(of) => write!(f, "tombstones {of}"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {:x})", self.is(), self.body(), self.nonce())
    }
}
