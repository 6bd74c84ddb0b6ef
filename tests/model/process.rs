//! Processes of the model: what they are, and the store as they see it. They make one call at a time, or several side by
//! side.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::Poll,
};

use crate::world::{Call, FAILED, Is, Key, Queue, STORED, Value, dropped, pending};

/// What a process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Upload {
        repo: u8,
        blob: u8,
        from: From,
    },
    Mount {
        from: u8,
        to: u8,
        blob: u8,
    },
    Push(Job),
    DeleteManifest(u8),
    DeleteTag(u8),
    DeleteBlob {
        repo: u8,
        blob: u8,
    },
    /// Expires the reference in flight that this process wrote at this try.
    Expire {
        process: u8,
        tries: u8,
    },
    ExpireSession {
        session: u8,
        blob: u8,
    },
    /// What is left of an expired session, long after.
    RemoveMark(u8),
    CollectHolder {
        repo: u8,
        blob: u8,
    },
    CollectRecord(u8),
    CollectManifest(u8),
    /// One round of the collector through one queue, for one repository.
    Holders {
        repo: u8,
        queue: Queue,
    },
    /// The same, for one blob.
    Bytes {
        blob: u8,
        queue: Queue,
    },
    /// Removes the tombstones of one register that are due.
    Tombstones(Key),
    /// Notes one, too.
    NoteAndRemove(Key),
    /// Asks for a blob and, if it is there, pushes an image of it.
    AskAndPush(Job),
    /// Puts back what was deleted.
    Restore(u8),
    /// What was kept for a while is due.
    Time,
}

/// What an entry of the queue of dropped references says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drops {
    Nothing,
    Blob {
        repo: u8,
        blob: u8,
    },
    /// All that a push which was given up named.
    Push {
        repo: u8,
        manifest: u8,
    },
    Manifest(u8),
}

/// Where the bytes of an upload come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// One request, whole.
    Attempt,
    /// A session that fits a buffer: put whole, and its end written beside.
    Small { session: u8 },
    /// A session with parts, read from its journal or remembered.
    Session { session: u8, remembered: bool, tail: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Job {
    pub(crate) repo: u8,
    pub(crate) manifest: u8,
    /// Bits.
    pub(crate) tags: u8,
    /// What the tags must point to; `u8::MAX`: nothing.
    pub(crate) condition: Option<u8>,
}

/// The orders that are known to be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    NoPending,
    NoLift,
    NoLook,
    PublishedFirst,
    NoFence,
    LateRead,
    NoTouch,
    NoEnd,
    NoWait,
    NoRecord,
    NoRecheck,
    NoTagFence,
    NoEntryFence,
    /// A delete is over when somebody else wrote the manifest.
    GivesWay,
    /// A push that starts again takes tags for set that went with its manifest.
    OneLife,
    /// What may have been done is done again.
    Twice,
    /// A tag's put takes itself for overtaken by one that had a condition.
    AnyOvertakes,
    /// What was condemned is taken though somebody else condemned it since.
    NoNonce,
    /// Retention takes tags along.
    TakesTags,
    /// What has rested is taken whatever its nonce is.
    AnyNonce,
    /// What is condemned rests for nobody's sake.
    NoRest,
    /// What can be put back needs nothing.
    NoTrash,
    /// An entry is consumed before the one that follows it is written.
    ConsumedFirst,
    /// A delete announces itself when it is done.
    AnnouncedLast,
    /// Bytes are deleted before their record is.
    BytesFirst,
    /// No entry names the bytes that are about to be deleted.
    NoBytesEntry,
    /// An entry that names bytes goes although their record may be taken by another collector.
    Unsettled,
    /// Who asks is told that a blob is there which is condemned.
    ExistsCondemned,
    /// A tombstone is removed whatever is there by now.
    Unconditional,
    /// A push that was given up lists its repository over the tombstone that was to shut it out.
    NoLineFence,
    /// A repository in use is forgotten with the entry that led to its line.
    LineForgotten,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) op: Op,
    pub(crate) wrong: Option<Wrong>,
}

/// What a process announces before it publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Announced {
    Nothing,
    Blob { repo: u8, blob: u8, brings: Brings },
    Manifest { repo: u8, manifest: u8 },
}

/// Whose bytes come with a blob that is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Brings {
    Nothing,
    Attempt,
    Session(u8),
}

/// How a process ended, or what it has answered while something is still left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Acknowledged,
    /// A definite no.
    Refused,
    /// It may have happened or not.
    Failed,
}

/// What a process keeps when it starts again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Local {
    pub(crate) tries: u8,
    /// Tags still to be set.
    pub(crate) tags: u8,
    pub(crate) stage: u8,
    /// It has done once what it need not do again: complete its bytes, write its manifest, announce its delete.
    pub(crate) passed: bool,
    /// Nobody knows whether its write happened.
    pub(crate) unclear: bool,
    /// What was there instead of its repository's line.
    pub(crate) line: Value,
    /// The manifest that it wrote, or means to delete, as far as it has to tell it from another life of it.
    pub(crate) seen: Value,
}

pub(crate) enum Next {
    Again(Local),
    Done(Outcome),
}

/// `Err`: the process ends here.
pub(crate) type Steps<T> = Result<T, Outcome>;

/// What holds for all processes of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How often a process tries before it gives up.
    pub(crate) tries: u8,
    /// Manifest D has a subject.
    pub(crate) subject: bool,
    pub(crate) announced: Vec<Announced>,
    pub(crate) drops: Vec<Drops>,
    /// For which repository each works that collects.
    pub(crate) repos: Vec<u8>,
    /// Of which blob the bytes are that each names in an entry.
    pub(crate) blobs: Vec<u8>,
    /// A deleted manifest can be put back until time passes.
    pub(crate) undelete: bool,
    /// What somebody sees of what is written beside: that is explored, anything else happens at once.
    pub(crate) sees: Sees,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sees {
    pub(crate) queues: bool,
    pub(crate) catalog: bool,
    pub(crate) tombstones: bool,
}

impl Sees {
    pub(crate) const ALL: Self = Self { queues: true, catalog: true, tombstones: true };

    pub(crate) fn sees(self, call: Call) -> bool {
        let (Call::Read(key) | Call::Put { key, .. } | Call::Delete(key) | Call::Note(key)) = call else { return true };
        match key {
            Key::Catalog(repo) => self.catalog && repo == 0,
            Key::Tombstones(_) => self.tombstones,
            Key::Dropped(_)
            | Key::Again(_)
            | Key::AgainLine(_)
            | Key::Condemned(_)
            | Key::Bytes(_)
            | Key::Unheld(_)
            | Key::UnheldBlob { .. } => self.queues,
            _ => self.tombstones || !matches!(call, Call::Note(_)),
        }
    }
}

/// How writing over what was seen ended.
#[derive(Clone, Copy)]
pub(crate) enum Written {
    Done(Value),
    Lost(Value),
    Unclear(Value),
}

/// The store, as a process sees it.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) me: u8,
    pub(crate) wrong: Option<Wrong>,
    pub(crate) rules: Rc<Rules>,
    tries: u8,
    lane: u16,
    calls: Rc<Cell<u16>>,
    tape: Rc<Tape>,
}

#[derive(Default)]
pub(crate) struct Tape {
    answers: Vec<(u16, u32)>,
    pub(crate) waiting: RefCell<Vec<(u16, Call)>>,
    used: RefCell<Vec<u16>>,
    pub(crate) replied: Cell<Option<Outcome>>,
}

impl Process {
    pub(crate) fn announced(self) -> Announced {
        match self.op {
            Op::Upload { repo, blob, from } => {
                let brings = match from {
                    From::Attempt | From::Small { .. } => Brings::Attempt,
                    From::Session { session, .. } => Brings::Session(session),
                };
                Announced::Blob { repo, blob, brings }
            }
            Op::Mount { to, blob, .. } => Announced::Blob { repo: to, blob, brings: Brings::Nothing },
            Op::Push(Job { repo, manifest, .. }) | Op::AskAndPush(Job { repo, manifest, .. }) => {
                Announced::Manifest { repo, manifest }
            }
            Op::Restore(manifest) => Announced::Manifest { repo: 0, manifest },
            _ => Announced::Nothing,
        }
    }

    pub(crate) fn repo(self) -> u8 {
        if let Op::Holders { repo, .. } = self.op { repo } else { 0 }
    }

    pub(crate) fn blob(self, announced: &[Announced]) -> u8 {
        match self.op {
            Op::Bytes { blob, .. } => blob,
            Op::Expire { process, .. } => match announced[usize::from(process)] {
                Announced::Blob { blob, .. } => blob,
                Announced::Manifest { .. } | Announced::Nothing => 0,
            },
            _ => 0,
        }
    }

    /// What its entries among the dropped say.
    pub(crate) fn drops(self, announced: &[Announced]) -> Drops {
        match self.op {
            Op::DeleteManifest(manifest) | Op::CollectManifest(manifest) => Drops::Manifest(manifest),
            Op::DeleteBlob { repo, blob } => Drops::Blob { repo, blob },
            Op::Expire { process, .. } => match announced[usize::from(process)] {
                Announced::Nothing => Drops::Nothing,
                Announced::Blob { repo, blob, .. } => Drops::Blob { repo, blob },
                Announced::Manifest { repo, manifest } => Drops::Push { repo, manifest },
            },
            _ => Drops::Nothing,
        }
    }
}

impl Rules {
    /// Whether the process may write where nothing is.
    pub(crate) fn publishes(&self, process: u8) -> bool {
        self.announced[usize::from(process)] != Announced::Nothing
    }
}

impl Tape {
    pub(crate) fn of(answers: &[(u16, u32)]) -> Rc<Self> {
        Rc::new(Self { answers: answers.to_vec(), ..Self::default() })
    }
}

impl Store {
    pub(crate) fn new(me: u8, tries: u8, wrong: Option<Wrong>, rules: &Rc<Rules>, tape: &Rc<Tape>) -> Self {
        let (rules, tape) = (Rc::clone(rules), Rc::clone(tape));
        Self { me, wrong, rules, tries, lane: 0, calls: Rc::default(), tape }
    }

    /// The same store for one of several strands that run side by side: its calls have numbers of their own.
    pub(crate) fn strand(&self, number: u8) -> Self {
        let lane = self.lane * 8 + u16::from(number) + 1;
        Self { lane, calls: Rc::new(Cell::new(self.calls.get())), ..self.clone() }
    }

    /// Calls so many numbers later than it has, which strands have used.
    pub(crate) fn skip(&self, calls: u16) {
        self.calls.set(self.calls.get() + calls);
    }

    /// Its entry among the dropped, at this try.
    pub(crate) fn dropped(&self) -> Key {
        dropped(self.me, self.tries)
    }

    pub(crate) fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    /// The answer to the client; what follows is done afterwards.
    pub(crate) fn reply(&self, outcome: Outcome) -> Outcome {
        self.tape.replied.set(Some(outcome));
        outcome
    }

    async fn call(&self, call: impl FnOnce(u16) -> Call) -> u32 {
        let number = self.calls.replace(self.calls.get() + 1);
        assert!(self.lane < 64 && number < 32, "more calls than are told apart");
        let id = self.lane * 32 + number;
        let nonce = u16::from(self.me) << 13 | u16::from(self.tries) << 11 | id;
        let call = call(nonce);
        assert!(!self.tape.used.borrow().contains(&id), "two calls have one number");
        self.tape.used.borrow_mut().push(id);
        poll_fn(move |_| {
            let answer = self.tape.answers.iter().find(|(of, _)| *of == id);
            if answer.is_none() {
                self.tape.waiting.borrow_mut().push((id, call));
            }
            answer.map_or(Poll::Pending, |(_, reply)| Poll::Ready(*reply))
        })
        .await
    }

    pub(crate) async fn simply(&self, call: Call) -> u32 {
        self.call(|_| call).await
    }

    pub(crate) async fn read(&self, key: Key) -> Value {
        Value(self.simply(Call::Read(key)).await)
    }

    pub(crate) async fn delete(&self, key: Key) -> Steps<()> {
        if self.simply(Call::Delete(key)).await == FAILED { Err(Outcome::Failed) } else { Ok(()) }
    }

    /// A write-once object under a name of its own; an uncertain write is repeated.
    pub(crate) async fn create(&self, key: Key) -> Steps<()> {
        self.create_as(key, Value::new(Is::Live, 0, 0)).await
    }

    pub(crate) async fn create_as(&self, key: Key, value: Value) -> Steps<()> {
        let put = |_| Call::Put { key, value, over: Value::ABSENT };
        if self.call(put).await == FAILED && self.call(put).await == FAILED { Err(Outcome::Failed) } else { Ok(()) }
    }

    /// A reference in flight of this process at this try.
    pub(crate) async fn announce(&self) -> Steps<Key> {
        let key = pending(self.me, self.tries);
        if self.is(Wrong::NoPending) {
            self.calls.set(self.calls.get() + 1);
        } else {
            self.create(key).await?;
        }
        Ok(key)
    }

    pub(crate) async fn publish(&self, key: Key, over: Value, body: u8) -> Steps<Written> {
        self.write(key, over, Is::Live, body).await
    }

    /// One conditional write, settled by reading back.
    pub(crate) async fn write(&self, key: Key, seen: Value, is: Is, body: u8) -> Steps<Written> {
        let mut over = seen;
        let mut mine = Vec::new();
        let mut failed_before = false;
        for _ in 0..3 {
            let mut value = Value::ABSENT;
            let put = |nonce| {
                value = Value::new(is, body, nonce);
                Call::Put { key, value, over }
            };
            let reply = self.call(put).await;
            mine.push(value.nonce());
            if reply == STORED {
                return Ok(Written::Done(value));
            }
            let now = self.read(key).await;
            match (mine.contains(&now.nonce()), reply == FAILED) {
                (true, false) => return Ok(Written::Done(now)),
                (true, true) => failed_before = true,
                (false, false) if !failed_before => return Ok(Written::Lost(now)),
                (false, true) if now == over => failed_before = true,
                (false, _) => return Ok(Written::Unclear(now)),
            }
            over = now;
        }
        Err(Outcome::Failed)
    }

    /// A read that needs to know of what is live only that it is.
    pub(crate) async fn look(&self, key: Key) -> Value {
        Value(self.simply(Call::Look(key)).await)
    }

    /// Lifts what is condemned. Absent where there is nothing.
    pub(crate) async fn lift(&self, key: Key, mut seen: Value) -> Steps<Value> {
        loop {
            match seen.is() {
                Is::Live => return Ok(seen),
                Is::Condemned if self.is(Wrong::NoLift) => return Ok(seen),
                Is::Absent | Is::Gone | Is::Deleted => return Ok(Value::ABSENT),
                Is::Condemned => match self.publish(key, seen, seen.body()).await? {
                    Written::Done(now) => return Ok(now),
                    Written::Lost(now) | Written::Unclear(now) => seen = now,
                },
            }
        }
    }

    /// A name for what is made by this process at this try.
    pub(crate) fn life(&self) -> u8 {
        1 + self.me * 4 + self.tries
    }

    pub(crate) fn again(&self, local: Local) -> Next {
        let tries = self.tries + 1;
        if tries < self.rules.tries { Next::Again(Local { tries, ..local }) } else { Next::Done(Outcome::Failed) }
    }
}
