//! The store of the model: one array of words, so that a state is cheap to copy, compare and hash.

use std::fmt;

use crate::process::Announced;

/// Everything that a state is: the registers, sets of write-once objects, the write that may still land, where each
/// process stands.
pub(crate) type State = [u32; WORDS];

pub(crate) const WORDS: usize = 30;
pub(crate) const PROCESSES: usize = 6;
/// The word of the first process: where it stands.
pub(crate) const FIRST: usize = WORDS - PROCESSES;
/// How many more store calls may fail.
pub(crate) const FAULTS: usize = 22;
const DATA: usize = 16;
const PENDING: usize = 17;
const SESSIONS: usize = 18;
/// A write that failed and may still land: key, value, what it is over.
const LATE: [usize; 3] = [19, 20, 21];

/// References in flight and attempts are numbered by process and try.
pub(crate) const TRIES: u8 = 4;

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
    Catalog,
    /// What nobody in the model reads.
    Dropped,
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

/// One call of the store, as a process makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Read(Key),
    /// A read that tells apart what is live by its body only: states that differ in nothing else are one.
    Look(Key),
    Head(Key),
    Open(Key),
    Put {
        key: Key,
        value: Value,
        over: Value,
    },
    Delete(Key),
    List(List),
    /// The last bytes of a session that are too few for a part of their own size.
    PutPart(u8),
    Complete(u8),
    Abort(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum List {
    PendingBlobs(u8),
    PendingManifests(u8),
    Manifests(u8),
    Holders(u8),
    Session(u8),
}

/// What a write answers; a read answers a [`Value`], a list a set of bits.
pub(crate) const LOST: u32 = 0;
pub(crate) const STORED: u32 = 1;
pub(crate) const FAILED: u32 = 2;

enum Place {
    Word(usize),
    Bit(usize, u8),
    Nowhere,
}

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
            Self::Catalog => Place::Bit(SESSIONS, 4),
            Self::Dropped => Place::Nowhere,
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

pub(crate) fn session_of(data: u8) -> Option<u8> {
    (data < 2).then_some(data)
}

pub(crate) fn get(state: &State, key: Key) -> Value {
    match key.place() {
        Place::Word(at) => Value(state[at]),
        Place::Bit(at, bit) if state[at] >> bit & 1 == 1 => Value::new(Is::Live, 0, 0),
        Place::Bit(..) | Place::Nowhere => Value::ABSENT,
    }
}

pub(crate) fn set(state: &mut State, key: Key, value: Value) {
    match key.place() {
        Place::Word(at) => state[at] = value.0,
        Place::Bit(at, bit) => {
            state[at] = state[at] & !(1 << bit) | u32::from(value != Value::ABSENT) << bit;
        }
        Place::Nowhere => {}
    }
}

/// Opens a multipart upload and its journal.
pub(crate) fn open_session(state: &mut State, session: u8) {
    set(state, Key::Journal(session), Value::new(Is::Live, 0, 0));
    state[SESSIONS] |= 1 << (2 + session);
}

fn is_uploading(state: &State, session: u8) -> bool {
    state[SESSIONS] >> (2 + session) & 1 == 1
}

/// What the store does with a call.
pub(crate) fn apply(state: &mut State, call: Call, announced: &[Announced]) -> u32 {
    match call {
        Call::Read(key) | Call::Head(key) | Call::Open(key) => get(state, key).0,
        Call::Look(key) => {
            let found = get(state, key);
            if found.is_live() { Value::new(Is::Live, found.body(), 0).0 } else { found.0 }
        }
        Call::Put { key, value, over } => {
            let holds = get(state, key) == over;
            if holds {
                set(state, key, value);
            }
            u32::from(holds)
        }
        Call::Delete(key) => {
            set(state, key, Value::ABSENT);
            STORED
        }
        Call::List(list) => members(state, list, announced),
        Call::PutPart(session) => {
            if is_uploading(state, session) {
                STORED
            } else {
                FAILED
            }
        }
        Call::Complete(session) => {
            if !is_uploading(state, session) {
                return FAILED;
            }
            state[SESSIONS] &= !(1 << (2 + session));
            set(state, of_session(session), Value::new(Is::Live, 0, 0));
            STORED
        }
        Call::Abort(session) => {
            state[SESSIONS] &= !(1 << (2 + session));
            STORED
        }
    }
}

fn members(state: &State, list: List, announced: &[Announced]) -> u32 {
    let flying = |wanted: &dyn Fn(Announced) -> bool| {
        let all = announced.iter().zip(0_u8..).filter(|(what, _)| wanted(**what));
        let of = all.fold(0, |bits, (_, process)| bits | ((1 << TRIES) - 1) << (process * TRIES));
        state[PENDING] & of
    };
    let present = |keys: &mut dyn Iterator<Item = Key>| {
        keys.zip(0..).filter(|(key, _)| get(state, *key).is_present()).fold(0, |bits, (_, bit)| bits | 1 << bit)
    };
    match list {
        List::PendingBlobs(blob) => flying(&|what| matches!(what, Announced::Blob { blob: of, .. } if of == blob)),
        List::PendingManifests(repo) => {
            flying(&|what| matches!(what, Announced::Manifest { repo: of, .. } if of == repo))
        }
        List::Manifests(0) => present(&mut (0..MANIFESTS).map(|manifest| Key::Manifest { repo: 0, manifest })),
        List::Manifests(repo) => present(&mut [Key::Manifest { repo, manifest: D }].into_iter()),
        List::Holders(blob) => present(&mut (0..2).map(|repo| Key::Holder { repo, blob })),
        List::Session(session) => {
            u32::from(get(state, Key::End(session)) != Value::ABSENT)
                | u32::from(get(state, Key::Journal(session)) != Value::ABSENT) << 1
        }
    }
}

/// The processes whose references in flight are in a list.
pub(crate) fn owners(listed: u32) -> impl Iterator<Item = usize> {
    (0..PROCESSES).filter(move |process| listed >> (process * usize::from(TRIES)) & ((1 << TRIES) - 1) != 0)
}

/// Keeps a failed write of a register, to land later. `false`: there is one already, or it is none of a register.
pub(crate) fn delay(state: &mut State, call: Call) -> bool {
    let Call::Put { key, value, over } = call else { return false };
    let Place::Word(at) = key.place() else { return false };
    if state[LATE[0]] != 0 {
        return false;
    }
    (state[LATE[0]], state[LATE[1]], state[LATE[2]]) = (at as u32 + 1, value.0, over.0);
    true
}

/// The delayed write lands; `false`: there is none.
pub(crate) fn land(state: &mut State) -> bool {
    let [at, value, over] = LATE.map(|at| state[at]);
    if at == 0 {
        return false;
    }
    let at = at as usize - 1;
    if state[at] == over {
        state[at] = value;
    }
    for at in LATE {
        state[at] = 0;
    }
    true
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
            Self::Dropped => write!(f, "dropped"),
            Self::Catalog => write!(f, "catalog"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {:x})", self.is(), self.body(), self.nonce())
    }
}
