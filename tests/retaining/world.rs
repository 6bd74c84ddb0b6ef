//! A store, replicas of which things go wrong with some, and what is pushed.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use glob::Pattern;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Collector, Error, PageRequest, Push, Registry, Retained, Retainer, Rule, Settings, check},
    store::{
        Store,
        faulty::{Call, Fault, Faulty},
        memory::MemoryStore,
    },
};

use crate::clock::Turned;

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) type Plan = Box<dyn Fn(usize) -> Fault + Send + Sync>;

/// A store, a replica with which things go wrong, and a sound one.
pub(crate) struct World {
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) clock: Arc<Turned>,
    pub(crate) troubled: Replica,
    pub(crate) sound: Arc<Registry>,
    pub(crate) settings: Settings,
}

/// A replica with which things go wrong as planned, from a call on.
pub(crate) struct Replica {
    pub(crate) faulty: Arc<Faulty>,
    plan: Arc<Mutex<(usize, Plan)>>,
    pub(crate) registry: Arc<Registry>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let memory = Arc::new(MemoryStore::default());
        let clock = Turned::new();
        let troubled = Replica::of(memory.clone(), &settings, &clock).await;
        let sound = Registry::open_with(memory.clone(), settings.clone(), clock.clone()).await.unwrap();
        Self { memory, clock, troubled, sound, settings }
    }

    /// Another one with which things go wrong.
    pub(crate) async fn another(&self) -> Replica {
        self.another_over(self.memory.clone()).await
    }

    pub(crate) async fn another_over(&self, store: Arc<dyn Store>) -> Replica {
        Replica::of(store, &self.settings, &self.clock).await
    }

    /// Three tags, of which the last but one is to go; an old manifest with no tag; an old orphan.
    pub(crate) async fn to_be_pruned(undelete: Duration) -> Self {
        let world = Self::with(Settings { undelete, ..Settings::default() }).await;
        for tag in ["t1", "t2", "t3"] {
            push(&world.sound, tag, &plain(tag)).await.unwrap();
            world.forward(HOUR);
        }
        put(&world.sound, &plain("old")).await.unwrap();
        put(&world.sound, &of_subject("orphan", &plain("subject"))).await.unwrap();
        world.forward(3 * DAY);
        world.sound.settle().await;
        world
    }

    pub(crate) fn forward(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A walk of a sound replica, and everything is sound after it.
    pub(crate) async fn walk(&self, rules: &[Rule]) -> Retained {
        self.sound.settle().await;
        let done = Retainer::new(Arc::clone(&self.sound), rules.to_vec()).walk().await.unwrap();
        self.is_sound().await.unwrap();
        done
    }

    /// What a walk would say, without the digests.
    pub(crate) async fn decisions(&self, rules: &[Rule]) -> Vec<String> {
        let mut lines = Vec::new();
        let retainer = Retainer::new(Arc::clone(&self.sound), rules.to_vec());
        retainer.walk_telling(&mut |decision| lines.push(decision.to_string())).await.unwrap();
        lines
    }

    pub(crate) async fn is_sound(&self) -> Result<(), String> {
        let mut findings = Vec::new();
        check::check(self.memory.clone(), |finding| findings.push(finding.to_string())).await.unwrap();
        if findings.is_empty() { Ok(()) } else { Err(format!("{findings:?}")) }
    }

    pub(crate) async fn has(&self, manifest: &str) -> bool {
        self.sound.manifest(&repository(), &Reference::Digest(digest(manifest))).await.is_ok()
    }

    pub(crate) async fn target(&self, tag: &str) -> Option<Digest> {
        let head = self.sound.head_manifest(&repository(), &Reference::Tag(named(tag))).await;
        head.ok().map(|head| head.digest)
    }

    pub(crate) async fn tags(&self) -> Vec<String> {
        let listed = self.sound.tags(&repository(), &PageRequest::default()).await.unwrap();
        listed.items.iter().map(ToString::to_string).collect()
    }

    /// When everything is deleted nothing is left.
    pub(crate) async fn ends_empty(&self, manifests: &[String]) -> Result<(), String> {
        self.sound.settle().await;
        for manifest in manifests {
            // Some are gone already.
            drop(self.sound.delete_manifest(&repository(), &digest(manifest)).await);
        }
        for _ in 0..40 {
            self.forward(13 * HOUR);
            self.sound.settle().await;
            Collector::new(Arc::clone(&self.sound)).round().await.map_err(|error| format!("{error:?}"))?;
            self.is_sound().await?;
        }
        let left = self.memory.list("", None, usize::MAX).await.unwrap();
        let left: Vec<_> = left.into_iter().map(|entry| entry.key.to_string()).collect();
        if left == ["fleet/session-key"] { Ok(()) } else { Err(format!("{left:?} are left")) }
    }
}

impl Replica {
    pub(crate) async fn of(store: Arc<dyn Store>, settings: &Settings, clock: &Arc<Turned>) -> Self {
        let plan: Arc<Mutex<(usize, Plan)>> = Arc::new(Mutex::new((0, Box::new(|_| Fault::None))));
        let planned = Arc::clone(&plan);
        let faulty = Arc::new(Faulty::new(store, move |call: &Call| {
            let plan = planned.lock().unwrap();
            call.index.checked_sub(plan.0).map_or(Fault::None, &plan.1)
        }));
        let registry = Registry::open_with(faulty.clone(), settings.clone(), clock.clone()).await.unwrap();
        Self { faulty, plan, registry }
    }

    /// From here on this goes wrong, with calls counted from 0.
    pub(crate) fn plan(&self, plan: impl Fn(usize) -> Fault + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = (self.faulty.calls().len(), Box::new(plan));
    }

    pub(crate) fn calls(&self) -> usize {
        self.faulty.calls().len() - self.plan.lock().unwrap().0
    }

    /// A walk of this replica, from now on.
    pub(crate) fn walk(&self, rules: Vec<Rule>) -> impl Future<Output = Result<Retained, Error>> + Send + 'static {
        let retainer = Retainer::new(Arc::clone(&self.registry), rules);
        async move { retainer.walk().await }
    }

    /// Spawns what it does, and has it stop before the call with this index. `None`: it had none, and is through.
    pub(crate) async fn stop<T: Send + 'static>(
        &self,
        at: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<tokio::task::JoinHandle<T>> {
        self.plan(move |index| if index >= at { Fault::Halted } else { Fault::None });
        let task = tokio::spawn(work);
        self.halted().await.then_some(task)
    }

    pub(crate) async fn halted(&self) -> bool {
        let halted = tokio::time::timeout(Duration::from_mins(1), self.faulty.halted()).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.plan(|_| Fault::None);
        halted.is_ok()
    }
}

pub(crate) fn repository() -> Repository {
    Repository::parse("team/app").unwrap()
}

pub(crate) fn named(tag: &str) -> Tag {
    Tag::parse(tag).unwrap()
}

pub(crate) fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

pub(crate) fn descriptor(media_type: &str, content: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest(content), content.len())
}

/// A manifest that names nothing.
pub(crate) fn plain(note: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"annotations":{{"note":"{note}"}}}}"#)
}

pub(crate) fn index_of(note: &str, child: &str) -> String {
    let (child, note) = (descriptor(INDEX, child), format!(r#"{{"note":"{note}"}}"#));
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{child}],"annotations":{note}}}"#)
}

pub(crate) fn of_subject(note: &str, subject: &str) -> String {
    let (subject, note) = (descriptor(INDEX, subject), format!(r#"{{"note":"{note}"}}"#));
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"subject":{subject},"annotations":{note}}}"#)
}

pub(crate) async fn push_to(registry: &Arc<Registry>, target: Reference, manifest: &str) -> Result<Digest, Error> {
    let bytes = manifest.to_owned().into();
    let push = Push { target, tags: Vec::new(), content_type: None, bytes, condition: None };
    registry.put_manifest(&repository(), push).await.map(|pushed| pushed.digest)
}

pub(crate) async fn push(registry: &Arc<Registry>, tag: &str, manifest: &str) -> Result<Digest, Error> {
    push_to(registry, Reference::Tag(named(tag)), manifest).await
}

/// Pushes without a tag.
pub(crate) async fn put(registry: &Arc<Registry>, manifest: &str) -> Result<Digest, Error> {
    push_to(registry, Reference::Digest(digest(manifest)), manifest).await
}

pub(crate) fn rule() -> Rule {
    Rule { repositories: vec![Pattern::new("team/**").unwrap()], ..Rule::default() }
}

pub(crate) fn last(count: u32) -> Rule {
    Rule { keep_last: NonZeroU32::new(count), ..rule() }
}

pub(crate) fn untagged(days: u64) -> Rule {
    Rule { untagged_older: Some(Duration::from_secs(days * DAY)), ..rule() }
}

pub(crate) fn pruning() -> Vec<Rule> {
    vec![last(1), Rule { orphaned_referrers: true, ..untagged(2) }]
}

/// How many manifests are condemned.
pub(crate) async fn condemned(world: &World) -> usize {
    let mut condemned = 0;
    for entry in world.memory.list("repos/", None, usize::MAX).await.unwrap() {
        let found = world.memory.read(&entry.key).await.unwrap().unwrap();
        condemned += usize::from(found.bytes.first() == Some(&b'c'));
    }
    condemned
}
