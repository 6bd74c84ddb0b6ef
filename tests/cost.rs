//! What each request asks of the store, exactly: calls, sequential round trips, bytes. The budget is in `docs/design/`.
//!
//! Run on a store with the limits of S3, scaled to bytes: a part is 5 bytes, all parts have one size.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Collector, PageRequest, Push, Registry, SessionId, Settings, Whole},
    store::{
        Limits, Span, Verb,
        memory::{MemoryStore, TINY_PARTS},
        metered::{Counts, Metered},
    },
};
use tokio::time::Instant;

const ROUND_TRIP: Duration = Duration::from_secs(1);

/// A registry of which every store call takes a second, on a clock that only moves for them.
struct Counted {
    registry: Arc<Registry>,
    store: Arc<Metered>,
    started: Instant,
}

/// What one request cost.
#[derive(Debug)]
struct Cost {
    calls: u64,
    round_trips: u64,
    counts: Counts,
}

impl Counted {
    async fn new() -> Self {
        Self::with(TINY_PARTS).await
    }

    async fn with(limits: Limits) -> Self {
        let store = Arc::new(Metered::with_latency(Arc::new(MemoryStore::new(limits)), ROUND_TRIP));
        let registry = Registry::open(store.clone(), Settings::default()).await.unwrap();
        Self { registry, store, started: Instant::now() }
    }

    /// Another replica: it remembers nothing.
    async fn replica(&self) -> Arc<Registry> {
        Registry::open(self.store.clone(), Settings::default()).await.unwrap()
    }

    fn start(&mut self) {
        self.store.take();
        self.started = Instant::now();
    }

    /// The cost up to the reply, and with the work left for after it in the calls.
    async fn stop(&self) -> Cost {
        let round_trips = self.started.elapsed().as_secs();
        self.registry.settle().await;
        let counts = self.store.take();
        Cost { calls: counts.total(), round_trips, counts }
    }

    async fn push_blob(&self, repository: &Repository, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        assert_eq!(self.registry.upload_whole(repository, &digest, body(bytes)).await.unwrap(), Whole::Stored);
        digest
    }

    async fn push_manifest(&self, repository: &Repository, target: Reference, bytes: &str) -> Digest {
        let push = Push {
            target,
            tags: Vec::new(),
            content_type: None,
            bytes: Bytes::from(bytes.to_owned()),
            condition: None,
        };
        self.registry.put_manifest(repository, push).await.unwrap().digest
    }
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn tag(name: &str) -> Reference {
    Reference::Tag(Tag::parse(name).unwrap())
}

fn body(bytes: &'static [u8]) -> Chunk {
    chunk(None, bytes)
}

fn chunk(start: Option<u64>, bytes: &'static [u8]) -> Chunk {
    let length = Some(bytes.len() as u64);
    Chunk { start, declared: None, length, body: Box::pin(stream::iter([Ok(Bytes::from_static(bytes))])) }
}

/// An image of a config and layers that were pushed.
fn image(config: &Digest, layers: &[Digest], more: &str) -> String {
    let layer = |digest: &Digest| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":4}}"#)
    };
    let layers = layers.iter().map(layer).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":4}},"layers":[{layers}]{more}}}"#
    )
}

async fn image_blobs(counted: &Counted, repository: &Repository) -> (Digest, [Digest; 3]) {
    let config = counted.push_blob(repository, b"conf").await;
    let layers = [
        counted.push_blob(repository, b"one.").await,
        counted.push_blob(repository, b"two.").await,
        counted.push_blob(repository, b"tri.").await,
    ];
    (config, layers)
}

// PUSH-8
#[tokio::test(start_paused = true)]
async fn starting_an_upload_costs_no_store_call() {
    let mut counted = Counted::new().await;
    counted.start();
    counted.registry.start_upload(&repository("a"), Algorithm::Sha256);
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_small_blob_in_one_request_costs_four_calls_one_after_the_other() {
    let mut counted = Counted::new().await;
    counted.start();
    counted.push_blob(&repository("a"), b"1234").await;
    let cost = counted.stop().await;
    // The reference in flight, the bytes, the record, the holder.
    assert_eq!(cost.counts.of(Verb::Put), 4, "{}", cost.counts);
    assert_eq!((cost.calls, cost.round_trips), (4, 4), "{}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn post_then_put_of_a_small_blob_costs_six_calls_in_five_round_trips() {
    let mut counted = Counted::new().await;
    let digest = Digest::of(Algorithm::Sha256, b"1234");
    let id = counted.registry.start_upload(&repository("a"), Algorithm::Sha256);
    counted.start();
    counted.registry.finish(&repository("a"), id, &digest, body(b"1234")).await.unwrap();
    let cost = counted.stop().await;
    // As above, and: is there a journal; and beside the rest, the session's end.
    assert_eq!((cost.calls, cost.round_trips), (6, 5), "{}", cost.counts);
}

/// A chunk of `k` parts: the claim and the closing record around them, and before the first one `begin`.
#[tokio::test(start_paused = true)]
async fn a_chunk_costs_its_parts_and_two_records_and_the_first_one_begin() {
    let mut counted = Counted::new().await;
    let name = repository("a");
    let id = counted.registry.start_upload(&name, Algorithm::Sha256);
    counted.registry.upload_status(&name, id).await.unwrap();
    counted.start();
    let progress = counted.registry.append(&name, id, chunk(Some(0), b"0123456789abcde")).await.unwrap();
    assert_eq!(progress.received, 15);
    let cost = counted.stop().await;
    // One list: this replica has not written to the session yet.
    assert_eq!(cost.counts.of(Verb::List), 1, "{}", cost.counts);
    assert_eq!(cost.counts.of(Verb::Begin), 1, "{}", cost.counts);
    assert_eq!(cost.counts.of(Verb::PutPart), 3, "{}", cost.counts);
    assert_eq!(cost.counts.of(Verb::Put), 2, "{}", cost.counts);
    assert_eq!(cost.calls, 7, "{}", cost.counts);

    counted.start();
    counted.registry.append(&name, id, chunk(Some(15), b"0123456789")).await.unwrap();
    let cost = counted.stop().await;
    assert_eq!(cost.counts.of(Verb::PutPart), 2, "{}", cost.counts);
    // Where the session stands is remembered; that it has not ended meanwhile is read, beside the body.
    assert_eq!(cost.counts.of(Verb::Read), 1, "{}", cost.counts);
    assert_eq!(cost.calls, 5, "{}", cost.counts);

    // What stays below a part rides in the record.
    counted.start();
    counted.registry.append(&name, id, chunk(Some(25), b"xyz")).await.unwrap();
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (2, 1), "{}", cost.counts);
}

async fn streamed(counted: &Counted, name: &Repository, bytes: &'static [u8]) -> SessionId {
    let id = counted.registry.start_upload(name, Algorithm::Sha256);
    counted.registry.append(name, id, body(bytes)).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn finishing_costs_the_same_for_any_size_and_moves_no_byte() {
    let large: &'static [u8] = Box::leak(vec![7; 5 * 1000].into_boxed_slice());
    let mut costs = Vec::new();
    for bytes in [b"0123456789".as_slice(), large] {
        let mut counted = Counted::new().await;
        let id = streamed(&counted, &repository("a"), bytes).await;
        counted.start();
        let digest = Digest::of(Algorithm::Sha256, bytes);
        counted.registry.finish(&repository("a"), id, &digest, body(b"")).await.unwrap();
        let cost = counted.stop().await;
        assert_eq!(cost.counts.of(Verb::PutPart) + cost.counts.of(Verb::Open), 0, "{}", cost.counts);
        assert_eq!(cost.counts.bytes_down, 0, "{}", cost.counts);
        assert!(cost.counts.bytes_up < 1500, "{}", cost.counts);
        costs.push((cost.calls, cost.round_trips));
    }
    // The reference in flight, the end, complete, the record, the holder.
    assert_eq!(costs, [(5, 5); 2]);
}

#[tokio::test(start_paused = true)]
async fn finishing_on_a_replica_that_never_saw_the_session_costs_seven_calls() {
    let mut counted = Counted::new().await;
    let bytes = b"0123456789";
    let id = streamed(&counted, &repository("a"), bytes).await;
    let replica = counted.replica().await;
    counted.start();
    replica.finish(&repository("a"), id, &Digest::of(Algorithm::Sha256, bytes), body(b"")).await.unwrap();
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (7, 7), "{}", cost.counts);
}

/// Bytes below a part are written to the journal first and into a part later; everything else moves once.
#[tokio::test(start_paused = true)]
async fn chunks_smaller_than_a_part_move_at_most_half_as_much_again_and_nothing_down() {
    let mut counted = Counted::with(Limits { min_part: 500_000, part: 600_000, ..TINY_PARTS }).await;
    let name = repository("a");
    let bytes: &'static [u8] = Box::leak(vec![7; 2_400_000].into_boxed_slice());
    let id = counted.registry.start_upload(&name, Algorithm::Sha256);
    counted.start();
    for (n, piece) in bytes.chunks(300_000).enumerate() {
        counted.registry.append(&name, id, chunk(Some(n as u64 * 300_000), piece)).await.unwrap();
    }
    counted.registry.finish(&name, id, &Digest::of(Algorithm::Sha256, bytes), body(b"")).await.unwrap();
    let cost = counted.stop().await;
    let records = 20_000;
    assert!(cost.counts.bytes_up < 2_400_000 * 3 / 2 + records, "{}", cost.counts);
    assert!(cost.counts.bytes_down < 100, "{}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn a_mount_costs_five_calls_in_four_round_trips() {
    let mut counted = Counted::new().await;
    let digest = counted.push_blob(&repository("a"), b"1234").await;
    counted.start();
    assert!(counted.registry.mount(&repository("b"), &digest, Some(&repository("a"))).await.unwrap());
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (5, 4), "{}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_one_read_and_its_bytes_another() {
    let mut counted = Counted::new().await;
    let digest = counted.push_blob(&repository("a"), b"1234").await;
    counted.start();
    counted.registry.stat_blob(&repository("a"), &digest).await.unwrap();
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (1, 1), "{}", cost.counts);
    counted.start();
    let blob = counted.registry.find_blob(&repository("a"), &digest).await.unwrap();
    counted.registry.read_blob(&blob, Span::ALL).await.unwrap();
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (2, 2), "{}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn a_new_manifest_with_three_layers_and_a_tag_costs_eleven_calls_in_five_round_trips() {
    let mut counted = Counted::new().await;
    let name = repository("a");
    let (config, layers) = image_blobs(&counted, &name).await;
    counted.start();
    counted.push_manifest(&name, tag("latest"), &image(&config, &layers, "")).await;
    let cost = counted.stop().await;
    // Manifest and tag as they are; the reference in flight; four holders and the catalog; the manifest; the tag, and
    // the line of its history beside it. Then, off the path, the reference in flight is dropped.
    assert_eq!(cost.counts.of(Verb::Read), 6, "{}", cost.counts);
    assert_eq!(cost.counts.of(Verb::Put), 5, "{}", cost.counts);
    assert_eq!((cost.calls, cost.round_trips), (12, 5), "{}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_is_one_read_by_digest_and_two_by_tag_and_a_head_is_always_one() {
    let mut counted = Counted::new().await;
    let name = repository("a");
    let (config, layers) = image_blobs(&counted, &name).await;
    let digest = counted.push_manifest(&name, tag("latest"), &image(&config, &layers, "")).await;
    for (reference, get) in [(Reference::Digest(digest), 1), (tag("latest"), 2)] {
        counted.start();
        counted.registry.head_manifest(&name, &reference).await.unwrap();
        let cost = counted.stop().await;
        assert_eq!((cost.calls, cost.round_trips), (1, 1), "{}", cost.counts);
        counted.start();
        counted.registry.manifest(&name, &reference).await.unwrap();
        let cost = counted.stop().await;
        assert_eq!((cost.calls, cost.round_trips), (get, get), "{}", cost.counts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_tags_is_one_list_per_thousand() {
    let mut counted = Counted::new().await;
    let name = repository("a");
    let (config, layers) = image_blobs(&counted, &name).await;
    for n in 0..20 {
        counted.push_manifest(&name, tag(&format!("t{n}")), &image(&config, &layers, "")).await;
    }
    counted.start();
    let page = counted.registry.tags(&name, &PageRequest { n: Some(5), last: None }).await.unwrap();
    assert_eq!(page.items.len(), 5);
    let cost = counted.stop().await;
    assert_eq!((cost.calls, cost.round_trips), (1, 1), "{}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn a_page_after_what_can_be_no_tag_or_name_costs_no_more_than_one_after_what_can() {
    let mut counted = Counted::new().await;
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    for n in 1000..1250 {
        counted.push_manifest(&repository("a"), tag(&format!("t{n}")), index).await;
        counted.push_manifest(&repository(&format!("t{n}")), tag("t"), index).await;
    }
    for last in ["t1239", "t1239/~", "t1239\u{e9}", "t1239 "] {
        let page = PageRequest { n: Some(5), last: Some(last.to_owned()) };
        counted.start();
        let tags = counted.registry.tags(&repository("a"), &page).await.unwrap();
        let names = counted.registry.catalog(&page).await.unwrap();
        assert_eq!((tags.items[0].as_str(), names.items[0].as_str()), ("t1240", "t1240"), "{last}");
        let cost = counted.stop().await;
        assert_eq!((cost.calls, cost.round_trips), (2, 2), "{last}: {}", cost.counts);
    }
}

#[tokio::test(start_paused = true)]
async fn referrers_are_one_list_and_what_is_not_remembered() {
    let mut counted = Counted::new().await;
    let name = repository("a");
    let (config, layers) = image_blobs(&counted, &name).await;
    let subject = counted.push_manifest(&name, tag("subject"), &image(&config, &layers, "")).await;
    for n in 0..3 {
        let more = format!(
            r#","annotations":{{"n":"{n}"}},"subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{subject}","size":1}}"#
        );
        counted.push_manifest(&name, tag(&format!("r{n}")), &image(&config, &layers, &more)).await;
    }
    for (calls, round_trips) in [(4, 2), (1, 1)] {
        counted.start();
        let page = counted.registry.referrers(&name, &subject, &[], &PageRequest::default()).await.unwrap();
        assert_eq!(page.items.len(), 3);
        let cost = counted.stop().await;
        assert_eq!((cost.calls, cost.round_trips), (calls, round_trips), "{}", cost.counts);
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_a_manifest_costs_four_calls_and_three_per_tag_in_parallel() {
    let mut counted = Counted::new().await;
    let name = repository("a");
    let (config, layers) = image_blobs(&counted, &name).await;
    let mut digest = None;
    for n in 0..41 {
        digest = Some(counted.push_manifest(&name, tag(&format!("t{n}")), &image(&config, &layers, "")).await);
    }
    counted.start();
    counted.registry.delete_manifest(&name, &digest.unwrap()).await.unwrap();
    let cost = counted.stop().await;
    assert_eq!(cost.calls, 4 + 3 * 41, "{}", cost.counts);
    assert_eq!(cost.round_trips, 4 + 2 * 3, "sixteen side by side: {}", cost.counts);
}

#[tokio::test(start_paused = true)]
async fn collecting_costs_ten_lists_and_for_an_image_of_ten_blobs_66_calls_when_it_came_and_193_when_it_went() {
    let mut counted = Counted::new().await;
    let settings = Settings { grace: Duration::ZERO, undelete: Duration::ZERO, ..Settings::default() };
    counted.registry = Registry::open(counted.store.clone(), settings).await.unwrap();
    let collector = Collector::new(Arc::clone(&counted.registry));
    let a = repository("a");
    counted.start();
    collector.round().await.unwrap();
    let idle = counted.stop().await;
    assert_eq!((idle.calls, idle.counts.of(Verb::List)), (10, 10), "{}", idle.counts);

    let mut blobs = Vec::new();
    for bytes in [b"num0", b"num1", b"num2", b"num3", b"num4", b"num5", b"num6", b"num7", b"num8", b"num9"] {
        blobs.push(counted.push_blob(&a, bytes).await);
    }
    let manifest = image(&blobs.pop().unwrap(), &blobs, "");
    let digest = counted.push_manifest(&a, tag("t"), &manifest).await;
    counted.registry.settle().await;
    counted.start();
    collector.round().await.unwrap();
    let came = counted.stop().await;
    assert_eq!(came.calls - idle.calls, 66, "{}", came.counts);

    counted.registry.delete_manifest(&a, &digest).await.unwrap();
    counted.registry.settle().await;
    counted.start();
    assert_eq!(collector.round().await.unwrap().blobs, 10);
    let went = counted.stop().await;
    assert_eq!(went.calls - idle.calls, 193, "{}", went.counts);
}
