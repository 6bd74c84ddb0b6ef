//! What a store does.

use super::{
    CLIENTS, COUNT_ON, D, DROPPED, FIRST, Is, Key, LATE, MANIFESTS, MAY_MEAN, PENDING, PROCESSES, Place, RESTING,
    SESSIONS, State, TOLD, TRIES, Value, clients, get, is_uploading, mask, of_session, promise, ripen, set,
    set_clients,
};
use crate::process::{Announced, Rules};

/// One call of the store, as a process makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Read(Key),
    /// A read that tells apart what is live by its body only: states that differ in nothing else are one.
    Look(Key),
    /// A read by which a client is told whether a blob is there: if it is, or counts as if, he may count on it.
    Ask {
        client: u8,
        key: Key,
        counts: Is,
    },
    /// A read that only says whether a tombstone is noted.
    Note(Key),
    Head(Key),
    Open(Key),
    Put {
        key: Key,
        value: Value,
        over: Value,
    },
    Delete(Key),
    /// If it is still that.
    DeleteIf {
        key: Key,
        is: Value,
    },
    List(List),
    /// Not a call: time passes.
    Ripen,
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
    /// What can be put back.
    Trash,
    /// The entries of a queue that are due. Who is hasty takes for due what is still kept for somebody's sake.
    Due {
        queue: Queue,
        hasty: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    Dropped,
    Condemned,
    Unheld,
    Bytes,
    Tombstones,
}

/// What a write answers; a read answers a [`Value`], a list a set of bits.
pub(crate) const LOST: u32 = 0;
pub(crate) const STORED: u32 = 1;
pub(crate) const FAILED: u32 = 2;

/// What the store does with a call.
pub(crate) fn apply(state: &mut State, call: Call, rules: &Rules) -> u32 {
    match call {
        Call::Read(key) | Call::Head(key) | Call::Open(key) | Call::Note(key) => get(state, key).0,
        Call::Ask { client, key, counts } => {
            let found = get(state, key);
            let is_told = found.is_live() || found.is() == counts;
            promise(state, client, is_told);
            u32::from(is_told)
        }
        Call::Ripen => {
            ripen(state);
            STORED
        }
        Call::Look(key) => {
            let found = get(state, key);
            if found.is_live() { Value::new(Is::Live, found.body(), 0).0 } else { found.0 }
        }
        Call::Put { key, value, over } => {
            let holds = get(state, key) == over;
            if holds {
                set(state, key, value);
                count(state, key, rules);
            }
            u32::from(holds)
        }
        Call::Delete(key) => {
            set(state, key, Value::ABSENT);
            forget(state, key);
            STORED
        }
        Call::DeleteIf { key, is } => {
            let holds = get(state, key) == is;
            if holds {
                set(state, key, Value::ABSENT);
            }
            u32::from(holds)
        }
        Call::List(list) => members(state, list, rules),
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

/// With an entry that is kept for a while goes for whose sake.
fn count(state: &mut State, key: Key, rules: &Rules) {
    match key {
        Key::Condemned(of) => {
            let clients = state[SESSIONS] >> TOLD & mask(0, CLIENTS);
            set_clients(state, COUNT_ON, of, clients);
        }
        Key::Tombstones(of) => {
            let begun = (0..CLIENTS).filter(|it| state[FIRST + usize::from(*it)] != 0 && rules.publishes(*it));
            let begun = begun.fold(0, |all, one| all | 1 << one);
            set_clients(state, MAY_MEAN, of, begun);
        }
        _ => {}
    }
}

fn forget(state: &mut State, key: Key) {
    match key {
        Key::Condemned(of) => set_clients(state, COUNT_ON, of, 0),
        Key::Tombstones(of) => set_clients(state, MAY_MEAN, of, 0),
        _ => {}
    }
}

fn members(state: &State, list: List, rules: &Rules) -> u32 {
    let flying = |wanted: &dyn Fn(Announced) -> bool| {
        let all = rules.announced.iter().zip(0_u8..).filter(|(what, _)| wanted(**what));
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
        List::Trash => state[DROPPED] & state[RESTING],
        List::Due { queue, hasty } => due(state, queue, hasty),
    }
}

/// The entries by collectors are numbered by process; in the queue of what was dropped they come after the others.
pub(crate) const AGAIN: u8 = 24;

fn due(state: &State, queue: Queue, hasty: bool) -> u32 {
    let all = |is: &dyn Fn(u8) -> bool| (0..PROCESSES as u8).filter(|of| is(*of)).fold(0, |bits, of| bits | 1 << of);
    let is_there = |key: Key| get(state, key) != Value::ABSENT;
    let rested = |at: usize, of: u8| hasty || clients(state, at, of) == 0;
    match queue {
        Queue::Dropped => {
            state[DROPPED] & !state[RESTING]
                | all(&|of| is_there(Key::Again(of)) || is_there(Key::AgainLine(of))) << AGAIN
        }
        Queue::Condemned => all(&|of| is_there(Key::Condemned(of)) && rested(COUNT_ON, of)),
        Queue::Unheld => all(&|of| is_there(Key::Unheld(of))),
        Queue::Bytes => all(&|of| is_there(Key::Bytes(of))),
        Queue::Tombstones => all(&|of| is_there(Key::Tombstones(of)) && rested(MAY_MEAN, of)),
    }
}

/// Each bit of a list, by number.
pub(crate) fn each(bits: u32) -> impl Iterator<Item = u8> {
    (0..32).filter(move |bit| bits >> bit & 1 == 1)
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
