//! The real operations, held to the model branch by branch.

mod blobs;
mod collector;
mod expiry;
mod manifests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Clock, Error, Push, Registry, SessionId, Settings, TagCondition},
    store::{
        Store,
        faulty::{Fault, Faulty},
        memory::MemoryStore,
    },
};

use crate::{
    explore::Scenario,
    link::{Meddle, Rounds, Script, Step, Told, alone, rewrite, same},
    process::{Announced, Brings, From, Job, Op, Outcome},
    scenarios::Start,
    world::{D, INDEX, Is, Key},
};

const BLOB: &[u8] = b"one";
const PARTS: &[u8] = b"0123456789";
const TAIL: &[u8] = b"0123456";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Debug)]
struct Hours(u64);

impl Clock for Hours {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + Duration::from_hours(self.0)
    }
}

/// A store and what was done to it before.
struct Code {
    below: Arc<MemoryStore>,
    told: Arc<Told>,
    registry: Arc<Registry>,
}

fn repo(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn chunk(bytes: &'static [u8]) -> Chunk {
    let length = Some(bytes.len() as u64);
    Chunk { start: None, declared: None, length, body: Box::pin(stream::iter([Ok(Bytes::from_static(bytes))])) }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// An image of [`BLOB`]; a referrer, if it has a subject.
fn image(has_subject: bool) -> String {
    let config = format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, digest(BLOB), BLOB.len());
    let subject = format!(r#","subject":{{"mediaType":"{IMAGE}","digest":"{}","size":1}}"#, digest(b"subject"));
    let subject = if has_subject { subject.as_str() } else { "" };
    format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[]{subject}}}"#)
}

fn index() -> String {
    let (child, size) = (digest(image(false).as_bytes()), image(false).len());
    let child = format!(r#"{{"mediaType":"{IMAGE}","digest":"{child}","size":{size}}}"#);
    let is = "application/vnd.oci.image.index.v1+json";
    format!(r#"{{"schemaVersion":2,"mediaType":"{is}","manifests":[{child}]}}"#)
}

/// An image of nothing that is checked.
fn other() -> String {
    let is = "application/vnd.oci.image.index.v1+json";
    format!(r#"{{"schemaVersion":2,"mediaType":"{is}","manifests":[]}}"#)
}

fn push(bytes: String, tags: &[&str]) -> Push {
    let target = Reference::Digest(digest(bytes.as_bytes()));
    let tags = tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
    Push { target, tags, content_type: None, bytes: bytes.into(), condition: None }
}

fn ends<T>(done: &Result<T, Error>) -> Outcome {
    match done {
        Ok(_) => Outcome::Acknowledged,
        Err(Error::Store(_) | Error::Busy) => Outcome::Failed,
        Err(_) => Outcome::Refused,
    }
}

impl Code {
    async fn new() -> Self {
        Self::at(0, Arc::new(MemoryStore::default())).await
    }

    /// A registry so many hours later, which remembers nothing.
    async fn at(hours: u64, below: Arc<MemoryStore>) -> Self {
        let told = Told::new(below.clone(), &[]);
        let registry = Registry::open_with(told.clone(), Settings::default(), Arc::new(Hours(hours))).await.unwrap();
        Self { below, told, registry }
    }

    async fn with_blob() -> Self {
        let code = Self::new().await;
        code.registry.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await.unwrap();
        code.clean().await
    }

    async fn with_image(has_subject: bool, tags: &[&str]) -> Self {
        let code = Self::with_blob().await;
        code.registry.put_manifest(&repo("a"), push(image(has_subject), tags)).await.unwrap();
        code.clean().await
    }

    /// Without what is left over.
    async fn clean(self) -> Self {
        self.registry.settle().await;
        for prefix in ["pending/", "dropped/"] {
            for entry in self.below.list(prefix, None, 1000).await.unwrap() {
                self.below.delete(&entry.key).await.unwrap();
            }
        }
        self
    }

    /// The first register of this kind is rewritten by hand.
    async fn with(self, prefix: &str, leaf: &str, is: Is) -> Self {
        let entries = self.below.list(prefix, None, 1000).await.unwrap();
        let entry = entries.iter().find(|entry| entry.key.as_str().ends_with(leaf)).unwrap();
        rewrite(&self.below, entry.key.as_str(), is).await;
        self
    }

    async fn holder(self, is: Is) -> Self {
        self.with("blobs/", "/a", is).await
    }

    async fn record(self, is: Is) -> Self {
        self.with("blobs/", "/_", is).await
    }

    async fn manifest(self, is: Is) -> Self {
        self.with("repos/a/_manifests/", "", is).await
    }

    /// What the code does, and how it ends.
    async fn run(&self, script: Script, work: impl AsyncFn(&Arc<Registry>) -> Outcome) -> (Rounds, Outcome) {
        self.told.start(script);
        let outcome = work(&self.registry).await;
        self.registry.settle().await;
        (self.told.rounds(), outcome)
    }

    async fn upload(&self, script: Script) -> (Rounds, Outcome) {
        self.run(script, async |registry| ends(&registry.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await))
            .await
    }

    async fn mount(&self, script: Script) -> (Rounds, Outcome) {
        self.run(script, async |registry| match registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await {
            Ok(false) => Outcome::Refused,
            done => ends(&done),
        })
        .await
    }

    async fn push(&self, script: Script, push: Push) -> (Rounds, Outcome) {
        self.run(script, async |registry| ends(&registry.put_manifest(&repo("a"), push.clone()).await)).await
    }

    async fn delete(&self, script: Script, has_subject: bool) -> (Rounds, Outcome) {
        let digest = digest(image(has_subject).as_bytes());
        self.run(script, async |registry| ends(&registry.delete_manifest(&repo("a"), &digest).await)).await
    }

    async fn finish(&self, id: SessionId, content: &[u8]) -> (Rounds, Outcome) {
        self.run(&[], async |registry| ends(&registry.finish(&repo("a"), id, &digest(content), chunk(b"")).await)).await
    }

    async fn expire(&self) -> (Rounds, Outcome) {
        self.expire_at(48).await
    }

    async fn expire_at(&self, hours: u64) -> (Rounds, Outcome) {
        let later = Self::at(hours, self.below.clone()).await;
        later.run(&[], async |registry| ends(&registry.expire().await)).await
    }

    async fn session(&self, content: &'static [u8]) -> SessionId {
        let id = self.registry.start_upload(&repo("a"), Algorithm::Sha256);
        self.registry.append(&repo("a"), id, chunk(content)).await.unwrap();
        id
    }

    /// A registry whose store is gone from this call on: its process died.
    async fn dying(&self, calls: usize) -> Arc<Registry> {
        self.dying_at(0, calls).await
    }

    async fn dying_at(&self, hours: u64, calls: usize) -> Arc<Registry> {
        let dies = move |call: &marina_distribution::store::faulty::Call| {
            if call.index > calls { Fault::NotApplied } else { Fault::None }
        };
        let store = Arc::new(Faulty::new(self.below.clone(), dies));
        Registry::open_with(store, Settings::default(), Arc::new(Hours(hours))).await.unwrap()
    }
}

const PUT_HOLDER: Step = ("put", "holder");
const PUT_RECORD: Step = ("put", "record");
const PUT_MANIFEST: Step = ("put", "manifest");
const PUT_TAG: Step = ("put", "tag");
const READ_RECORD: Step = ("read", "record");
const READ_HOLDER: Step = ("read", "holder");
const READ_MANIFEST: Step = ("read", "manifest");
const READ_TAG: Step = ("read", "tag");
const PUT_PENDING: Step = ("put", "pending");
const UPLOAD: Op = Op::Upload { repo: 0, blob: 0, from: From::Attempt };

fn session(remembered: bool, tail: bool) -> Op {
    Op::Upload { repo: 0, blob: 0, from: From::Session { session: 0, remembered, tail } }
}

fn pushes(manifest: u8, tags: u8) -> Op {
    Op::Push(Job { repo: 0, manifest, tags, condition: None })
}

fn blob() -> Start {
    Start::empty().blob(0)
}
