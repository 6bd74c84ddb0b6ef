//! The real operations, held to the model branch by branch.

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
        let later = Self::at(48, self.below.clone()).await;
        later.run(&[], async |registry| ends(&registry.expire().await)).await
    }

    async fn session(&self, content: &'static [u8]) -> SessionId {
        let id = self.registry.start_upload(&repo("a"), Algorithm::Sha256);
        self.registry.append(&repo("a"), id, chunk(content)).await.unwrap();
        id
    }

    /// A registry whose store is gone from this call on: its process died.
    async fn dying(&self, calls: usize) -> Arc<Registry> {
        let dies = move |call: &marina_distribution::store::faulty::Call| {
            if call.index > calls { Fault::NotApplied } else { Fault::None }
        };
        let store = Arc::new(Faulty::new(self.below.clone(), dies));
        Registry::open_with(store, Settings::default(), Arc::new(Hours(0))).await.unwrap()
    }
}

const PUT_HOLDER: Step = ("put", "holder");
const PUT_RECORD: Step = ("put", "record");
const PUT_MANIFEST: Step = ("put", "manifest");
const PUT_TAG: Step = ("put", "tag");
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

#[tokio::test(start_paused = true)]
async fn uploads_are_as_modelled() {
    let new = Start::empty();
    same("new", &alone(new, UPLOAD), &[], Code::new().await.upload(&[]).await);
    same("there", &alone(blob(), UPLOAD), &[], Code::with_blob().await.upload(&[]).await);
    for is in [Is::Condemned, Is::Gone, Is::Deleted] {
        let code = Code::with_blob().await.holder(is).await;
        same(&format!("holder {is:?}"), &alone(blob().holder(0, 0, is), UPLOAD), &[], code.upload(&[]).await);
    }
    let code = Code::with_blob().await.holder(Is::Gone).await.record(Is::Condemned).await;
    let start = Start::empty().condemned_record(0).holder(0, 0, Is::Gone);
    same("record condemned", &alone(start, UPLOAD), &[], code.upload(&[]).await);
    let code = Code::with_blob().await.holder(Is::Gone).await.record(Is::Gone).await;
    let start = Start::empty().put(Key::Record(0), Is::Gone, 0).holder(0, 0, Is::Gone);
    same("all gone", &alone(start, UPLOAD), &[], code.upload(&[]).await);

    let scripts: [Script; 7] = [
        &[(PUT_RECORD, 0, Meddle::Fenced)],
        &[(PUT_HOLDER, 0, Meddle::Fenced)],
        &[(PUT_PENDING, 0, Meddle::NotApplied)],
        &[(PUT_RECORD, 0, Meddle::NotApplied)],
        &[(PUT_RECORD, 0, Meddle::ReplyLost)],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost)],
        &[(PUT_HOLDER, 0, Meddle::NotApplied), (PUT_HOLDER, 1, Meddle::ReplyLost)],
    ];
    for script in scripts {
        same(&format!("new, {script:?}"), &alone(new, UPLOAD), script, Code::new().await.upload(script).await);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_as_modelled() {
    let open = Start::empty().session(0);
    for (content, tail) in [(PARTS, false), (TAIL, true)] {
        let code = Code::new().await;
        let id = code.session(content).await;
        same("remembered", &alone(open, session(true, tail)), &[], code.finish(id, content).await);
        let code = Code::new().await;
        let id = code.session(content).await;
        let replica = Code::at(0, code.below.clone()).await;
        same("read", &alone(open, session(false, tail)), &[], replica.finish(id, content).await);
        // Once more, its reply having been lost.
        let again = Start::empty().session(0).put(Key::End(0), Is::Live, 1).blob(0);
        same("again", &alone(again, session(false, tail)), &[], replica.finish(id, content).await);
    }
    let code = Code::new().await;
    let id = code.registry.start_upload(&repo("a"), Algorithm::Sha256);
    let small = Op::Upload { repo: 0, blob: 0, from: From::Small { session: 0 } };
    let work =
        async |registry: &Arc<Registry>| ends(&registry.finish(&repo("a"), id, &digest(BLOB), chunk(BLOB)).await);
    same("small", &alone(Start::empty(), small), &[], code.run(&[], work).await);
}

#[tokio::test(start_paused = true)]
async fn mounts_are_as_modelled() {
    let mount = Op::Mount { from: 0, to: 1, blob: 0 };
    same("source there", &alone(blob(), mount), &[], Code::with_blob().await.mount(&[]).await);
    same("nothing there", &alone(Start::empty(), mount), &[], Code::new().await.mount(&[]).await);
    let code = Code::with_blob().await.holder(Is::Condemned).await;
    same("source condemned", &alone(blob().holder(0, 0, Is::Condemned), mount), &[], code.mount(&[]).await);
    let code = Code::with_blob().await.record(Is::Condemned).await;
    let start = Start::empty().condemned_record(0).holder(0, 0, Is::Live);
    same("record condemned", &alone(start, mount), &[], code.mount(&[]).await);
    let scripts: [Script; 3] = [
        &[(PUT_HOLDER, 0, Meddle::Fenced)],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost)],
        &[(PUT_PENDING, 0, Meddle::ReplyLost)],
    ];
    for script in scripts {
        same(&format!("{script:?}"), &alone(blob(), mount), script, Code::with_blob().await.mount(script).await);
    }
}

#[tokio::test(start_paused = true)]
async fn pushes_are_as_modelled() {
    let one = || push(image(false), &["t"]);
    same("new", &alone(blob(), pushes(D, 1)), &[], Code::with_blob().await.push(&[], one()).await);
    same("blob unknown", &alone(Start::empty(), pushes(D, 1)), &[], Code::new().await.push(&[], one()).await);
    let code = Code::with_blob().await.holder(Is::Condemned).await;
    same(
        "holder condemned",
        &alone(blob().holder(0, 0, Is::Condemned), pushes(D, 1)),
        &[],
        code.push(&[], one()).await,
    );
    let both = push(image(false), &["t", "u"]);
    same("two tags", &alone(blob(), pushes(D, 3)), &[], Code::with_blob().await.push(&[], both).await);

    let listed = Start::tagged().put(Key::Catalog, Is::Live, 0);
    let scripts: [Script; 9] = [
        &[],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_MANIFEST, 0, Meddle::NotApplied)],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost)],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Deleted)), (("read", "manifest"), 1, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_TAG, 0, Meddle::ReplyLost)],
        &[(PUT_PENDING, 0, Meddle::ReplyLost)],
    ];
    for script in scripts {
        let code = Code::with_image(false, &["t"]).await;
        same(&format!("again, {script:?}"), &alone(listed, pushes(D, 1)), script, code.push(script, one()).await);
    }
    let refused = Push {
        target: Reference::Tag(Tag::parse("t").unwrap()),
        condition: Some(TagCondition::Absent),
        ..push(image(false), &[])
    };
    let op = Op::Push(Job { repo: 0, manifest: D, tags: 1, condition: Some(u8::MAX) });
    same("condition", &alone(listed, op), &[], Code::with_image(false, &["t"]).await.push(&[], refused).await);

    let referrer = || push(image(true), &["t"]);
    let with_subject = |start| alone(start, pushes(D, 1)).with_subject();
    same("referrer", &with_subject(blob()), &[], Code::with_blob().await.push(&[], referrer()).await);
    let script: Script = &[(("put", "entry"), 0, Meddle::Rewritten(Is::Deleted))];
    let code = Code::with_image(true, &["t"]).await;
    same("referrer, entry gone", &with_subject(listed.entry()), script, code.push(script, referrer()).await);

    let code = Code::with_image(false, &[]).await.manifest(Is::Condemned).await;
    let start = blob().manifest(D, Is::Condemned, 0).put(Key::Catalog, Is::Live, 0);
    same("index of a condemned child", &alone(start, pushes(INDEX, 0)), &[], code.push(&[], push(index(), &[])).await);
}

#[tokio::test(start_paused = true)]
async fn deletes_are_as_modelled() {
    let delete = Op::DeleteManifest(D);
    let scripts: [Script; 6] = [
        &[],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))],
        &[(("read", "manifest"), 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost)],
    ];
    for script in scripts {
        let code = Code::with_image(false, &["t"]).await;
        same(&format!("tagged, {script:?}"), &alone(Start::tagged(), delete), script, code.delete(script, false).await);
    }
    same("unknown", &alone(blob(), delete), &[], Code::with_blob().await.delete(&[], false).await);
    let both = Start::image().manifest(D, Is::Live, 3).tag(0, D).tag(1, D).entry();
    let code = Code::with_image(true, &["t", "u"]).await;
    same("a referrer of two tags", &alone(both, delete).with_subject(), &[], code.delete(&[], true).await);

    let scripts: [Script; 3] =
        [&[], &[(PUT_TAG, 0, Meddle::Rewritten(Is::Live))], &[(PUT_TAG, 0, Meddle::Rewritten(Is::Deleted))]];
    for script in scripts {
        let code = Code::with_image(false, &["t"]).await;
        let tag = Tag::parse("t").unwrap();
        let done = code.run(script, async |registry| ends(&registry.delete_tag(&repo("a"), &tag).await)).await;
        same(&format!("tag, {script:?}"), &alone(Start::tagged(), Op::DeleteTag(0)), script, done);
    }
    let scripts: [Script; 3] =
        [&[], &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Live))], &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Deleted))]];
    for script in scripts {
        let code = Code::with_blob().await;
        let done =
            code.run(script, async |registry| ends(&registry.delete_blob(&repo("a"), &digest(BLOB)).await)).await;
        same(&format!("blob, {script:?}"), &alone(blob(), Op::DeleteBlob { repo: 0, blob: 0 }), script, done);
    }
}

/// A reference in flight whose process is number 5 and dead.
fn died(start: Start, announced: Announced) -> Scenario {
    alone(start.put(Key::Pending(20), Is::Live, 0), Op::Expire { process: 5, tries: 0 }).dead(announced)
}

#[tokio::test(start_paused = true)]
async fn expiries_are_as_modelled() {
    let attempt = Announced::Blob { repo: 0, blob: 0, brings: Brings::Attempt };
    // Its bytes were put, its record was not.
    let code = Code::new().await;
    let dying = code.dying(2).await;
    dying.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await.unwrap_err();
    let start = Start::empty().put(Key::Data(24), Is::Live, 0);
    same("an upload that died", &died(start, attempt), &[], code.expire().await);
    let code = Code::with_blob().await;
    code.registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await.unwrap();
    let mounted = Announced::Blob { repo: 1, blob: 0, brings: Brings::Nothing };
    same("a mount", &died(blob().holder(1, 0, Is::Live), mounted), &[], code.expire().await);

    let pushed = Announced::Manifest { repo: 0, manifest: D };
    // After the reads, the reference in flight, the look: before its manifest, and after it.
    for (calls, start) in [(4, blob()), (6, blob().manifest(D, Is::Live, 0).put(Key::Catalog, Is::Live, 0))] {
        let code = Code::with_blob().await;
        code.dying(calls).await.put_manifest(&repo("a"), push(image(true), &[])).await.unwrap_err();
        let scenario = died(start, pushed).with_subject();
        same(&format!("a push that died after {calls} calls"), &scenario, &[], code.expire().await);
    }

    let code = Code::new().await;
    code.session(PARTS).await;
    let expires = Op::ExpireSession { session: 0, blob: 0 };
    same("a session", &alone(Start::empty().session(0), expires), &[], code.expire().await);
}
