//! A store whose calls wait for their turn, and who gives the turns: one call at a time, in an order that the seed alone
//! decides.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use marina_distribution::store::{
    Condition, Deleted, Entry, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span, Store, Version,
    Versioned,
};
use tokio::{sync::oneshot, task, time::sleep};

use crate::history::random::Random;

/// How a store breaks its contract, to see that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// A read may answer what was there before the last write.
    StaleReads,
    /// A write takes place whatever is there by now.
    BlindWrites,
}

pub(crate) struct Turns {
    store: Arc<dyn Store>,
    defect: Defect,
    state: Mutex<State>,
}

struct State {
    random: Random,
    waiting: Vec<Waiting>,
    /// Which tasks go first, as long as that holds.
    ranks: HashMap<task::Id, usize>,
    /// Everybody's turn, at once.
    open: bool,
    before: HashMap<Key, Versioned>,
    /// What references in flight are called instead: some list them, and so their order must be the seed's.
    names: HashMap<Key, Key>,
}

struct Waiting {
    task: task::Id,
    turn: oneshot::Sender<()>,
}

/// Longer than any pause that a registry makes before it tries again: whoever can make a call is waiting by then.
const TICK: Duration = Duration::from_secs(1);

impl Turns {
    pub(crate) fn new(store: Arc<dyn Store>, defect: Defect, seed: u64) -> Self {
        let state = State {
            random: Random(seed),
            waiting: Vec::new(),
            ranks: HashMap::new(),
            open: true,
            before: HashMap::new(),
            names: HashMap::new(),
        };
        Self { store, defect, state: Mutex::new(state) }
    }

    /// From now on calls wait; and so they get their turns, for ever. The clock must be paused: then nothing else can go on
    /// when it moves.
    pub(crate) async fn give(&self) {
        self.state.lock().unwrap().open = false;
        loop {
            sleep(TICK).await;
            self.state.lock().unwrap().give_one();
        }
    }

    fn name(&self, key: &Key) -> Key {
        let Some(stem) =
            key.as_str().strip_prefix("pending/").and_then(|_| key.as_str().get(..key.as_str().len() - 36))
        else {
            return key.clone();
        };
        let State { names, random, .. } = &mut *self.state.lock().unwrap();
        if names.values().any(|name| name == key) {
            return key.clone();
        }
        let name = || Key::parse(format!("{stem}{:08x}-0000-4000-8000-000000000000", random.below(1 << 32))).unwrap();
        names.entry(key.clone()).or_insert_with(name).clone()
    }

    async fn turn(&self) {
        let wait = {
            let mut state = self.state.lock().unwrap();
            if state.open {
                return;
            }
            let (turn, wait) = oneshot::channel();
            state.waiting.push(Waiting { task: task::id(), turn });
            wait
        };
        // Nobody waits any more once the history is over.
        let _ = wait.await;
    }
}

impl State {
    /// Mostly the first in rank, so that others stall for long; now and then anyone, or another rank.
    fn give_one(&mut self) {
        // Tasks are numbered as they start; whoever of them waits longer does not depend on the pauses before.
        self.waiting.sort_by_key(|waiting| waiting.task);
        if self.waiting.is_empty() {
            return;
        }
        for waiting in &self.waiting {
            self.ranks.entry(waiting.task).or_insert_with(|| self.random.below(1000));
        }
        let at = if self.random.chance(30) {
            self.random.below(self.waiting.len())
        } else {
            let first = (0..self.waiting.len()).min_by_key(|at| self.ranks[&self.waiting[*at].task]);
            first.unwrap_or_default()
        };
        let next = self.waiting.remove(at);
        if self.random.chance(10) {
            self.ranks.insert(next.task, self.random.below(1000));
        }
        let _ = next.turn.send(());
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("store", &self.store).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Turns {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.turn().await;
        if self.defect == Defect::StaleReads {
            let mut state = self.state.lock().unwrap();
            if state.random.chance(30)
                && let Some(before) = state.before.get(key)
            {
                return Ok(Some(before.clone()));
            }
        }
        self.store.read(&self.name(key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        self.turn().await;
        if self.defect == Defect::None {
            return self.store.put(&self.name(key), bytes, condition).await;
        }
        let there = self.store.read(key).await?;
        let condition = match &there {
            Some(there) if self.defect == Defect::BlindWrites => Condition::Replace(there.version.clone()),
            _ => condition,
        };
        if let Some(there) = there {
            self.state.lock().unwrap().before.insert(key.clone(), there);
        }
        self.store.put(key, bytes, condition).await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.turn().await;
        self.store.open(key, span).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.turn().await;
        self.store.head(key).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.turn().await;
        self.store.delete(&self.name(key)).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        self.turn().await;
        self.store.delete_if(key, version).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        self.turn().await;
        self.store.list(prefix, after, limit).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.turn().await;
        self.store.begin(key).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        self.turn().await;
        self.store.put_part(upload, number, bytes, previous).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.turn().await;
        self.store.sync_parts(upload, parts).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.turn().await;
        self.store.complete(upload, parts).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.turn().await;
        self.store.abort(upload).await
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        self.store.presign(key, ttl).await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}
