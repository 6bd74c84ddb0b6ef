//! Where store calls wait for their turn, and what is known of them in names that do not depend on chance.
//!
//! Nonces and ids are random, so no run is the letter-by-letter repetition of another. Here every object is called by who
//! made it and when: what a process was answered, and what the store holds, can be compared between runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use marina_distribution::store::{
    Condition, Deleted, Entry, Error, ErrorKind, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span,
    Store, Verb, Version, Versioned, memory::MemoryStore,
};
use tokio::sync::oneshot;

/// What happens to a call when its turn comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Fault {
    None,
    NotApplied,
    ReplyLost,
}

/// A call that waits, by the number of its process and a name that is the same in every run.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) process: usize,
    pub(crate) verb: &'static str,
    pub(crate) key: String,
    /// How many calls with this verb and key the process had made before.
    nth: usize,
}

#[derive(Default)]
pub(crate) struct Desk {
    waiting: BTreeMap<Name, oneshot::Sender<Fault>>,
    made: HashMap<(usize, &'static str, String), usize>,
    /// The sum of the hashes of all calls and their answers, and of all keys and who wrote what is there.
    answered: u64,
    there: u64,
    writers: HashMap<String, String>,
    versions: HashMap<(String, String), String>,
    /// The names of random ids.
    ids: HashMap<String, String>,
    named: HashMap<usize, usize>,
    open: bool,
    pub(crate) touched: Touched,
}

/// What each process was ever seen to read and write, in this run and those before.
#[derive(Default)]
pub(crate) struct Touched {
    keys: HashMap<String, BTreeSet<(usize, bool)>>,
    prefixes: BTreeSet<(usize, String)>,
    pub(crate) grew: bool,
}

/// The store, as one process sees it.
pub(crate) struct Counter {
    process: usize,
    below: Arc<MemoryStore>,
    desk: Arc<Mutex<Desk>>,
}

pub(crate) fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Touched {
    fn add(&mut self, name: &Name) {
        self.grew |= if name.verb == "list" {
            self.prefixes.insert((name.process, name.key.clone()))
        } else {
            self.keys.entry(name.key.clone()).or_default().insert((name.process, name.writes()))
        };
    }

    /// Whether no other process was ever seen to make a call whose order with this one matters.
    pub(crate) fn is_private(&self, name: &Name) -> bool {
        // An invariant may tie it to what another process writes.
        if name.writes() && ["blobs/", "repos/", "data/"].iter().any(|prefix| name.key.starts_with(prefix)) {
            return false;
        }
        let conflicts = |process: usize, writes: bool| process != name.process && (writes || name.writes());
        if name.verb == "list" {
            let mut below = self.keys.iter().filter(|(key, _)| key.starts_with(&name.key));
            return !below.any(|(_, by)| by.iter().any(|(process, writes)| conflicts(*process, *writes)));
        }
        let by = self.keys.get(&name.key).into_iter().flatten();
        let listed = || self.prefixes.iter().any(|(by, prefix)| conflicts(*by, false) && name.key.starts_with(prefix));
        !by.into_iter().any(|(process, writes)| conflicts(*process, *writes)) && !listed()
    }
}

impl Name {
    /// The process has started again so often that it is left to stand here: two that keep each other from going on could
    /// do so for ever.
    pub(crate) fn is_too_often(&self) -> bool {
        let limit = match self.verb {
            "put" => 2,
            "read" => 4,
            _ => usize::MAX,
        };
        self.nth >= limit
    }

    pub(crate) fn writes(&self) -> bool {
        !matches!(self.verb, "read" | "open" | "head" | "list")
    }
}

fn hash(of: impl Hash) -> u64 {
    let mut hash = DefaultHasher::new();
    of.hash(&mut hash);
    hash.finish()
}

impl Desk {
    /// From here on calls wait.
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    /// Names the ids in a key that was there before anything ran.
    pub(crate) fn name_initial(&mut self, key: &str) {
        self.canonical(usize::MAX, key);
    }

    /// The calls that wait, without those whose process no longer wants to know.
    pub(crate) fn waiting(&mut self) -> Vec<Name> {
        self.waiting.retain(|_, turn| !turn.is_closed());
        self.waiting.keys().cloned().collect()
    }

    /// The call goes on. `false`: no such call is waiting.
    pub(crate) fn grant(&mut self, name: &Name, fault: Fault) -> bool {
        self.waiting.remove(name).is_some_and(|turn| turn.send(fault).is_ok())
    }

    /// Runs that have the same fingerprint have the same future.
    pub(crate) fn fingerprint(&self) -> u64 {
        hash((self.answered, self.there, self.waiting.keys().collect::<Vec<_>>()))
    }

    fn answer(&mut self, name: &Name, reply: &str) {
        self.answered = self.answered.wrapping_add(hash((name, reply)));
    }

    fn writes(&mut self, key: &str, by: String) {
        self.there = self.there.wrapping_add(hash((key, &by)));
        if let Some(before) = self.writers.insert(key.to_owned(), by) {
            self.there = self.there.wrapping_sub(hash((key, &before)));
        }
    }

    fn register(&mut self, process: usize, verb: Verb, key: &str) -> (Name, oneshot::Receiver<Fault>) {
        let key = self.canonical(process, key);
        let verb = verb.name();
        let made = self.made.entry((process, verb, key.clone())).or_default();
        let name = Name { process, verb, key, nth: *made };
        *made += 1;
        self.touched.add(&name);
        let (turn, mine) = oneshot::channel();
        self.waiting.insert(name.clone(), turn);
        (name, mine)
    }

    /// The key with names for the random ids in it, given in the order in which each process brought them up.
    fn canonical(&mut self, process: usize, key: &str) -> String {
        const ID: usize = 36;
        let is_id = |text: &str| {
            let dashes = [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
            dashes && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
        };
        let mut named = key.to_owned();
        let mut at = 0;
        while let Some(id) = named.get(at..at + ID) {
            if is_id(id) {
                let next = self.named.entry(process).or_default();
                let name = self.ids.entry(id.to_owned()).or_insert_with(|| {
                    *next += 1;
                    format!("{}~{next}", process.wrapping_add(1))
                });
                named.replace_range(at..at + ID, name);
            }
            at += 1;
        }
        // The shard of a data key follows from its id.
        match named.strip_prefix("data/").and_then(|rest| rest.split_once('/')) {
            Some((_, leaf)) => format!("data/{leaf}"),
            None => named,
        }
    }

    fn content(&self, key: &str, version: &Version) -> String {
        self.versions.get(&(key.to_owned(), version.0.clone())).cloned().unwrap_or_else(|| "as it was".to_owned())
    }

    fn wrote(&mut self, name: &Name, version: Option<&Version>) {
        let by = format!("{name:?}");
        if let Some(version) = version {
            self.versions.insert((name.key.clone(), version.0.clone()), by.clone());
        }
        self.writes(&name.key, by);
    }
}

impl Counter {
    pub(crate) fn new(process: usize, below: Arc<MemoryStore>, desk: Arc<Mutex<Desk>>) -> Arc<Self> {
        Arc::new(Self { process, below, desk })
    }

    /// Waits for its turn, does it, and notes how it was answered.
    async fn call<T>(
        &self,
        verb: Verb,
        key: &str,
        work: impl Future<Output = Result<T>> + Send,
        note: impl FnOnce(&mut Desk, &Name, &T) -> String + Send,
    ) -> Result<T> {
        if !lock(&self.desk).open {
            return work.await;
        }
        let (name, turn) = lock(&self.desk).register(self.process, verb, key);
        let fault = turn.await.unwrap_or(Fault::NotApplied);
        let failed = || Err(Error::new(ErrorKind::Unavailable, format!("{name:?} {fault:?}")));
        let reply = if fault == Fault::NotApplied { failed() } else { work.await };
        let mut desk = lock(&self.desk);
        let noted = match &reply {
            Ok(reply) => note(&mut desk, &name, reply),
            Err(error) => error.kind.to_string(),
        };
        if fault == Fault::None {
            desk.answer(&name, &noted);
            reply
        } else {
            desk.answer(&name, &format!("{fault:?}"));
            failed()
        }
    }
}

#[async_trait]
impl Store for Counter {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.call(Verb::Read, key.as_str(), self.below.read(key), |desk, name, found| match found {
            Some(found) => desk.content(&name.key, &found.version),
            None => "absent".to_owned(),
        })
        .await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.call(Verb::Open, key.as_str(), self.below.open(key, span), |desk, name, _| {
            desk.writers.get(&name.key).cloned().unwrap_or_default()
        })
        .await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.call(Verb::Head, key.as_str(), self.below.head(key), |_, _, found| format!("{found:?}")).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        self.call(Verb::Put, key.as_str(), self.below.put(key, bytes, condition), |desk, name, put| match put {
            Put::Stored(version) => {
                desk.wrote(name, Some(version));
                "stored".to_owned()
            }
            Put::Lost => "lost".to_owned(),
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.call(Verb::Delete, key.as_str(), self.below.delete(key), |desk, name, ()| {
            desk.writes(&name.key, "deleted".to_owned());
            String::new()
        })
        .await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        self.call(Verb::DeleteIf, key.as_str(), self.below.delete_if(key, version), |desk, name, deleted| {
            if *deleted == Deleted::Deleted {
                desk.writes(&name.key, "deleted".to_owned());
            }
            format!("{deleted:?}")
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        let work = async {
            let mut entries = self.below.list(prefix, after, limit).await?;
            // Random names sort in random order: where the order means nothing, let it be that of the names given here.
            if prefix.starts_with("pending/") && entries.len() < limit {
                let mut desk = lock(&self.desk);
                entries.sort_by_key(|entry| desk.canonical(self.process, entry.key.as_str()));
            }
            Ok(entries)
        };
        self.call(Verb::List, prefix, work, |desk, name, entries| {
            let process = name.process;
            let lines = entries.iter().map(|entry| (desk.canonical(process, entry.key.as_str()), entry.size));
            format!("{:?}", lines.collect::<Vec<_>>())
        })
        .await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.call(Verb::Begin, key.as_str(), self.below.begin(key), |_, _, _| String::new()).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        let work = self.below.put_part(upload, number, bytes, previous);
        self.call(Verb::PutPart, upload.key.as_str(), work, |desk, name, _| {
            desk.writes(&format!("{} part {number}", name.key), format!("{name:?}"));
            String::new()
        })
        .await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.below.sync_parts(upload, parts).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.call(Verb::Complete, upload.key.as_str(), self.below.complete(upload, parts), |desk, name, ()| {
            desk.wrote(name, None);
            String::new()
        })
        .await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.call(Verb::Abort, upload.key.as_str(), self.below.abort(upload), |desk, name, ()| {
            desk.writes(&format!("{} upload", name.key), "aborted".to_owned());
            String::new()
        })
        .await
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        self.below.presign(key, ttl).await
    }

    fn limits(&self) -> Limits {
        self.below.limits()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.process, self.verb, self.key)?;
        if self.nth > 0 { write!(f, " ({})", self.nth + 1) } else { Ok(()) }
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({})", self.process)
    }
}
