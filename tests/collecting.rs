//! The collector among faults: trouble at each store call of its rounds, and rounds that stall before each of their calls
//! while a client pushes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Clock, Collector, Error, Push, Registry, Settings, check},
    store::{
        Store,
        faulty::{Call, Fault, Faulty},
        memory::MemoryStore,
    },
};

const HOUR: u64 = 3600;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// How many further calls are applied before a late request arrives; the last means at the very end.
const LATE: [usize; 3] = [1, 4, usize::MAX];

type Plan = Box<dyn Fn(usize) -> Fault + Send + Sync>;

/// A clock that a test turns.
#[derive(Debug)]
struct Turned(AtomicU64);

impl Clock for Turned {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// A store, a replica with which things go wrong, and a sound one.
struct World {
    memory: Arc<MemoryStore>,
    faulty: Arc<Faulty>,
    plan: Arc<Mutex<(usize, Plan)>>,
    clock: Arc<Turned>,
    troubled: Arc<Registry>,
    sound: Arc<Registry>,
}

impl World {
    async fn new(settings: Settings) -> Self {
        let memory = Arc::new(MemoryStore::default());
        let plan: Arc<Mutex<(usize, Plan)>> = Arc::new(Mutex::new((0, Box::new(|_| Fault::None))));
        let planned = Arc::clone(&plan);
        let faulty = Arc::new(Faulty::new(memory.clone(), move |call: &Call| {
            let plan = planned.lock().unwrap();
            call.index.checked_sub(plan.0).map_or(Fault::None, &plan.1)
        }));
        let clock = Arc::new(Turned(AtomicU64::new(1_800_000_000)));
        let troubled = Registry::open_with(faulty.clone(), settings.clone(), clock.clone()).await.unwrap();
        let sound = Registry::open_with(memory.clone(), settings, clock.clone()).await.unwrap();
        Self { memory, faulty, plan, clock, troubled, sound }
    }

    /// Images that stay, one that is deleted, and a blob that nothing refers to.
    async fn with_garbage() -> Self {
        let world =
            Self::new(Settings { grace: Duration::ZERO, undelete: Duration::ZERO, ..Settings::default() }).await;
        for (repository, tag, blob) in
            [("a", "t", "kept"), ("a", "u", "shared"), ("b", "t", "shared"), ("a", "v", "gone")]
        {
            upload(&world.sound, repository, blob).await.unwrap();
            push(&world.sound, repository, tag, blob).await.unwrap();
        }
        upload(&world.sound, "a", "orphan").await.unwrap();
        for blob in ["shared", "gone"] {
            world.sound.delete_manifest(&repo("a"), &digest(&image(blob))).await.unwrap();
        }
        world.sound.settle().await;
        world
    }

    fn forward(&self, hours: u64) {
        self.clock.0.fetch_add(hours * HOUR, Ordering::Relaxed);
    }

    /// From here on this goes wrong, with calls counted from 0.
    fn plan(&self, plan: impl Fn(usize) -> Fault + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = (self.faulty.calls().len(), Box::new(plan));
    }

    fn calls(&self) -> usize {
        self.faulty.calls().len() - self.plan.lock().unwrap().0
    }

    /// Sound rounds, one every so many hours, each of another collector; after each everything is sound.
    async fn rounds(&self, rounds: u64, hours: u64) -> Result<(), String> {
        for _ in 0..rounds {
            self.forward(hours);
            self.sound.settle().await;
            Collector::new(Arc::clone(&self.sound)).round().await.map_err(|error| format!("{error:?}"))?;
            self.is_sound().await?;
        }
        Ok(())
    }

    async fn is_sound(&self) -> Result<(), String> {
        let mut findings = Vec::new();
        check::check(self.memory.clone(), |finding| findings.push(finding.to_string())).await.unwrap();
        if findings.is_empty() { Ok(()) } else { Err(format!("{findings:?}")) }
    }

    async fn reads(&self, repository: &str, blob: &str) -> Result<(), String> {
        let found = self.sound.find_blob(&repo(repository), &digest(blob)).await;
        found.map(drop).map_err(|error| format!("{blob} of {repository}: {error:?}"))
    }

    /// When everything is deleted nothing is left.
    async fn ends_empty(&self) -> Result<(), String> {
        for (repository, blob) in
            ["a", "b"].iter().flat_map(|of| ["kept", "shared", "gone", "orphan"].map(|b| (*of, b)))
        {
            // Some are gone already.
            drop(self.sound.delete_manifest(&repo(repository), &digest(&image(blob))).await);
            drop(self.sound.delete_blob(&repo(repository), &digest(blob)).await);
        }
        self.rounds(20, 13).await?;
        let left = self.memory.list("", None, usize::MAX).await.unwrap();
        let left: Vec<_> = left.into_iter().map(|entry| entry.key.to_string()).collect();
        if left == ["fleet/session-key"] { Ok(()) } else { Err(format!("{left:?} are left")) }
    }

    /// Spawns what the troubled replica does, and has it stop before the call with this index.
    async fn stop<T: Send + 'static>(
        &self,
        at: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let stopping = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&stopping);
        self.plan(move |index| if index >= at && still.load(Ordering::Relaxed) { Fault::Halted } else { Fault::None });
        let task = tokio::spawn(work);
        self.faulty.halted().await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        stopping.store(false, Ordering::Relaxed);
        task
    }
}

fn repo(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn image(blob: &str) -> String {
    let (digest, size) = (digest(blob), blob.len());
    let config = format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{size}}}"#);
    format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[]}}"#)
}

async fn upload(registry: &Arc<Registry>, repository: &str, blob: &str) -> Result<(), Error> {
    let body = Box::pin(stream::iter([Ok(Bytes::from(blob.to_owned()))]));
    let chunk = Chunk { start: None, declared: None, length: Some(blob.len() as u64), body };
    registry.upload_whole(&repo(repository), &digest(blob), chunk).await.map(drop)
}

async fn push(registry: &Arc<Registry>, repository: &str, tag: &str, blob: &str) -> Result<(), Error> {
    let target = Reference::Tag(Tag::parse(tag).unwrap());
    let push = Push { target, tags: Vec::new(), content_type: None, bytes: image(blob).into(), condition: None };
    registry.put_manifest(&repo(repository), push).await.map(drop)
}

/// One round after so many sound ones, with trouble; then what is needed is there, and nothing else stays.
async fn trial(before: u64, trouble: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Result<usize, String> {
    let world = World::with_garbage().await;
    world.rounds(before, 2).await?;
    world.forward(2);
    world.plan(trouble);
    // It may fail: the next goes on.
    drop(Collector::new(Arc::clone(&world.troubled)).round().await);
    let calls = world.calls();
    world.plan(|_| Fault::None);
    world.is_sound().await?;
    world.rounds(1, 2).await?;
    world.faulty.deliver_late().await;
    world.is_sound().await?;
    world.rounds(12, 6).await?;
    for (repository, blob) in [("a", "kept"), ("b", "shared")] {
        world.reads(repository, blob).await?;
        push(&world.sound, repository, "again", blob).await.map_err(|error| format!("{error:?}"))?;
    }
    world.ends_empty().await?;
    Ok(calls)
}

/// Tries every call of each of the rounds that the garbage takes.
async fn try_all(fault: impl Fn(usize, usize) -> Fault + Copy + Send + Sync + 'static) {
    let mut failures = Vec::new();
    for before in 0..4 {
        let calls = trial(before, |_| Fault::None).await.unwrap();
        for at in 0..calls {
            if let Err(failure) = trial(before, move |index| fault(at, index)).await {
                failures.push(format!("call {at} of {calls} after {before} rounds: {failure}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures: {}", failures.len(), failures.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn whichever_call_of_a_round_is_lost_or_loses_its_reply_the_next_rounds_finish_and_take_nothing_needed() {
    for fault in [Fault::NotApplied, Fault::ReplyLost] {
        try_all(move |at, index| if index == at { fault } else { Fault::None }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_collector_dies_the_next_one_finishes_and_takes_nothing_needed() {
    try_all(|at, index| if index >= at { Fault::NotApplied } else { Fault::None }).await;
}

#[tokio::test(start_paused = true)]
async fn whichever_call_of_a_round_arrives_late_or_again_nothing_needed_is_taken_and_nothing_stays() {
    for after in LATE {
        for fault in [Fault::AppliedLate { after }, Fault::RepeatedLate { after }] {
            try_all(move |at, index| if index == at { fault } else { Fault::None }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_round_stalls_who_was_told_that_a_blob_exists_can_push_and_keeps_it() {
    // The rounds that condemn it, and that take it when it has rested.
    for rested in [false, true] {
        for at in 0.. {
            let world = World::new(Settings::default()).await;
            upload(&world.sound, "a", "orphan").await.unwrap();
            world.sound.settle().await;
            let told = world.sound.stat_blob(&repo("a"), &digest("orphan")).await.is_ok();
            assert!(told);
            world.forward(25);
            if rested {
                world.rounds(1, 0).await.unwrap();
                world.forward(25);
            }
            let told = world.sound.stat_blob(&repo("a"), &digest("orphan")).await.is_ok();
            assert_eq!(told, !rested, "what is condemned answers that it is absent");
            let collector = Collector::new(Arc::clone(&world.troubled));
            let task =
                tokio::time::timeout(Duration::from_mins(1), world.stop(at, async move { collector.round().await }));
            let stopped = task.await.ok();
            let pushed = push(&world.sound, "a", "t", "orphan").await;
            assert!(pushed.is_ok() || rested, "{at}: {pushed:?}");
            world.faulty.release();
            let is_over = stopped.is_none();
            if let Some(task) = stopped {
                drop(task.await.unwrap());
            }
            world.is_sound().await.unwrap();
            world.rounds(12, 13).await.unwrap();
            if pushed.is_ok() {
                world.reads("a", "orphan").await.unwrap();
            }
            if is_over {
                break;
            }
        }
    }
}
