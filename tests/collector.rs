//! What nothing needs any more goes, and nothing else does; on an injected clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clock;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Collected, Collector, Error, PageRequest, Push, Registry, Restored, Settings, Version, check},
    store::{
        Condition, Entry, Key, Put, Store, Verb,
        faulty::{Call, Fault, Faulty},
        memory::MemoryStore,
    },
};

use self::clock::Turned;

const HOUR: u64 = 3600;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

struct World {
    store: Arc<MemoryStore>,
    clock: Arc<Turned>,
    registry: Arc<Registry>,
    collector: Collector,
}

impl World {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Turned::new();
        let registry = Registry::open_with(store.clone(), settings, clock.clone()).await.unwrap();
        let collector = Collector::new(Arc::clone(&registry));
        Self { store, clock, registry, collector }
    }

    fn forward(&self, hours: u64) {
        self.clock.0.fetch_add(hours * HOUR, Ordering::Relaxed);
    }

    /// One round, after which everything must be sound.
    async fn round(&self) -> Collected {
        self.registry.settle().await;
        let done = self.collector.round().await.unwrap();
        let mut findings = Vec::new();
        check::check(self.store.clone(), |finding| findings.push(finding.to_string())).await.unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        done
    }

    /// A round every hour.
    async fn hours(&self, hours: u64) -> Collected {
        let mut all = Collected::default();
        for _ in 0..hours {
            self.forward(1);
            let done = self.round().await;
            all.condemned += done.condemned;
            all.lifted += done.lifted;
            all.holders += done.holders;
            all.blobs += done.blobs;
            all.bytes += done.bytes;
            all.tombstones += done.tombstones;
        }
        all
    }

    async fn upload(&self, repository: &str, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let body = Box::pin(stream::iter([Ok(Bytes::from_static(bytes))]));
        let chunk = Chunk { start: None, declared: None, length: Some(bytes.len() as u64), body };
        self.registry.upload_whole(&repo(repository), &digest, chunk).await.unwrap();
        digest
    }

    /// An image of one blob.
    async fn push(&self, repository: &str, tag: &str, blob: &[u8]) -> Result<Digest, Error> {
        let bytes = image(blob);
        let digest = Digest::of(Algorithm::Sha256, bytes.as_bytes());
        let target = Reference::Tag(Tag::parse(tag).unwrap());
        let push = Push { target, tags: Vec::new(), content_type: None, bytes: bytes.into(), condition: None };
        self.registry.put_manifest(&repo(repository), push).await?;
        Ok(digest)
    }

    async fn keys(&self) -> Vec<String> {
        let entries = self.store.list("", None, usize::MAX).await.unwrap();
        entries.into_iter().map(|entry| entry.key.to_string()).collect()
    }

    async fn holds(&self, repository: &str, digest: &Digest) -> bool {
        self.registry.stat_blob(&repo(repository), digest).await.is_ok()
    }

    async fn reads(&self, repository: &str, digest: &Digest) -> bool {
        self.registry.find_blob(&repo(repository), digest).await.is_ok()
    }
}

fn repo(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn image(blob: &[u8]) -> String {
    let (digest, size) = (Digest::of(Algorithm::Sha256, blob), blob.len());
    let config = format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{size}}}"#);
    format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[]}}"#)
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_nothing_ever_referred_to_goes_after_its_grace_and_its_rest() {
    let world = World::new().await;
    let digest = world.upload("a", b"orphan").await;
    world.hours(23).await;
    assert!(world.holds("a", &digest).await);
    assert_eq!(world.hours(1).await.condemned, 1);
    assert!(!world.holds("a", &digest).await, "who asks before uploading is told that it is absent");
    assert!(world.reads("a", &digest).await, "and who reads it still can");
    world.hours(23).await;
    assert!(world.reads("a", &digest).await);
    let done = world.hours(1).await;
    assert_eq!((done.holders, done.blobs, done.bytes), (1, 1, 6));
    assert!(!world.reads("a", &digest).await);
    world.hours(26).await;
    assert_eq!(world.keys().await, ["fleet/session-key"], "nothing is left");
}

// DEL-7
#[tokio::test(start_paused = true)]
async fn an_image_stays_however_long_and_goes_with_its_manifest() {
    let world = World::new().await;
    let blob = world.upload("a", b"layer").await;
    let digest = world.push("a", "t", b"layer").await.unwrap();
    assert_eq!(world.hours(24 * 5).await, Collected::default());
    assert!(world.holds("a", &blob).await);
    world.registry.delete_manifest(&repo("a"), &digest).await.unwrap();
    assert_eq!(world.hours(24 * 7 - 1).await, Collected::default(), "it can be put back for a week");
    assert!(world.holds("a", &blob).await);
    let done = world.hours(24 * 3).await;
    assert_eq!((done.condemned, done.holders, done.blobs), (1, 1, 1));
    assert_eq!(world.keys().await, ["fleet/session-key"], "nothing is left");
}

// DEL-7
#[tokio::test(start_paused = true)]
async fn what_a_damaged_manifest_named_stays() {
    let world = World::new().await;
    let blob = world.upload("a", b"needed").await;
    let manifest = world.push("a", "latest", b"needed").await.unwrap();
    world.registry.settle().await;
    let key = Key::parse(format!("repos/a/_manifests/sha256/{}", manifest.hex())).unwrap();
    let found = world.store.read(&key).await.unwrap().unwrap();
    let damaged = String::from_utf8(found.bytes.to_vec()).unwrap().replace(&blob.hex(), &manifest.hex());
    world.store.put(&key, damaged.into(), Condition::Replace(found.version)).await.unwrap();
    for _ in 0..60 {
        world.forward(1);
        world.collector.round().await.unwrap();
    }
    assert!(world.holds("a", &blob).await);
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_another_manifest_or_repository_needs_stays() {
    let world = World::new().await;
    let blob = world.upload("a", b"base").await;
    world.upload("b", b"base").await;
    let deleted = world.push("a", "t", b"base").await.unwrap();
    world.push("b", "t", b"base").await.unwrap();
    world.registry.delete_manifest(&repo("a"), &deleted).await.unwrap();
    let done = world.hours(24 * 12).await;
    assert_eq!((done.holders, done.blobs), (1, 0));
    assert!(!world.reads("a", &blob).await && world.holds("b", &blob).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_condemned_is_lifted_by_an_upload_and_by_a_push_and_stays() {
    for by_upload in [true, false] {
        let world = World::new().await;
        let blob = world.upload("a", b"layer").await;
        world.hours(26).await;
        assert!(!world.holds("a", &blob).await);
        if by_upload {
            world.upload("a", b"layer").await;
            assert!(world.holds("a", &blob).await);
        }
        world.push("a", "t", b"layer").await.unwrap();
        assert!(world.holds("a", &blob).await);
        let done = world.hours(24 * 5).await;
        assert_eq!((done.holders, done.blobs), (0, 0));
        assert!(world.holds("a", &blob).await);
    }
}

#[tokio::test(start_paused = true)]
async fn one_round_of_the_fleet_is_enough() {
    let world = World::new().await;
    let interval = Duration::from_mins(15);
    assert!(world.collector.turn(interval).await.unwrap().is_some());
    let other = Collector::new(Arc::clone(&world.registry));
    assert_eq!(other.turn(interval).await.unwrap(), None);
    world.forward(1);
    assert!(other.turn(interval).await.unwrap().is_some());
    // Somebody's clock was far ahead.
    world.clock.0.fetch_sub(100 * HOUR, Ordering::Relaxed);
    assert!(world.collector.turn(interval).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_an_upload_under_way_keeps_is_looked_at_again_after_a_grace_of_seconds_and_not_an_hour() {
    let settings = Settings { grace: Duration::from_secs(5), undelete: Duration::ZERO, ..Settings::default() };
    let world = World::with(settings).await;
    let digest = world.upload("a", b"blob").await;
    let manifest = world.push("a", "t", b"blob").await.unwrap();
    world.registry.delete_manifest(&repo("a"), &manifest).await.unwrap();
    assert_eq!(world.round().await.waiting, 1);
    for _ in 0..3 {
        world.clock.0.fetch_add(6, Ordering::Relaxed);
        world.round().await;
    }
    assert!(!world.reads("a", &digest).await);
    let queued: Vec<_> = world.keys().await.into_iter().filter(|key| key.starts_with("dropped/")).collect();
    assert!(queued.is_empty(), "{queued:?}");
}

/// Until an operator has looked at it.
#[tokio::test(start_paused = true)]
async fn what_is_damaged_stays_and_keeps_nothing_else_waiting() {
    const ID: &str = "01900000-0000-7000-8000-000000000001";
    let world = World::new().await;
    let queues = ["dropped/a/", "gc/condemned/a/", "gc/unheld/", "gc/bytes/", "gc/tombstones/"];
    let damaged = queues.map(|queue| format!("{queue}{ID}"));
    let registers = ["record", "holder"].map(|what| (what, Digest::of(Algorithm::Sha256, what.as_bytes())));
    let [record, holder] = registers.map(|(what, digest)| {
        let leaf = if what == "record" { "_" } else { "a" };
        format!("blobs/sha256/{}/{}/{leaf}", &digest.hex()[..2], digest.hex())
    });
    for bytes in [b"record".as_slice(), b"holder", b"garbage"] {
        world.upload("a", bytes).await;
    }
    let image = world.push("a", "t", b"garbage").await.unwrap();
    world.registry.delete_manifest(&repo("a"), &image).await.unwrap();
    world.registry.settle().await;
    for key in damaged.iter().chain([&record, &holder]) {
        let key = Key::parse(key).unwrap();
        world.store.delete(&key).await.unwrap();
        let written = world.store.put(&key, Bytes::from_static(b"{"), Condition::Create).await.unwrap();
        assert!(matches!(written, Put::Stored(_)));
    }
    for _ in 0..12 {
        world.forward(24);
        world.collector.round().await.unwrap();
        world.registry.settle().await;
    }
    let left = world.keys().await;
    assert!(damaged.iter().chain([&record, &holder]).all(|key| left.contains(key)), "{left:?}");
    let garbage = Digest::of(Algorithm::Sha256, b"garbage").hex();
    assert!(!left.iter().any(|key| key.contains(&garbage) || key.starts_with("repos/")), "{left:?}");
    assert!(!left.contains(&"catalog/a".to_owned()), "{left:?}");
}

/// A store in which nothing leads to what is garbage.
async fn without_queues() -> (World, Digest) {
    let world = World::new().await;
    let kept = world.upload("a", b"kept").await;
    world.push("a", "t", b"kept").await.unwrap();
    world.upload("a", b"orphan").await;
    world.registry.settle().await;
    for key in world.keys().await.iter().filter(|key| ["pending/", "dropped/"].iter().any(|of| key.starts_with(of))) {
        world.store.delete(&Key::parse(key.as_str()).unwrap()).await.unwrap();
    }
    (world, kept)
}

#[tokio::test(start_paused = true)]
async fn a_walk_finds_what_no_queue_leads_to_and_spares_what_is_needed() {
    let (world, kept) = without_queues().await;
    assert_eq!(world.hours(48).await, Collected::default(), "nothing leads there");
    let walked = world.collector.walk(&mut |_| {}).await.unwrap();
    assert_eq!((walked.holders, walked.unheld, walked.strays), (2, 0, 0));
    let done = world.hours(30).await;
    assert_eq!((done.condemned, done.holders, done.blobs, done.bytes), (1, 1, 1, 6));
    assert!(world.holds("a", &kept).await);
}

#[tokio::test(start_paused = true)]
async fn a_walk_finds_records_without_holders_and_bytes_without_names() {
    let (world, kept) = without_queues().await;
    let names = ["6ba7b810-9dad-81d1-80b4-00c04fd430c8", "6ba7b810-9dad-81d1-80b4-00c04fd430c9"];
    for name in [format!("data/c8/{}", names[0]), format!("data/c9/{}-{}", names[1], names[0])] {
        let key = Key::parse(name).unwrap();
        world.store.put(&key, Bytes::from_static(b"lost"), Condition::Create).await.unwrap();
    }
    let orphan = Digest::of(Algorithm::Sha256, b"orphan");
    let hex = orphan.hex();
    let holder = Key::parse(format!("blobs/sha256/{}/{hex}/a", &hex[..2])).unwrap();
    assert!(world.store.head(&holder).await.unwrap().is_some());
    world.store.delete(&holder).await.unwrap();
    let walked = world.collector.walk(&mut |_| {}).await.unwrap();
    assert_eq!((walked.holders, walked.unheld, walked.strays), (1, 1, 2));
    assert_eq!(world.round().await.blobs, 1);
    assert!(world.holds("a", &kept).await);
    let left = world.keys().await;
    assert_eq!(left.iter().filter(|key| key.starts_with("data/")).count(), 1, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_walk_deletes_all_bytes_without_names_however_many() {
    let (world, _) = without_queues().await;
    let name = |n: u32| {
        format!(
            "data/{:02x}/6ba7b810-9dad-81d1-80b4-00c04fd430{:02x}-{:08x}-9dad-81d1-80b4-00c04fd430c8",
            n % 256,
            n % 256,
            n
        )
    };
    for n in 0..25_000 {
        world.store.put(&Key::parse(name(n)).unwrap(), Bytes::from_static(b"lost"), Condition::Create).await.unwrap();
    }
    assert_eq!(world.collector.walk(&mut |_| {}).await.unwrap().strays, 25_000);
    let left = world.keys().await;
    assert_eq!(left.iter().filter(|key| key.starts_with("data/")).count(), 2, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_walk_takes_no_bytes_of_a_push_that_is_under_way() {
    let world = World::new().await;
    // Small enough to come in one piece, without a journal that would protect it.
    let digest = world.upload("a", b"new").await;
    world.registry.settle().await;
    // As a push that has brought its bytes and not recorded them yet.
    let hex = digest.hex();
    for leaf in ["_", "a"] {
        world.store.delete(&Key::parse(format!("blobs/sha256/{}/{hex}/{leaf}", &hex[..2])).unwrap()).await.unwrap();
    }
    assert_eq!(world.collector.walk(&mut |_| {}).await.unwrap().strays, 0);
    // Nor those of a blob that has lost its record.
    let world = World::new().await;
    world.upload("a", b"new").await;
    world.registry.settle().await;
    for key in world.keys().await.iter().filter(|key| key.starts_with("pending/") || key.ends_with("/_")) {
        world.store.delete(&Key::parse(key.as_str()).unwrap()).await.unwrap();
    }
    assert_eq!(world.collector.walk(&mut |_| {}).await.unwrap().strays, 0);
    // Nor those of a session of which there is a journal: they are its expiry's.
    let world = World::new().await;
    world.upload("a", b"large").await;
    world.registry.settle().await;
    for key in world.keys().await.iter().filter(|key| ["pending/", "blobs/"].iter().any(|of| key.starts_with(of))) {
        world.store.delete(&Key::parse(key.as_str()).unwrap()).await.unwrap();
    }
    assert_eq!(world.collector.walk(&mut |_| {}).await.unwrap().strays, 0);
}

/// An index of these manifests, and a referrer of that.
async fn index_with_a_referrer(world: &World, children: &[Digest]) -> (Digest, Digest) {
    let child = |digest: &Digest| {
        let size = image(b"layer").len();
        format!(r#"{{"mediaType":"{IMAGE}","digest":"{digest}","size":{size}}}"#)
    };
    let children: Vec<_> = children.iter().map(child).collect();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{}]}}"#, children.join(","));
    let digest = Digest::of(Algorithm::Sha256, index.as_bytes());
    let subject = format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}}}"#, index.len());
    let referrer = image(b"layer").replace("\"layers\":[]", &format!("\"layers\":[],\"subject\":{subject}"));
    let pushed = [(index, "i"), (referrer.clone(), "r")];
    for (bytes, tag) in pushed {
        let target = Reference::Tag(Tag::parse(tag).unwrap());
        let push = Push { target, tags: Vec::new(), content_type: None, bytes: bytes.into(), condition: None };
        world.registry.put_manifest(&repo("a"), push).await.unwrap();
    }
    (digest, Digest::of(Algorithm::Sha256, referrer.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_can_be_put_back_whole_for_a_week_by_any_replica() {
    let world = World::new().await;
    let blob = world.upload("a", b"layer").await;
    let child = world.push("a", "t", b"layer").await.unwrap();
    let (index, referrer) = index_with_a_referrer(&world, &[child]).await;
    for digest in [index, child, referrer] {
        world.registry.delete_manifest(&repo("a"), &digest).await.unwrap();
    }
    world.hours(24 * 7 - 1).await;
    let replica = Registry::open_with(world.store.clone(), Settings::default(), world.clock.clone()).await.unwrap();
    let tag = Tag::parse("again").unwrap();
    let restored = replica.restore_tag(&repo("a"), &tag, Version::Digest(index)).await.unwrap();
    assert_eq!(restored, Restored { digest: index, manifests: 3, tags: vec![tag.clone()] });
    let (head, _) = world.registry.manifest(&repo("a"), &Reference::Tag(tag.clone())).await.unwrap();
    assert_eq!(head.digest, index);
    let listed = world.registry.referrers(&repo("a"), &index, &[], &PageRequest::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1, "its referrer came back with it");
    // Once more: there is nothing left to do.
    let again = replica.restore_tag(&repo("a"), &tag, Version::Digest(index)).await.unwrap();
    assert_eq!(again, Restored { digest: index, manifests: 0, tags: Vec::new() });
    world.hours(24 * 12).await;
    assert!(world.holds("a", &blob).await, "and it stays");
    for digest in [index, child, referrer] {
        world.registry.manifest(&repo("a"), &Reference::Digest(digest)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_cannot_be_put_back_when_its_time_is_over() {
    let world = World::new().await;
    world.upload("a", b"layer").await;
    let digest = world.push("a", "t", b"layer").await.unwrap();
    world.registry.delete_manifest(&repo("a"), &digest).await.unwrap();
    world.hours(24 * 7 + 1).await;
    let refused = world.registry.restore_manifest(&repo("a"), &digest).await;
    assert!(matches!(refused, Err(Error::NotRestorable(_))), "{refused:?}");
    let unknown = Digest::of(Algorithm::Sha256, b"never");
    assert!(matches!(world.registry.restore_manifest(&repo("a"), &unknown).await, Err(Error::NotRestorable(_))));
}

/// A single flipped bit: the `/` of a data key becomes `?`.
async fn flip(world: &World, key: &str) {
    let key = Key::parse(key).unwrap();
    let found = world.store.read(&key).await.unwrap().unwrap();
    let bytes = String::from_utf8(found.bytes.to_vec()).unwrap().replace("data/", "data?");
    world.store.delete(&key).await.unwrap();
    world.store.put(&key, bytes.into(), Condition::Create).await.unwrap();
}

fn record_key(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blobs/sha256/{}/{hex}/_", hex.get(..2).unwrap())
}

async fn rounds_unchecked(world: &World, hours: u64) {
    for _ in 0..hours {
        world.forward(1);
        world.registry.settle().await;
        world.collector.round().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_says_no_place_of_bytes_keeps_no_other_waiting() {
    let world = World::with(Settings { undelete: Duration::ZERO, ..Settings::default() }).await;
    let mut images = Vec::new();
    let rotten = world.upload("a", b"rotten").await;
    images.push(world.push("a", "r", b"rotten").await.unwrap());
    let garbage = world.upload("a", b"garbage").await;
    images.push(world.push("a", "g", b"garbage").await.unwrap());
    world.hours(30).await;
    flip(&world, &record_key(&rotten)).await;
    for image in &images {
        world.registry.delete_manifest(&repo("a"), image).await.unwrap();
    }
    rounds_unchecked(&world, 24 * 10).await;
    let left = world.keys().await;
    assert!(!left.contains(&record_key(&garbage)), "garbage still recorded: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn bytes_whose_record_is_damaged_keep_no_others_waiting() {
    let world = World::new().await;
    let rotten = world.upload("a", b"rotten").await;
    world.push("a", "r", b"rotten").await.unwrap();
    world.hours(30).await;
    let key = Key::parse(record_key(&rotten)).unwrap();
    world.store.delete(&key).await.unwrap();
    world.store.put(&key, Bytes::from_static(b"{"), Condition::Create).await.unwrap();
    let other = Digest::of(Algorithm::Sha256, b"other");
    let session = "0a000000-0000-8000-8000-000000000001-01900000-0000-4000-8000-000000000001";
    let stray = format!("data/01/{session}");
    world.store.put(&Key::parse(stray.clone()).unwrap(), Bytes::from_static(b"x"), Condition::Create).await.unwrap();
    for (n, digest) in [(1, rotten), (2, other)] {
        let entry = format!(r#"{{"at":0,"bytes":[["{digest}","{stray}"]]}}"#);
        let key = Key::parse(format!("gc/bytes/01900000-0000-7000-8000-00000000000{n}")).unwrap();
        world.store.put(&key, entry.into(), Condition::Create).await.unwrap();
    }
    rounds_unchecked(&world, 24 * 5).await;
    let left = world.keys().await;
    assert!(!left.contains(&stray), "the second entry was kept waiting by the first: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_reference_in_flight_keeps_its_blob_and_no_other() {
    let world = World::new().await;
    let one = world.upload("a", b"one").await;
    let two = world.upload("a", b"two").await;
    let hex = one.hex();
    let key = format!("pending/sha256/{}/{hex}.01900000-0000-7000-8000-000000000001", hex.get(..2).unwrap());
    world.store.put(&Key::parse(key).unwrap(), Bytes::from_static(b"{"), Condition::Create).await.unwrap();
    rounds_unchecked(&world, 24 * 10).await;
    assert!(!world.holds("a", &two).await, "what has nothing to do with it is kept for ever");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_somebody_may_be_about_to_publish_stay_until_he_was_shut_out() {
    let world = World::new().await;
    let digest = Digest::of(Algorithm::Sha256, b"large");
    let data = "data/01/0a000000-0000-8000-8000-000000000001-01900000-0000-4000-8000-000000000001";
    let hex = digest.hex();
    // Due in two days.
    let pending = format!("pending/sha256/{}/{hex}.01a32300-0000-7000-8000-000000000001", &hex[..2]);
    let entry = format!(r#"{{"at":0,"repository":"a","digest":"{digest}","data":"{data}"}}"#);
    let bytes = format!(r#"{{"at":0,"bytes":[["{digest}","{data}"]]}}"#);
    let queued = "gc/bytes/01900000-0000-7000-8000-000000000001".to_owned();
    for (key, text) in [(data.to_owned(), "large".to_owned()), (pending, entry), (queued, bytes)] {
        world.store.put(&Key::parse(key).unwrap(), text.into(), Condition::Create).await.unwrap();
    }
    rounds_unchecked(&world, 24).await;
    assert!(world.keys().await.iter().any(|key| key == data), "a finisher who stalled would publish nothing");
    rounds_unchecked(&world, 24 * 5).await;
    let left = world.keys().await;
    assert!(!left.iter().any(|key| key == data || key.starts_with("gc/bytes/")), "{left:?}");
}

/// A collector of the same registry to whom the store behaves like this, and its calls.
fn collector_of(world: &World, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> (Collector, Arc<Faulty>) {
    let store = Arc::new(Faulty::new(world.store.clone(), plan));
    (Collector::new(world.registry.beside(|_| store.clone())), store)
}

/// Blobs that are to go: two of "a", one each of "b", which has another that is to stay, of "c", and of a session.
async fn much_to_collect() -> (World, Digest) {
    let hour = Duration::from_secs(HOUR);
    let settings = Settings {
        grace: hour,
        undelete: Duration::ZERO,
        tombstones: hour,
        upload_expiry: hour,
        ..Settings::default()
    };
    let world = World::with(settings).await;
    world.upload("a", b"orphan").await;
    world.upload("a", b"another").await;
    let kept = world.upload("b", b"kept").await;
    world.push("b", "kept", b"kept").await.unwrap();
    for (repository, blob) in [("b", b"in b"), ("c", b"in c")] {
        world.upload(repository, blob).await;
        let manifest = world.push(repository, "t", blob).await.unwrap();
        world.registry.delete_manifest(&repo(repository), &manifest).await.unwrap();
    }
    let session = world.registry.start_upload(&repo("d"), Algorithm::Sha256);
    let body = Box::pin(stream::iter([Ok(Bytes::from_static(b"abandoned"))]));
    world
        .registry
        .append(&repo("d"), session, Chunk { start: None, declared: None, length: Some(9), body })
        .await
        .unwrap();
    world.registry.settle().await;
    (world, kept)
}

/// Rounds of which from some hour on the nth object that the collector comes to is refused, or only to be written; then
/// others, when it is given again. Which object that was, if there are so many.
async fn refused(hour: u64, nth: usize, reads: bool) -> Option<String> {
    let (world, kept) = much_to_collect().await;
    for _ in 0..hour {
        world.forward(1);
        world.round().await;
    }
    let met: Arc<Mutex<Vec<String>>> = Arc::default();
    let known = Arc::clone(&met);
    let (collector, _) = collector_of(&world, move |call| {
        let of_all = ["uploads/", "pending/sha256/", "pending/sha512/", "pending/manifests/", "dropped/", "history/"];
        let is_queue = of_all.contains(&call.key.as_str()) || call.key.starts_with("gc/") && call.verb == Verb::List;
        if is_queue {
            return Fault::None;
        }
        let mut known = known.lock().unwrap();
        let at = known.iter().position(|key| *key == call.key).unwrap_or_else(|| {
            known.push(call.key.clone());
            known.len() - 1
        });
        let fails = at == nth && (reads || matches!(call.verb, Verb::Put | Verb::Delete | Verb::DeleteIf));
        if fails { Fault::Refused } else { Fault::None }
    });
    let mut left_behind = 0;
    for _ in 0..24 {
        world.forward(1);
        left_behind += collector.round().await.unwrap().left;
        let mut findings = Vec::new();
        check::check(world.store.clone(), |finding| findings.push(finding.to_string())).await.unwrap();
        assert!(findings.is_empty(), "{hour}, {nth}: {findings:?}");
    }
    let met = met.lock().unwrap().get(nth).cloned();
    assert!(!reads || (left_behind > 0) == met.is_some(), "{hour}, {nth}: {met:?}, {left_behind} times");
    let is_of = |starts: [&str; 2]| met.as_ref().is_some_and(|met| starts.iter().any(|start| met.starts_with(start)));
    let waits = match &met {
        Some(_) if is_of(["blobs/", "data/"]) => 1,
        // An entry leads to both that "a" had, and so does a look.
        Some(_) if !is_of(["catalog/", "gc/tombstones/"]) => 2,
        _ => 0,
    };
    let left = world.store.list("", None, usize::MAX).await.unwrap();
    let count = |is: &dyn Fn(&Entry) -> bool| left.iter().filter(|entry| is(entry)).count();
    let data = count(&|entry| entry.key.as_str().starts_with("data/"));
    assert!(data <= 1 + waits, "{hour}, {nth}: {met:?} keeps others waiting: {left:#?}");
    // By then there is one at each, and entries that lead to several.
    let tombstones = count(&|entry| entry.size == "g".len() as u64 + 22);
    assert!(tombstones <= 1 || hour < 2 || !is_of(["blobs/", "catalog/"]), "{hour}, {nth}: {met:?}, and {left:#?}");
    assert!(left.len() < 24, "{hour}, {nth}: {met:?} leaves more with each round: {left:#?}");
    assert!(world.reads("b", &kept).await);
    let manifest = Digest::of(Algorithm::Sha256, image(b"kept").as_bytes());
    world.registry.delete_manifest(&repo("b"), &manifest).await.unwrap();
    world.hours(24).await;
    assert_eq!(world.keys().await, ["fleet/session-key"], "{hour}, {nth}: {met:?}");
    met
}

#[tokio::test(start_paused = true)]
async fn whatever_object_is_refused_all_others_are_collected_and_it_too_when_it_is_given_again() {
    let mut all = 0;
    for (hour, reads) in (0..5).flat_map(|hour| [(hour, true), (hour, false)]) {
        let mut nth = 0;
        while refused(hour, nth, reads).await.is_some() {
            nth += 1;
        }
        all += nth;
    }
    assert!(all > 300, "only {all} objects were met");
}

/// A collector that meets so many entries which the store refuses.
async fn with_refused_entries(world: &World, count: usize) -> (Collector, Arc<Faulty>) {
    for number in 0..count {
        let key = Key::parse(format!("dropped/a/01900000-0000-7000-8000-00000000{number:04}")).unwrap();
        world.store.put(&key, "of a disk that fails".into(), Condition::Create).await.unwrap();
    }
    collector_of(world, |call| if call.key.starts_with("dropped/a/0") { Fault::Refused } else { Fault::None })
}

#[tokio::test(start_paused = true)]
async fn however_many_entries_in_a_row_are_refused_the_round_goes_on_and_counts_them() {
    let world = World::new().await;
    let orphan = world.upload("z", b"orphan").await;
    let (collector, _) = with_refused_entries(&world, 50).await;
    for _ in 0..50 {
        world.forward(1);
        let done = collector.round().await.unwrap();
        assert_eq!(done.left, 50);
        assert!(done.to_string().ends_with(", 50 steps given up"), "{done}");
    }
    assert!(!world.reads("z", &orphan).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_ends_the_round_at_once() {
    let (world, _) = much_to_collect().await;
    world.forward(3);
    let (collector, store) =
        collector_of(&world, |call| if call.index >= 10 { Fault::NotApplied } else { Fault::None });
    assert!(matches!(collector.round().await, Err(Error::Store(_))));
    assert!(store.calls().len() < 30, "{:?}", store.calls());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_refused_spares_nobody_a_round() {
    let world = World::new().await;
    let bad = |call: &Call| if call.key == "gc/lease" { Fault::Refused } else { Fault::None };
    let (collector, _) = collector_of(&world, bad);
    for _ in 0..2 {
        assert!(collector.turn(Duration::from_mins(15)).await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_cannot_be_deleted_keep_no_others_of_their_entry_waiting() {
    let world = World::new().await;
    let digest = Digest::of(Algorithm::Sha256, b"never published");
    let data = [1, 2].map(|n| format!("data/0{n}/01900000-0000-7000-8000-00000000000{n}"));
    let entry = format!(r#"{{"at":1,"bytes":[["{digest}","{}"],["{digest}","{}"]]}}"#, data[0], data[1]);
    let queued = "gc/bytes/01900000-0000-7000-8000-000000000003".to_owned();
    for (key, bytes) in [(&queued, entry), (&data[0], String::new()), (&data[1], String::new())] {
        world.store.put(&Key::parse(key.clone()).unwrap(), bytes.into(), Condition::Create).await.unwrap();
    }
    let bad = data[0].clone();
    let plan = move |call: &Call| if call.key == bad { Fault::Refused } else { Fault::None };
    let (collector, _) = collector_of(&world, plan);
    assert!(collector.round().await.unwrap().left > 0);
    assert_eq!(world.keys().await, [&data[0], "fleet/session-key", &queued]);
    world.round().await;
    assert_eq!(world.keys().await, ["fleet/session-key"]);
}

#[tokio::test(start_paused = true)]
async fn a_repository_whose_entries_cannot_be_written_keeps_no_other_waiting() {
    let world = World::new().await;
    let mut orphans = Vec::new();
    for repository in ["a", "b", "c"] {
        orphans.push((repository, world.upload(repository, repository.as_bytes()).await));
    }
    let bad = |call: &Call| {
        if call.verb == Verb::Put && call.key.starts_with("dropped/b/") { Fault::Refused } else { Fault::None }
    };
    let (collector, _) = collector_of(&world, bad);
    for _ in 0..50 {
        world.forward(1);
        collector.round().await.unwrap();
    }
    for (repository, digest) in &orphans {
        assert_eq!(world.reads(repository, digest).await, *repository == "b");
    }
    world.hours(50).await;
    assert!(!world.reads("b", &orphans[1].1).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_everything_ends_the_round() {
    let world = World::new().await;
    let (collector, store) = with_refused_entries(&world, 1100).await;
    for _ in 0..2 {
        world.forward(1);
        let before = store.calls().len();
        assert!(matches!(collector.round().await, Err(Error::Refused(_))));
        assert!(store.calls().len() - before < 1100);
    }
}
