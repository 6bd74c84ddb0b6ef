//! What the collector asks of the store follows what came and went, and not what is stored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clock;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use marina_distribution::{
    oci::{Algorithm, Digest, Repository},
    registry::{Clock, Collector, Registry, Settings, check},
    store::{
        Condition, Key, Put, Store, Verb,
        memory::MemoryStore,
        metered::{Counts, Metered},
    },
};
use tokio::time::Instant;

use self::clock::Turned;

const LAYERS: usize = 9;
/// An image of a config and nine layers: its blobs, each with bytes, record and holder, the manifest and a tag.
const OBJECTS_PER_IMAGE: usize = 10 * 3 + 2;
/// The images that are deleted lie in so many repositories, among some that stay.
const REPOSITORIES: usize = 10;
const DELETED: usize = 1_000;

/// A clock that goes with the runtime's.
#[derive(Debug)]
struct Ticking(Instant);

impl Clock for Ticking {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + self.0.elapsed()
    }
}

/// A store that is written to directly: pushing a million objects takes minutes.
struct Filled {
    store: Arc<MemoryStore>,
    images: usize,
    objects: usize,
}

impl Filled {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::default()), images: 0, objects: 0 }
    }

    async fn put(&mut self, key: String, bytes: Vec<u8>) {
        let put = self.store.put(&Key::parse(key).unwrap(), Bytes::from(bytes), Condition::Create).await;
        self.objects += usize::from(matches!(put, Ok(Put::Stored(_))));
    }

    /// As a register, live.
    async fn register(&mut self, key: String, value: &str) {
        self.put(key, format!("l{:0>22}\n{value}", "A").into_bytes()).await;
    }

    /// As if it had been pushed long ago. Returns its digest.
    async fn image(&mut self, repository: &str) -> Digest {
        let image = self.images;
        self.images += 1;
        let mut blobs = Vec::new();
        for blob in 0..=LAYERS {
            let number = image * 100 + blob;
            let hex = format!("{:016x}{number:048x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (session, shard) = (format!("00000000-0000-4000-8000-{image:012x}"), image % 256);
            let data = format!("data/{shard:02x}/{session}-00000000-0000-4000-8000-{blob:012x}");
            let value = format!(r#"{{"size":4,"data":"{data}"}}"#);
            let folder = format!("blobs/sha256/{}/{hex}", &hex[..2]);
            self.put(data, b"blob".to_vec()).await;
            self.register(format!("{folder}/_"), &value).await;
            self.register(format!("{folder}/{repository}"), &value).await;
            blobs.push(format!(r#"{{"mediaType":"application/x","digest":"sha256:{hex}","size":4}}"#));
        }
        let of = "application/vnd.oci.image.manifest.v1+json";
        let config = blobs.pop().unwrap();
        let text =
            format!(r#"{{"schemaVersion":2,"mediaType":"{of}","config":{config},"layers":[{}]}}"#, blobs.join(","));
        let (digest, size, tag) = (Digest::of(Algorithm::Sha256, text.as_bytes()), text.len(), format!("t{image}"));
        let head = format!(r#"{{"mediaType":"{of}","size":{size}}}"#);
        let links = format!(r#"{{"life":"{image}","tags":["{tag}"]}}"#);
        self.register(
            format!("repos/{repository}/_manifests/sha256/{}", digest.hex()),
            &[head, links, text].join("\n"),
        )
        .await;
        let target = format!(r#"{{"mediaType":"{of}","digest":"{digest}","size":{size}}}"#);
        self.register(format!("repos/{repository}/_tags/{tag}"), &target).await;
        digest
    }

    async fn repository(&mut self, repository: &str) {
        self.register(format!("catalog/{repository}"), &format!(r#"{{"repository":"{repository}"}}"#)).await;
    }
}

/// Images to be deleted, and that many objects that stay: some in the same repositories, and the rest in others.
async fn filled(staying: usize) -> (Filled, Vec<(Repository, Digest)>) {
    let mut filled = Filled::new();
    let mut doomed = Vec::new();
    for n in 0..REPOSITORIES {
        let name = format!("busy{n}");
        filled.repository(&name).await;
        for _ in 0..DELETED / REPOSITORIES {
            doomed.push((repository(&name), filled.image(&name).await));
        }
        for _ in 0..10 {
            filled.image(&name).await;
        }
    }
    let objects = staying + DELETED * OBJECTS_PER_IMAGE;
    for n in 0.. {
        let name = format!("still{n}");
        filled.repository(&name).await;
        for _ in 0..100 {
            if filled.objects + OBJECTS_PER_IMAGE > objects {
                return (filled, doomed);
            }
            filled.image(&name).await;
        }
    }
    unreachable!("some repository is the last");
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

/// A registry that has just been started, and its collector.
struct Counted {
    store: Arc<Metered>,
    clock: Arc<Turned>,
    registry: Arc<Registry>,
    collector: Collector,
}

impl Counted {
    async fn over(store: &Arc<MemoryStore>) -> Self {
        let store = Arc::new(Metered::new(store.clone()));
        let clock = Turned::new();
        let registry = Registry::open_with(store.clone(), Settings::default(), clock.clone()).await.unwrap();
        Self { store, clock, collector: Collector::new(Arc::clone(&registry)), registry }
    }

    /// Deletes these images, and collects until nothing is left of them. What collecting cost.
    async fn collect(&self, doomed: &[(Repository, Digest)]) -> Counts {
        for (repository, digest) in doomed {
            self.registry.delete_manifest(repository, digest).await.unwrap();
        }
        self.registry.settle().await;
        self.store.take();
        let mut blobs = 0;
        // The week in which they can be put back, a day of rest, a day for tombstones, and the last day of history.
        for days in [8, 2, 2, 2] {
            self.clock.0.fetch_add(days * 24 * 3600, Ordering::Relaxed);
            blobs += self.collector.round().await.unwrap().blobs;
        }
        assert_eq!(blobs, doomed.len() as u64 * 10);
        self.store.take()
    }
}

async fn keys(store: &MemoryStore) -> usize {
    store.list("", None, usize::MAX).await.unwrap().len()
}

#[tokio::test]
async fn what_this_test_fills_a_store_with_is_what_the_registry_writes() {
    let mut filled = Filled::new();
    filled.repository("a").await;
    for _ in 0..3 {
        filled.image("a").await;
    }
    let mut findings = Vec::new();
    check::check(filled.store, |finding| findings.push(finding.to_string())).await.unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

#[tokio::test]
async fn collecting_a_thousand_images_costs_the_same_beside_a_million_objects_as_beside_ten_thousand() {
    let mut costs = Vec::new();
    for staying in [10_000, 1_000_000] {
        let (filled, doomed) = filled(staying).await;
        let before = keys(&filled.store).await;
        assert!(before.abs_diff(staying + DELETED * OBJECTS_PER_IMAGE) <= OBJECTS_PER_IMAGE, "{before}");
        let cost = Counted::over(&filled.store).await.collect(&doomed).await;
        let session_key = 1;
        assert_eq!(
            keys(&filled.store).await,
            before - DELETED * OBJECTS_PER_IMAGE + session_key,
            "nothing else is left"
        );
        println!("beside {staying} objects: {cost}");
        costs.push(cost.total());
    }
    assert_eq!(costs[0], costs[1]);
    let most_for_an_image = 215;
    assert!(costs[0] <= DELETED as u64 * most_for_an_image, "{costs:?}");
}

/// The price of a push that writes nothing for the collector: it looks through the manifests of the repository.
#[tokio::test]
async fn of_the_repository_itself_each_look_lists_the_manifests_and_a_process_reads_each_once() {
    const MANY: usize = 4_000;
    let mut costs = Vec::new();
    for staying in [0, MANY] {
        let mut filled = Filled::new();
        filled.repository("a").await;
        let mut doomed = Vec::new();
        for _ in 0..2 {
            doomed.push([(repository("a"), filled.image("a").await)]);
        }
        for _ in 0..=staying {
            filled.image("a").await;
        }
        let counted = Counted::over(&filled.store).await;
        let mut cost = Vec::new();
        for doomed in &doomed {
            cost.push(counted.collect(doomed).await);
        }
        costs.push(cost);
    }
    // Before and after it is condemned, when it has rested, and for the tombstone that a client left.
    let (looks, pages) = (4, MANY as u64 / 1000);
    for (image, manifests) in [(0, MANY as u64), (1, 0)] {
        let more = |verb| costs[1][image].of(verb) - costs[0][image].of(verb);
        assert_eq!((more(Verb::Read), more(Verb::List)), (manifests, looks * pages), "{costs:?}");
        assert_eq!(costs[1][image].total() - costs[0][image].total(), manifests + looks * pages);
    }
}

#[tokio::test(start_paused = true)]
async fn three_idle_replicas_make_at_most_a_call_a_minute() {
    const INTERVAL: Duration = Duration::from_mins(15);
    let mut filled = Filled::new();
    filled.repository("a").await;
    filled.image("a").await;
    let store = Arc::new(Metered::new(filled.store));
    let clock = Arc::new(Ticking(Instant::now()));
    let mut replicas = Vec::new();
    for replica in 0..3 {
        let registry = Registry::open_with(store.clone(), Settings::default(), clock.clone()).await.unwrap();
        replicas.push(tokio::spawn(async move {
            // They were started one after the other.
            let begins = Instant::now() + Duration::from_mins(4 * replica);
            let (collector, mut rounds) = (Collector::new(registry), tokio::time::interval_at(begins, INTERVAL));
            loop {
                rounds.tick().await;
                collector.turn(INTERVAL).await.unwrap();
            }
        }));
    }
    tokio::time::sleep(Duration::from_hours(1)).await;
    store.take();
    tokio::time::sleep(Duration::from_hours(1)).await;
    let cost = store.take();
    replicas.iter().for_each(tokio::task::JoinHandle::abort);
    // Four rounds of ten lists, the lease taken for each, and looked at by each replica four times.
    assert_eq!((cost.of(Verb::List), cost.of(Verb::Put), cost.of(Verb::Read)), (40, 4, 12), "{cost}");
    assert!(cost.total() <= 60, "{cost}");
}
