//! The model and the code make the same calls in the same order.
//!
//! Each operation is run alone, by the code on a store in memory where every call takes a second, and by the model. Both
//! are told of in rounds, what is under way at the same time being one round without an order. What others do meanwhile is
//! said by a script, for both alike: before the n-th call of this verb on such an object, it is written by somebody else;
//! or the call fails.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use marina_distribution::{
    oci::{Algorithm, Digest},
    store::{
        Condition, Error, ErrorKind, Key, Put, Result, Store, Verb,
        around::{self, Around},
        memory::MemoryStore,
    },
};
use tokio::time::Instant;

use crate::{
    explore::Scenario,
    machine::Machine,
    process::{Op, Outcome, Process, Rules, Sees},
    world::{self, Call, FAILED, GHOST, Is, List, ON_CONDITION, OTHER, Queue, State, Value},
};

/// A verb and a kind of object.
pub(crate) type Step = (&'static str, &'static str);
/// Rounds of steps, each sorted.
pub(crate) type Rounds = Vec<Vec<Step>>;

/// What happens at a call that is not the process's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meddle {
    /// Somebody else has written it, with what it said before.
    Rewritten(Is),
    /// A tombstone was left where nothing was.
    Fenced,
    /// The tag points to something else, by a put with a condition or without.
    Moved {
        on_condition: bool,
    },
    NotApplied,
    ReplyLost,
}

/// At the n-th call of this kind, from 0.
pub(crate) type Script = &'static [(Step, usize, Meddle)];

struct Meddler {
    script: Script,
    made: HashMap<Step, usize>,
}

impl Meddler {
    fn new(script: Script) -> Self {
        Self { script, made: HashMap::new() }
    }

    fn at(&mut self, step: Step) -> Option<Meddle> {
        let made = self.made.entry(step).or_default();
        let due = self.script.iter().find(|(of, nth, _)| (*of, *nth) == (step, *made)).map(|(.., meddle)| *meddle);
        *made += 1;
        due
    }
}

/// What the processes of the model do, one after the other, and how the last one ends.
pub(crate) fn by_model(scenario: &Scenario, script: Script) -> (Rounds, Option<Outcome>) {
    let rules = Rc::new(Rules { sees: Sees::ALL, ..scenario.rules() });
    let (mut state, mut meddler) = (scenario.start, Meddler::new(script));
    let (mut rounds, mut outcome) = (Vec::new(), None);
    for (process, me) in scenario.processes.iter().zip(0..) {
        let machine = Machine::new(me, *process, Rc::clone(&rules));
        outcome = to_the_end(machine, &mut state, &mut meddler, &rules, &mut rounds);
    }
    (rounds, outcome)
}

fn to_the_end(
    mut machine: Machine,
    state: &mut State,
    meddler: &mut Meddler,
    rules: &Rules,
    rounds: &mut Rounds,
) -> Option<Outcome> {
    let mut at = 0;
    loop {
        let waiting = machine.nodes[at as usize].waiting.clone();
        if waiting.is_empty() {
            return machine.nodes[at as usize].replied;
        }
        let mut round = Vec::new();
        for (id, call) in waiting {
            round.push(step(call));
            let meddle = meddler.at(step(call));
            let reply = model_reply(state, call, meddle, rules);
            at = machine.step(at, id, reply);
        }
        round.sort_unstable();
        rounds.push(round);
    }
}

fn model_reply(state: &mut State, call: Call, meddle: Option<Meddle>, rules: &Rules) -> u32 {
    if let (Some(Meddle::Rewritten(is)), Some(key)) = (meddle, key_of(call)) {
        let before = world::get(state, key);
        world::set(state, key, Value::new(is, before.body(), before.nonce().wrapping_add(0x100)));
    }
    if let (Some(Meddle::Fenced), Some(key)) = (meddle, key_of(call)) {
        world::set(state, key, Value::new(Is::Gone, 0, 0xd000));
    }
    if let (Some(Meddle::Moved { on_condition }), Some(key)) = (meddle, key_of(call)) {
        let body = if on_condition { OTHER | ON_CONDITION } else { OTHER };
        world::set(state, key, Value::new(Is::Live, body, 0xd000));
    }
    if meddle == Some(Meddle::NotApplied) {
        return FAILED;
    }
    let mut reply = world::apply(state, call, rules);
    // What rests is not due in the round that left it.
    if let Call::List(List::Due { queue: Queue::Condemned | Queue::Tombstones, .. }) = call {
        reply &= 1 << GHOST;
    }
    if meddle == Some(Meddle::ReplyLost) { FAILED } else { reply }
}

fn key_of(call: Call) -> Option<world::Key> {
    match call {
        Call::Read(key)
        | Call::Look(key)
        | Call::Note(key)
        | Call::Ask { key, .. }
        | Call::DeleteIf { key, .. }
        | Call::Head(key)
        | Call::Open(key)
        | Call::Put { key, .. }
        | Call::Delete(key) => Some(key),
        Call::Ripen | Call::List(_) | Call::PutPart(_) | Call::Complete(_) | Call::Abort(_) => None,
    }
}

fn step(call: Call) -> Step {
    match call {
        Call::Read(key) | Call::Look(key) | Call::Note(key) | Call::Ask { key, .. } => ("read", kind(key)),
        Call::DeleteIf { key, .. } => ("delete if", kind(key)),
        Call::Ripen => panic!("time is no call"),
        Call::Head(key) => ("head", kind(key)),
        Call::Open(key) => ("open", kind(key)),
        Call::Put { key, .. } => ("put", kind(key)),
        Call::Delete(key) => ("delete", kind(key)),
        Call::PutPart(_) => ("put part", "data"),
        Call::Complete(_) => ("complete", "data"),
        Call::Abort(_) => ("abort", "data"),
        Call::List(list) => match list {
            world::List::PendingBlobs(_) | world::List::PendingManifests(_) => ("list", "pending"),
            world::List::Manifests(_) => ("list", "manifest"),
            world::List::Holders(_) => ("list", "holder"),
            world::List::Session(_) => ("list", "session"),
            world::List::Trash => ("list", "trash"),
            world::List::Due { queue, .. } => match queue {
                world::Queue::Dropped => ("list", "dropped"),
                world::Queue::Condemned => ("list", "condemned"),
                world::Queue::Unheld => ("list", "unheld"),
                world::Queue::Bytes => ("list", "bytes"),
                world::Queue::Tombstones => ("list", "tombstones"),
            },
        },
    }
}

fn kind(key: world::Key) -> &'static str {
    match key {
        world::Key::Record(_) => "record",
        world::Key::Holder { .. } => "holder",
        world::Key::Manifest { .. } => "manifest",
        world::Key::Tag(_) => "tag",
        world::Key::Entry => "entry",
        world::Key::End(_) => "end",
        world::Key::Data(_) => "data",
        world::Key::Pending(_) => "pending",
        world::Key::Journal(_) => "journal",
        world::Key::Dropped(_) | world::Key::Again(_) | world::Key::AgainLine(_) => "dropped",
        world::Key::Condemned(_) => "condemned",
        world::Key::Unheld(_) | world::Key::UnheldBlob { .. } => "unheld",
        world::Key::Bytes(_) => "bytes",
        world::Key::Tombstones(_) => "tombstones",
        world::Key::Catalog(_) => "catalog",
    }
}

/// The kind of what a key of the code names.
fn kind_of(key: &str) -> &'static str {
    let segments: Vec<_> = key.split('/').collect();
    match *segments.as_slice() {
        ["data", ..] => "data",
        ["blobs", .., "_"] => "record",
        ["blobs", ..] => "holder",
        ["repos", .., "_manifests", _, _] | ["repos", .., "_manifests", ""] => "manifest",
        ["repos", .., "_tags", _] => "tag",
        ["repos", .., "_referrers", _, _, _] => "entry",
        ["catalog", _] => "catalog",
        ["uploads", _, "!end"] => "end",
        ["uploads", _, ""] => "session",
        ["uploads", ..] => "journal",
        ["pending", ..] => "pending",
        ["dropped", _, ""] => "trash",
        ["dropped", ..] => "dropped",
        ["gc", "condemned", ..] => "condemned",
        ["gc", "unheld", ..] => "unheld",
        ["gc", "bytes", ..] => "bytes",
        ["gc", "tombstones", ..] => "tombstones",
        ["fleet", _] => "fleet",
        _ => panic!("{key} is of no kind that the model has"),
    }
}

/// A store on which each call takes a second, that notes what was called when, and that meddles.
pub(crate) struct Told {
    below: Arc<MemoryStore>,
    calls: Mutex<Vec<(Instant, Step)>>,
    meddler: Mutex<Meddler>,
}

impl Told {
    pub(crate) fn new(below: Arc<MemoryStore>, script: Script) -> Arc<Self> {
        Arc::new(Self { below, calls: Mutex::default(), meddler: Mutex::new(Meddler::new(script)) })
    }

    /// Forgets what was called until now.
    pub(crate) fn start(&self, script: Script) {
        self.calls.lock().unwrap().clear();
        *self.meddler.lock().unwrap() = Meddler::new(script);
    }

    pub(crate) fn rounds(&self) -> Rounds {
        let calls = self.calls.lock().unwrap();
        let rounds = calls.chunk_by(|(one, _), (other, _)| one == other);
        let steps = |round: &[(Instant, Step)]| {
            let mut round: Vec<_> = round.iter().map(|(_, step)| *step).collect();
            round.sort_unstable();
            round
        };
        let mut rounds: Rounds = rounds.map(steps).collect();
        // A journal has one record in the model.
        rounds.dedup_by(|one, other| one == other && *one == [("delete", "journal")]);
        rounds
    }
}

impl Around for Told {
    fn below(&self) -> &dyn Store {
        &*self.below
    }

    async fn around<T: Send>(&self, call: around::Call<'_>, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let around::Call { verb, key } = call;
        // Parts in memory are durable as they are.
        if verb == Verb::SyncParts {
            return work.await;
        }
        // The walks of an expiry to what it expires are no steps of the model: there a process begins with one.
        let walks = ["uploads/", "pending/sha256/", "pending/sha512/", "pending/manifests/"];
        if verb == Verb::List && walks.contains(&key) {
            return work.await;
        }
        // Lines of a history are written beside a tag, and no step reads them.
        if key.starts_with("history/") {
            return work.await;
        }
        let step = match (verb, kind_of(key)) {
            // Opened, for it may be large; to the model a register is read.
            (Verb::Open, "manifest") => ("read", "manifest"),
            (verb, kind) => (verb.name(), kind),
        };
        self.calls.lock().unwrap().push((Instant::now(), step));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let meddle = self.meddler.lock().unwrap().at(step);
        let failed = || Err(Error::new(ErrorKind::Unavailable, "as scripted"));
        match meddle {
            None => work.await,
            Some(Meddle::Rewritten(is)) => {
                rewrite(&self.below, key, is).await;
                work.await
            }
            Some(Meddle::Fenced) => {
                let put = self.below.put(&parse(key), format!("g{NONCE}").into(), Condition::Create).await?;
                assert_ne!(put, Put::Lost, "{key} is not absent");
                work.await
            }
            Some(Meddle::Moved { on_condition }) => {
                move_tag(&self.below, key, on_condition).await;
                work.await
            }
            Some(Meddle::NotApplied) => failed(),
            Some(Meddle::ReplyLost) => work.await.and(failed()),
        }
    }
}

const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

fn parse(key: &str) -> Key {
    Key::parse(key).unwrap()
}

/// Writes a register anew by hand, in another state.
pub(crate) async fn rewrite(store: &MemoryStore, key: &str, is: Is) {
    let bytes = store.read(&parse(key)).await.unwrap().unwrap().bytes;
    let (letter, rest) = match is {
        Is::Live => (b'l', &bytes[23..]),
        Is::Condemned => (b'c', &bytes[23..]),
        Is::Gone => (b'g', &[][..]),
        Is::Deleted | Is::Absent => (b'd', &[][..]),
    };
    overwrite(store, key, [&[letter], NONCE.as_bytes(), rest].concat()).await;
}

async fn move_tag(store: &MemoryStore, key: &str, on_condition: bool) {
    let elsewhere = Digest::of(Algorithm::Sha256, b"elsewhere");
    let condition = if on_condition { r#","conditional":true"# } else { "" };
    let target = format!(r#"{{"mediaType":"application/x","digest":"{elsewhere}","size":1{condition}}}"#);
    overwrite(store, key, format!("l{NONCE}\n{target}").into_bytes()).await;
}

async fn overwrite(store: &MemoryStore, key: &str, bytes: Vec<u8>) {
    let there = store.read(&parse(key)).await.unwrap();
    let condition = there.map_or(Condition::Create, |there| Condition::Replace(there.version));
    assert_ne!(store.put(&parse(key), Bytes::from(bytes), condition).await.unwrap(), Put::Lost);
}

/// Holds the model to the code: same rounds, same outcome.
pub(crate) fn same(name: &str, scenario: &Scenario, script: Script, (code, ended): (Rounds, Outcome)) {
    let (rounds, outcome) = by_model(scenario, script);
    assert_eq!(code, rounds, "{name}: the code, and the model");
    assert_eq!(Some(ended), outcome, "{name}: how it ends");
    println!("{:3} rounds {:3} calls  {name}", rounds.len(), rounds.iter().flatten().count());
}

pub(crate) fn alone(start: crate::scenarios::Start, op: Op) -> Scenario {
    let processes = vec![Process { op, wrong: None }];
    Scenario { processes, ..crate::scenarios::scenario("alone", start, &[]) }.tries(world::TRIES)
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}
