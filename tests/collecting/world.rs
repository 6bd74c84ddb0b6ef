//! A store, a sound replica, and others that get into trouble.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use marina_distribution::{
    oci::Reference,
    registry::{Collector, Registry, Settings, check},
    store::{
        Key, Span, Store,
        faulty::{Call, Fault, Faulty},
        memory::MemoryStore,
    },
};
use tokio::task::JoinHandle;

use crate::{
    clock::Turned,
    content::{Doc, digest, push, repo, upload},
};

const HOUR: u64 = 3600;
const REPOSITORIES: [&str; 3] = ["a", "b", "new"];
/// Everything that any test pushes.
const BLOBS: [&str; 8] = ["kept", "shared", "gone", "orphan", "one", "two", "sig", "a session of parts"];
pub(crate) const PAIR: [&str; 2] = ["one", "two"];

type Plan = Box<dyn Fn(usize) -> Fault + Send + Sync>;

pub(crate) struct World {
    pub(crate) memory: Arc<MemoryStore>,
    clock: Arc<Turned>,
    settings: Settings,
    pub(crate) sound: Arc<Registry>,
}

/// A replica with which things go wrong as planned.
pub(crate) struct Replica {
    faulty: Arc<Faulty>,
    plan: Arc<Mutex<(usize, Plan)>>,
    pub(crate) registry: Arc<Registry>,
}

impl World {
    pub(crate) async fn new(settings: Settings) -> Self {
        let memory = Arc::new(MemoryStore::default());
        let clock = Turned::new();
        let sound = Registry::open_with(memory.clone(), settings.clone(), clock.clone()).await.unwrap();
        Self { memory, clock, settings, sound }
    }

    /// Images that stay, one that is deleted, and a blob that nothing refers to.
    pub(crate) async fn with_garbage() -> Self {
        let world =
            Self::new(Settings { grace: Duration::ZERO, undelete: Duration::ZERO, ..Settings::default() }).await;
        for (repository, tag, blob) in
            [("a", "t", "kept"), ("a", "u", "shared"), ("b", "t", "shared"), ("a", "v", "gone")]
        {
            upload(&world.sound, repository, blob).await.unwrap();
            push(&world.sound, repository, Some(tag), Doc::Image(blob)).await.unwrap();
        }
        upload(&world.sound, "a", "orphan").await.unwrap();
        for blob in ["shared", "gone"] {
            world.sound.delete_manifest(&repo("a"), &Doc::Image(blob).digest()).await.unwrap();
        }
        world.sound.settle().await;
        world
    }

    pub(crate) async fn replica(&self) -> Replica {
        let plan: Arc<Mutex<(usize, Plan)>> = Arc::new(Mutex::new((0, Box::new(|_| Fault::None))));
        let planned = Arc::clone(&plan);
        let faulty = Arc::new(Faulty::new(self.memory.clone(), move |call: &Call| {
            let plan = planned.lock().unwrap();
            call.index.checked_sub(plan.0).map_or(Fault::None, &plan.1)
        }));
        let registry = Registry::open_with(faulty.clone(), self.settings.clone(), self.clock.clone()).await.unwrap();
        Replica { faulty, plan, registry }
    }

    pub(crate) fn forward(&self, hours: u64) {
        self.clock.0.fetch_add(hours * HOUR, Ordering::Relaxed);
    }

    /// Sound rounds, one every so many hours, each of another collector; after each everything is sound.
    pub(crate) async fn rounds(&self, rounds: u64, hours: u64) -> Result<(), String> {
        for _ in 0..rounds {
            self.forward(hours);
            self.round().await?;
            self.is_sound().await?;
        }
        Ok(())
    }

    async fn round(&self) -> Result<(), String> {
        self.sound.settle().await;
        Collector::new(Arc::clone(&self.sound)).round().await.map(drop).map_err(|error| format!("{error:?}"))
    }

    /// A sound walk, and the round that has to follow.
    pub(crate) async fn walk(&self) -> Result<(), String> {
        let collector = Collector::new(Arc::clone(&self.sound));
        collector.walk(&mut |_| {}).await.map_err(|error| format!("{error:?}"))?;
        self.rounds(1, 0).await
    }

    pub(crate) async fn is_sound(&self) -> Result<(), String> {
        let mut findings = Vec::new();
        check::check(self.memory.clone(), |finding| findings.push(finding.to_string())).await.unwrap();
        if findings.is_empty() { Ok(()) } else { Err(format!("{findings:?}")) }
    }

    /// To the last byte.
    pub(crate) async fn reads(&self, repository: &str, blob: &str) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Debug| format!("{blob} of {repository}: {error:?}");
        let found = self.sound.find_blob(&repo(repository), &digest(blob)).await.map_err(|error| failed(&error))?;
        let body = self.sound.read_blob(&found, Span::ALL).await.map_err(|error| failed(&error))?;
        let pieces: Vec<_> = body.into_stream().map(Result::unwrap).collect().await;
        if pieces.concat() == blob.as_bytes() { Ok(()) } else { Err(failed(&pieces)) }
    }

    /// The manifest, and all that it needs.
    pub(crate) async fn serves(&self, repository: &str, reference: Reference, doc: Doc) -> Result<(), String> {
        let found = self.sound.manifest(&repo(repository), &reference).await;
        let bytes = found.map_err(|error| format!("{doc:?} of {repository}: {error:?}"))?.1;
        if bytes != doc.text().as_bytes() {
            return Err(format!("{reference:?} of {repository} is not {doc:?}"));
        }
        for blob in doc.blobs() {
            self.reads(repository, blob).await?;
        }
        Ok(())
    }

    /// When everything is deleted nothing is left.
    pub(crate) async fn ends_empty(&self) -> Result<(), String> {
        for repository in REPOSITORIES {
            let images = BLOBS.map(Doc::Image);
            for doc in [Doc::Signature(PAIR, "sig"), Doc::Index(PAIR)].into_iter().chain(images) {
                // Some are gone already.
                drop(self.sound.delete_manifest(&repo(repository), &doc.digest()).await);
            }
            for blob in BLOBS {
                drop(self.sound.delete_blob(&repo(repository), &digest(blob)).await);
            }
        }
        for _ in 0..6 {
            self.forward(26);
            self.round().await?;
        }
        let left = self.keys("").await;
        if left == ["fleet/session-key"] { Ok(()) } else { Err(format!("{left:?} are left")) }
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = self.memory.list(prefix, None, usize::MAX).await.unwrap();
        entries.into_iter().map(|entry| entry.key.to_string()).collect()
    }

    pub(crate) async fn remove(&self, prefix: &str) {
        for key in self.keys(prefix).await {
            self.memory.delete(&Key::parse(key).unwrap()).await.unwrap();
        }
    }
}

impl Replica {
    /// From here on this goes wrong, with calls counted from 0.
    pub(crate) fn plan(&self, plan: impl Fn(usize) -> Fault + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = (self.faulty.calls().len(), Box::new(plan));
    }

    /// Since the last plan.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.faulty.calls().split_off(self.plan.lock().unwrap().0)
    }

    pub(crate) async fn deliver_late(&self) {
        self.faulty.deliver_late().await;
    }

    pub(crate) fn collector(&self) -> Collector {
        Collector::new(Arc::clone(&self.registry))
    }

    /// Has it stop before the call with this index, whatever it does side by side with that. `Err`: it was over before.
    pub(crate) async fn stop<T: Send + 'static>(
        &self,
        at: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<JoinHandle<T>, T> {
        let stopping = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&stopping);
        self.plan(move |index| if index >= at && still.load(Ordering::Relaxed) { Fault::Halted } else { Fault::None });
        let mut task = tokio::spawn(work);
        tokio::select! {
            biased;
            () = self.faulty.halted() => {}
            done = &mut task => return Err(done.unwrap()),
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        stopping.store(false, Ordering::Relaxed);
        Ok(task)
    }

    /// Lets go on what was stopped, to its end.
    pub(crate) async fn release<T>(&self, task: JoinHandle<T>) -> T {
        self.faulty.release();
        let done = task.await.unwrap();
        self.registry.settle().await;
        done
    }
}
