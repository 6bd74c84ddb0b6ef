//! Stores to start from, and short names for processes.

use crate::{
    explore::{Explored, Scenario, explore},
    process::{Announced, Drops, From, Job, Op, Process, Wrong},
    world::{
        D, GHOST, INDEX, Is, Key, OTHER, Queue, State, Value, WIDE, WORDS, dropped, get, of_attempt, of_old,
        open_session, pending, set,
    },
};

/// A store, written by somebody before.
#[derive(Clone, Copy)]
pub(crate) struct Start(State);

impl Start {
    pub(crate) fn empty() -> Self {
        Self([0; WORDS])
    }

    fn with(mut self, key: Key, is: Is, body: u8) -> Self {
        // No process writes nonces from here on.
        let nonce = 0xe000 + u16::try_from(self.0.iter().filter(|word| **word != 0).count()).unwrap();
        set(&mut self.0, key, Value::new(is, body, nonce));
        self
    }

    fn record(self, blob: u8, is: Is) -> Self {
        let Key::Data(data) = of_old(blob) else { return self };
        self.with(Key::Record(blob), is, data).with(of_old(blob), Is::Live, 0)
    }

    pub(crate) fn holder(self, repo: u8, blob: u8, is: Is) -> Self {
        let Key::Data(data) = of_old(blob) else { return self };
        self.with(Key::Holder { repo, blob }, is, data)
    }

    /// Repository 0 holds it.
    pub(crate) fn blob(self, blob: u8) -> Self {
        self.record(blob, Is::Live).holder(0, blob, Is::Live)
    }

    /// Nobody holds it, and the collector has condemned its record.
    pub(crate) fn condemned_record(self, blob: u8) -> Self {
        self.record(blob, Is::Condemned)
    }

    /// With a header that names these tags.
    pub(crate) fn manifest(self, manifest: u8, is: Is, header: u8) -> Self {
        self.with(Key::Manifest { repo: 0, manifest }, is, header)
    }

    pub(crate) fn tag(self, tag: u8, manifest: u8) -> Self {
        self.with(Key::Tag(tag), Is::Live, manifest)
    }

    pub(crate) fn entry(self) -> Self {
        self.with(Key::Entry, Is::Live, 0)
    }

    pub(crate) fn session(mut self, session: u8) -> Self {
        open_session(&mut self.0, session);
        self
    }

    pub(crate) fn put(self, key: Key, is: Is, body: u8) -> Self {
        self.with(key, is, body)
    }

    pub(crate) fn state(self) -> State {
        self.0
    }

    /// A reference in flight, whose owner died; and the bytes that he put.
    pub(crate) fn announced(self) -> Self {
        self.with(pending(GHOST, 0), Is::Live, 0)
    }

    pub(crate) fn attempted(self) -> Self {
        self.with(of_attempt(GHOST, 0), Is::Live, 0)
    }

    /// An entry leads to what there is.
    pub(crate) fn dropped(self) -> Self {
        self.with(dropped(GHOST, 0), Is::Live, 0)
    }

    /// Its image was deleted and can be put back.
    pub(crate) fn trash(self) -> Self {
        self.manifest(D, Is::Deleted, 0).kept()
    }

    /// An entry says how to put back what it says was deleted.
    pub(crate) fn kept(self) -> Self {
        self.with(dropped(GHOST, 0), Is::Live, 1)
    }

    /// A collector left the holder of blob 0 to rest as it is, and then died.
    pub(crate) fn condemned(self) -> Self {
        let mut left = self.0;
        set(&mut left, Key::Condemned(GHOST), Value(get(&self.0, Key::Holder { repo: 0, blob: 0 }).nonce().into()));
        Self(left)
    }

    /// A collector noted the tombstone, and then died.
    pub(crate) fn note(self, of: Key) -> Self {
        let mut noted = self.0;
        set(&mut noted, Key::Tombstones(GHOST), Value(get(&self.0, of).nonce().into()));
        Self(noted)
    }

    pub(crate) fn listed(self) -> Self {
        self.with(Key::Catalog(0), Is::Live, 0)
    }

    /// Blob 0 and its image.
    pub(crate) fn image() -> Self {
        Self::empty().blob(0).manifest(D, Is::Live, 0)
    }

    /// The image under tag 0.
    pub(crate) fn tagged() -> Self {
        Self::empty().blob(0).manifest(D, Is::Live, 1).tag(0, D)
    }

    /// The image, listed as a referrer.
    pub(crate) fn referrer() -> Self {
        Self::image().entry()
    }
}

pub(crate) fn upload(repo: u8, blob: u8) -> Op {
    Op::Upload { repo, blob, from: From::Attempt }
}

pub(crate) fn finish(session: u8) -> Op {
    Op::Upload { repo: 0, blob: 0, from: From::Session { session, remembered: true, tail: false } }
}

/// By a replica that remembers nothing.
pub(crate) fn finish_cold(session: u8) -> Op {
    Op::Upload { repo: 0, blob: 0, from: From::Session { session, remembered: false, tail: false } }
}

pub(crate) fn mount() -> Op {
    Op::Mount { from: 0, to: 1, blob: 0 }
}

/// Of a manifest, in repository 0, under these tags.
pub(crate) fn push(manifest: u8, tags: u8) -> Op {
    Op::Push(Job { repo: 0, manifest, tags, condition: None })
}

pub(crate) fn push_if(manifest: u8, tags: u8, condition: u8) -> Op {
    Op::Push(Job { repo: 0, manifest, tags, condition: Some(condition) })
}

pub(crate) fn expire(process: u8, tries: u8) -> Op {
    Op::Expire { process, tries }
}

pub(crate) fn expire_session(session: u8) -> Op {
    Op::ExpireSession { session, blob: 0 }
}

pub(crate) fn remove_mark(session: u8) -> Op {
    Op::RemoveMark(session)
}

pub(crate) fn collect(repo: u8, blob: u8) -> Op {
    Op::CollectHolder { repo, blob }
}

/// One round of the collector through one queue.
pub(crate) fn holders_of(repo: u8, queue: Queue) -> Op {
    Op::Holders { repo, queue }
}

pub(crate) fn ask_and_push() -> Op {
    Op::AskAndPush(Job { repo: 0, manifest: D, tags: 0, condition: None })
}

pub(crate) const DROPPED: Op = Op::Holders { repo: 0, queue: Queue::Dropped };
pub(crate) const CONDEMNED: Op = Op::Holders { repo: 0, queue: Queue::Condemned };
pub(crate) const UNHELD: Op = Op::Bytes { blob: 0, queue: Queue::Unheld };
pub(crate) const REST_OF_BYTES: Op = Op::Bytes { blob: 0, queue: Queue::Bytes };
pub(crate) const RESTORE: Op = Op::Restore(D);
pub(crate) const TOMBSTONE: Op = Op::Tombstones(Key::Holder { repo: 0, blob: 0 });
pub(crate) fn note_and_remove(key: Key) -> Op {
    Op::NoteAndRemove(key)
}

pub(crate) const TIME: Op = Op::Time;
pub(crate) const DELETE: Op = Op::DeleteManifest(D);
pub(crate) const DELETE_TAG: Op = Op::DeleteTag(0);
pub(crate) const DELETE_BLOB: Op = Op::DeleteBlob { repo: 0, blob: 0 };
/// Of what [`mount`] makes repository 1 hold.
pub(crate) const DELETE_MOUNTED: Op = Op::DeleteBlob { repo: 1, blob: 0 };
pub(crate) const BYTES: Op = Op::CollectRecord(0);
pub(crate) const HOLDER: Op = Op::CollectHolder { repo: 0, blob: 0 };
pub(crate) const CHILD: Op = Op::CollectManifest(D);
pub(crate) const NOTHING: u8 = u8::MAX;
/// The wide image, the index and the other manifest, by short names.
pub(crate) const W: u8 = WIDE;
pub(crate) const I: u8 = INDEX;
pub(crate) const E: u8 = OTHER;

pub(crate) fn scenario(name: &'static str, start: Start, ops: &[Op]) -> Scenario {
    let processes = ops.iter().map(|op| Process { op: *op, wrong: None }).collect();
    Scenario {
        name,
        start: start.state(),
        processes,
        tries: 2,
        faults: 0,
        subject: false,
        dead: Announced::Nothing,
        left: Drops::Nothing,
        undelete: false,
        catalog: false,
        led: false,
        mortal: false,
    }
}

impl Scenario {
    /// Process `at` does it in an order that is known to be wrong.
    pub(crate) fn wrong(mut self, at: usize, wrong: Wrong) -> Self {
        self.processes[at].wrong = Some(wrong);
        self
    }

    pub(crate) fn tries(self, tries: u8) -> Self {
        Self { tries, ..self }
    }

    pub(crate) fn faults(self, faults: u32) -> Self {
        Self { faults, ..self }
    }

    pub(crate) fn with_subject(self) -> Self {
        Self { subject: true, ..self }
    }

    pub(crate) fn dead(self, dead: Announced) -> Self {
        Self { dead, ..self }
    }

    /// The entry that is there from the start says this.
    pub(crate) fn left(self, left: Drops) -> Self {
        Self { left, ..self }
    }

    pub(crate) fn undelete(self) -> Self {
        Self { undelete: true, ..self }
    }

    pub(crate) fn catalog(self) -> Self {
        Self { catalog: true, ..self }
    }

    pub(crate) fn led(self) -> Self {
        Self { led: true, ..self }
    }

    pub(crate) fn mortal(self) -> Self {
        Self { mortal: true, ..self }
    }

    /// Explores it all: nothing may break, in at least so many states.
    pub(crate) fn holds(&self, at_least: usize) {
        let Explored { states, violation } = explore(self);
        println!("{:9} states  {}", states, self.name);
        if let Some(violation) = violation {
            panic!("{}: {}\n  {}", self.name, violation.what, violation.trace.join("\n  "));
        }
        assert!(states >= at_least, "{}: only {states} states", self.name);
    }

    /// Something must break, in this way.
    pub(crate) fn breaks(&self, how: &str) {
        let Explored { states, violation } = explore(self);
        let Some(violation) = violation else { panic!("{}: holds, in {states} states", self.name) };
        println!("{:9} states  {:2} steps  {}: {}", states, violation.trace.len(), self.name, violation.what);
        assert!(
            violation.what.starts_with(how),
            "{}: {}\n  {}",
            self.name,
            violation.what,
            violation.trace.join("\n  ")
        );
    }
}

/// Of the image, into repository 1.
pub(crate) fn push_to_1() -> Op {
    Op::Push(Job { repo: 1, manifest: D, tags: 0, condition: None })
}
