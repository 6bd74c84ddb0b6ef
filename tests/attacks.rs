//! Attacks that once succeeded: each found by a hostile reader, each kept.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::many_single_char_names,
    reason = "a test that cannot go on fails"
)]

mod read;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Clock, Error, PageRequest, Push, Registry, Settings, Whole},
    store::{
        around::{Around, Call},
        fs::FsStore,
        memory::MemoryStore,
        *,
    },
};

type Pred = Box<dyn Fn(Call<'_>) -> bool + Send + Sync>;
/// Runs something just before the first call that matches.
struct Gate {
    inner: Arc<dyn Store>,
    hook: Mutex<Option<(Pred, BoxFuture<'static, ()>)>>,
    lists: AtomicUsize,
}
impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}
impl Gate {
    fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, hook: Mutex::new(None), lists: AtomicUsize::new(0) })
    }
    fn before(
        &self,
        p: impl Fn(Call<'_>) -> bool + Send + Sync + 'static,
        f: impl Future<Output = ()> + Send + 'static,
    ) {
        *self.hook.lock().unwrap() = Some((Box::new(p), Box::pin(f)));
    }
    /// Lets a request come to its first call that matches, and no further.
    async fn die_before<T>(
        &self,
        p: impl Fn(Call<'_>) -> bool + Send + Sync + 'static,
        request: impl Future<Output = T>,
    ) {
        let (here, came) = tokio::sync::oneshot::channel();
        self.before(p, async move {
            here.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let died = tokio::select! {
            _ = request => false,
            _ = came => true,
        };
        assert!(died, "it came to its end");
    }
    async fn at(&self, call: Call<'_>) {
        let run = {
            let mut h = self.hook.lock().unwrap();
            if h.as_ref().is_some_and(|(p, _)| p(call)) { h.take().map(|it| it.1) } else { None }
        };
        if let Some(run) = run {
            run.await;
        }
    }
}
impl Around for Gate {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }
    async fn around<T: Send>(&self, call: Call<'_>, asking: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if call.verb == Verb::List {
            self.lists.fetch_add(1, Ordering::SeqCst);
        }
        self.at(call).await;
        asking.await
    }
}
#[derive(Debug)]
struct At(u64);
impl Clock for At {
    fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.0)
    }
}

fn repo(n: &str) -> Repository {
    Repository::parse(n).unwrap()
}
fn tag(n: &str) -> Tag {
    Tag::parse(n).unwrap()
}
fn body(b: &'static [u8]) -> Chunk {
    Chunk {
        start: None,
        declared: None,
        length: Some(b.len() as u64),
        body: Box::pin(stream::iter([Ok(Bytes::from_static(b))])),
    }
}
fn sha(b: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, b)
}
async fn memory() -> (Arc<Gate>, Arc<Registry>) {
    let gate = Gate::new(Arc::new(MemoryStore::default()));
    let r = Registry::open(gate.clone(), Settings::default()).await.unwrap();
    (gate, r)
}
fn index(more: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]{more}}}"#
    ))
}
fn push(target: Reference, bytes: Bytes, tags: Vec<Tag>) -> Push {
    Push { target, tags, content_type: None, bytes, condition: None }
}
/// F1 (unverified: session hashes sha512, digest is sha256) completes garbage and is reading it through; F2 hashed the
/// right bytes itself, finds the upload completed, believes they are its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_finisher_takes_over_only_another_of_the_same_content() {
    let (gate, r) = memory().await;
    let a = repo("a");
    let (good, x) = (b"the right ok", sha(b"the right ok"));
    let id = r.start_upload(&a, Algorithm::Sha512);
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let f2body = Chunk {
        start: None,
        declared: None,
        length: None,
        body: Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|b| (Ok(b), rx)) })),
    };
    let f2 = {
        let (r, a) = (r.clone(), a.clone());
        tokio::spawn(async move { r.finish(&a, id, &x, f2body).await })
    };
    tx.send(Bytes::from_static(&good[..11])).unwrap();
    while gate.inner.list("uploads/", None, 10).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    r.append(&a, id, body(b"EVIL BYTES!!")).await.unwrap();
    let done = Arc::new(Mutex::new(None));
    let d2 = done.clone();
    gate.before(|it| it.verb == Verb::Open && it.key.starts_with("data/"), async move {
        tx.send(Bytes::from_static(&good[11..])).unwrap();
        drop(tx);
        *d2.lock().unwrap() = Some(f2.await.unwrap().map_err(|e| e.to_string()));
    });
    let _ = r.finish(&a, id, &x, body(b"")).await;
    // And a victim elsewhere, who has the right bytes:
    let v = repo("victim");
    r.upload_whole(&v, &x, body(good)).await.unwrap();
    assert_eq!(read::blob(&r, &v, &x).await, good, "bytes of {x}");
}

#[tokio::test]
async fn a_cancelled_session_finishes_nothing() {
    let (_, r) = memory().await;
    let a = repo("a");
    let id = r.start_upload(&a, Algorithm::Sha256);
    r.append(&a, id, body(b"abc")).await.unwrap();
    r.cancel_upload(&a, id).await.unwrap();
    let f = r.finish(&a, id, &sha(b"abc"), body(b"")).await;
    assert!(matches!(f, Err(Error::UploadUnknown)), "PUT after 204: {f:?}");
}

#[tokio::test]
async fn a_cancelled_session_takes_no_chunk() {
    let (_, r) = memory().await;
    let a = repo("a");
    let id = r.start_upload(&a, Algorithm::Sha256);
    r.append(&a, id, body(b"abc")).await.unwrap();
    r.cancel_upload(&a, id).await.unwrap();
    let p = r.append(&a, id, Chunk { start: Some(3), ..body(b"d") }).await;
    assert!(matches!(p, Err(Error::UploadUnknown)), "PATCH after 204: {p:?}");
}

#[tokio::test]
async fn a_session_finished_by_another_replica_takes_no_chunk() {
    let (gate, r) = memory().await;
    let b = Registry::open(gate.clone(), Settings::default()).await.unwrap();
    let a = repo("a");
    let id = r.start_upload(&a, Algorithm::Sha256);
    r.append(&a, id, body(b"abc")).await.unwrap();
    b.finish(&a, id, &sha(b"abc"), body(b"")).await.unwrap();
    let p = r.append(&a, id, Chunk { start: Some(3), ..body(b"d") }).await;
    assert!(matches!(p, Err(Error::UploadUnknown)), "PATCH after 201 by another replica: {p:?}");
}

/// A delete of M1 rewrites T -> M2 with a fresh nonce; the push of T -> M1 takes that for another put.
#[tokio::test]
async fn a_tag_put_that_meets_a_delete_comes_before_or_after_it() {
    let (gate, r) = memory().await;
    let a = repo("a");
    let (m1, m2) = (index(r#","annotations":{"n":"1"}"#), index(r#","annotations":{"n":"2"}"#));
    let d1 = sha(&m1);
    r.put_manifest(&a, push(Reference::Tag(tag("t")), m2.clone(), vec![])).await.unwrap();
    let (other, repo_a) = (Registry::open(gate.inner.clone(), Settings::default()).await.unwrap(), a.clone());
    gate.before(|it| it.verb == Verb::Put && it.key == "repos/a/_tags/t", async move {
        other.delete_manifest(&repo_a, &d1).await.unwrap();
    });
    let _ = r.put_manifest(&a, push(Reference::Tag(tag("t")), m1.clone(), vec![])).await;
    let t = r.head_manifest(&a, &Reference::Tag(tag("t"))).await.map(|h| h.digest).ok();
    let there = r.head_manifest(&a, &Reference::Digest(d1)).await.is_ok();
    // delete before push: t = m1 and m1 there. push before delete: t gone, m1 gone.
    assert!((t == Some(d1) && there) || (t.is_none() && !there));
}

#[tokio::test]
async fn no_tag_outlives_its_manifest_however_many_there_are() {
    let (gate, r) = memory().await;
    let a = repo("a");
    let m = index("");
    let d = sha(&m);
    for page in 0..20 {
        let tags = (0..50).map(|i| tag(&format!("a{page}-{i:03}"))).collect();
        r.put_manifest(&a, push(Reference::Digest(d), m.clone(), tags)).await.unwrap();
    }
    let (other, repo_a) = (Registry::open(gate.inner.clone(), Settings::default()).await.unwrap(), a.clone());
    gate.before(|it| it.verb == Verb::Put && it.key == "repos/a/_tags/zzz", async move {
        other.delete_manifest(&repo_a, &d).await.unwrap();
    });
    let _ = r.put_manifest(&a, push(Reference::Tag(tag("zzz")), m.clone(), vec![])).await;
    let t = r.head_manifest(&a, &Reference::Tag(tag("zzz"))).await;
    let got = r.manifest(&a, &Reference::Tag(tag("zzz"))).await.map(|it| it.0);
    assert_eq!(t.is_ok(), got.is_ok(), "I3");
}

#[tokio::test]
async fn a_refused_blob_leaves_nothing_of_a_session() {
    let (gate, r) = memory().await;
    let a = repo("a");
    for _ in 0..20 {
        r.upload_whole(&a, &sha(b"other"), body(b"x")).await.unwrap_err();
    }
    for year in 1..10u64 {
        let later =
            Registry::open_with(gate.clone(), Settings::default(), Arc::new(At(year * 365 * 86400))).await.unwrap();
        later.expire().await.unwrap();
    }
    let left = gate.inner.list("uploads/", None, 100).await.unwrap().len();
    assert_eq!(left, 0, "left after nine years of expiry");
}

#[tokio::test]
async fn what_the_target_holds_is_mounted_from_anywhere() {
    let (_, r) = memory().await;
    let a = repo("a");
    assert_eq!(r.upload_whole(&a, &sha(b"x"), body(b"x")).await.unwrap(), Whole::Stored);
    assert!(r.mount(&a, &sha(b"x"), Some(&repo("nowhere"))).await.unwrap(), "MOUNT-5");
}

#[tokio::test]
async fn a_page_steps_over_tombstones_a_list_at_a_time() {
    let (gate, r) = memory().await;
    let a = repo("a");
    let m = index("");
    for page in 0..20 {
        let tags = (0..50).map(|i| tag(&format!("a{page}-{i:03}"))).collect();
        r.put_manifest(&a, push(Reference::Digest(sha(&m)), m.clone(), tags)).await.unwrap();
    }
    for t in r.tags(&a, &PageRequest::default()).await.unwrap().items {
        r.delete_tag(&a, &t).await.unwrap();
    }
    let before = gate.lists.load(Ordering::SeqCst);
    r.tags(&a, &PageRequest { n: Some(0), last: None }).await.unwrap();
    let n0 = gate.lists.load(Ordering::SeqCst) - before;
    assert!(n0 <= 2, "{n0} list calls for one request over 1000 deleted tags");
}

/// The expiry completes a push that died a day ago, while a client deletes its manifest.
#[tokio::test]
async fn a_delete_that_meets_a_completion_deletes() {
    let (gate, r) = memory().await;
    let a = repo("a");
    let subject = sha(b"subject");
    let m = index(&format!(
        r#","subject":{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{subject}","size":7}},"artifactType":"a/b""#
    ));
    let d = sha(&m);
    let request = r.put_manifest(&a, push(Reference::Digest(d), m, vec![]));
    gate.die_before(|it| it.verb == Verb::Put && it.key.contains("_referrers"), request).await;
    let second = Gate::new(gate.inner.clone());
    let deleter = Registry::open(second.clone(), Settings::default()).await.unwrap();
    let expirer = Registry::open_with(gate.inner.clone(), Settings::default(), Arc::new(At(2 * 86400))).await.unwrap();
    second.before(|it| it.verb == Verb::Put && it.key.contains("_manifests"), async move {
        println!("{:?}", expirer.expire().await);
    });
    deleter.delete_manifest(&a, &d).await.unwrap();
    let there = deleter.head_manifest(&a, &Reference::Digest(d)).await;
    assert!(there.is_err(), "202 for the delete, nobody pushes, and yet {there:?}");
}

#[tokio::test]
async fn a_blob_of_one_body_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let r = Registry::open(Arc::new(FsStore::open(dir.path()).unwrap()), Settings::default()).await.unwrap();
    let a = repo("a");
    let bytes: &'static [u8] = Box::leak(vec![7u8; 5 * 1024 * 1024 + 300_000].into_boxed_slice());
    r.upload_whole(&a, &sha(bytes), body(bytes)).await.unwrap();
    let mut forms = vec![];
    for e in std::fs::read_dir(dir.path().join("data")).unwrap() {
        for f in std::fs::read_dir(e.unwrap().path()).unwrap() {
            forms.push(f.unwrap().file_name().into_string().unwrap());
        }
    }
    assert!(forms.iter().all(|f| !f.ends_with('#')), "one body, one writer: {forms:?}");
}

/// Two completions of one upload out of different parts: one object, one Ok.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_completions_one_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let s = Arc::new(FsStore::open(dir.path()).unwrap());
    let (mut both, mut split) = (0, 0);
    for i in 0..400 {
        let key = Key::parse(format!("data/x/{i}")).unwrap();
        let u = s.begin(&key).await.unwrap();
        let part = |p| match p {
            Placed::New(p) | Placed::Grown(p) => p,
        };
        let p1 = part(s.put_part(&u, 1, Bytes::from_static(b"good"), None).await.unwrap());
        let p2 = part(s.put_part(&u, 2, Bytes::from_static(b"evil"), None).await.unwrap());
        let (s1, u1, s2, u2) = (s.clone(), u.clone(), s.clone(), u.clone());
        let (a, b) = tokio::join!(
            tokio::spawn(async move { s1.complete(&u1, &[p1]).await }),
            tokio::spawn(async move { s2.complete(&u2, &[p2]).await })
        );
        match (a.unwrap().is_ok(), b.unwrap().is_ok()) {
            (true, true) => both += 1,
            (false, false) => split += 1,
            _ => {}
        }
    }
    assert_eq!((both, split), (0, 0), "(both Ok, none Ok) of 400: the first was told Ok and its object replaced");
}

/// Refusing one PUT cancels a session that another PUT owns and is finishing.
#[tokio::test]
async fn a_refused_finish_ends_no_session_that_another_owns() {
    let (gate, r) = memory().await;
    let a = repo("a");
    let good = b"the right ok";
    let id = r.start_upload(&a, Algorithm::Sha256);
    r.append(&a, id, body(good)).await.unwrap();
    // A second PUT with a wrong digest has looked at the session; a first one owns the end and dies before it completes.
    let b = Registry::open(gate.inner.clone(), Settings::default()).await.unwrap();
    let (r2, a2) = (r.clone(), a.clone());
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let slow = Chunk {
        start: None,
        declared: None,
        length: None,
        body: Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|b| (Ok(b), rx)) })),
    };
    let wrong = tokio::spawn({
        let a = a.clone();
        async move { b.finish(&a, id, &sha(b"nothing of the sort"), slow).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.die_before(|it| it.verb == Verb::Complete, Box::pin(r2.finish(&a2, id, &sha(good), body(b"")))).await;
    drop(tx);
    wrong.await.unwrap().unwrap_err();
    let again = Registry::open(gate.inner.clone(), Settings::default())
        .await
        .unwrap()
        .finish(&a, id, &sha(good), body(b""))
        .await;
    assert!(again.is_ok(), "the retry of the PUT that owned the session: {again:?}");
}

#[tokio::test]
async fn one_damaged_entry_keeps_no_other_from_expiring() {
    let (gate, r) = memory().await;
    let a = repo("a");
    gate.inner
        .put(
            &Key::parse("pending/sha256/00/0000000000000000000000000000000000000000000000000000000000000000.x")
                .unwrap(),
            Bytes::from_static(b"?"),
            Condition::Create,
        )
        .await
        .unwrap();
    r.upload_whole(&a, &sha(b"x"), body(b"x")).await.unwrap();
    let later = Registry::open_with(gate.clone(), Settings::default(), Arc::new(At(10 * 86400))).await.unwrap();
    later.expire().await.unwrap();
    let left = gate.inner.list("pending/", None, 10).await.unwrap().len();
    assert_eq!(left, 1, "the readable reference still expires");
}

/// A crash between publishing and dropping what is left of an upload; the expiry of the session must drop it.
#[tokio::test]
async fn nothing_is_left_of_an_upload_whose_completer_died() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Store> = Arc::new(FsStore::open(dir.path()).unwrap());
    let r = Registry::open(fs.clone(), Settings::default()).await.unwrap();
    let a = repo("a");
    let id = r.start_upload(&a, Algorithm::Sha256);
    let bytes: &'static [u8] = Box::leak(vec![7u8; 3 * 1024 * 1024 + 300_000].into_boxed_slice());
    r.append(&a, id, body(bytes)).await.unwrap();
    // What the crash leaves: the folder of the upload with second names of the segments.
    let parts = dir.path().join(".parts");
    let up = std::fs::read_dir(&parts).unwrap().next().unwrap().unwrap().path();
    let seg = std::fs::read_dir(&up).unwrap().next().unwrap().unwrap().path();
    std::fs::hard_link(&seg, dir.path().join("saved")).unwrap();
    r.finish(&a, id, &sha(bytes), body(b"")).await.unwrap();
    std::fs::create_dir(&up).unwrap();
    std::fs::rename(dir.path().join("saved"), &seg).unwrap();
    for days in [2, 3, 4, 10, 20] {
        Registry::open_with(fs.clone(), Settings::default(), Arc::new(At(days * 86400)))
            .await
            .unwrap()
            .expire()
            .await
            .unwrap();
    }
    assert!(!seg.exists(), "a name of the segment stays for ever: the bytes outlive the blob");
}
