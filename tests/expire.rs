//! What was begun and never ended: sessions and references in flight, on an injected clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clock;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Error, Expired, PageRequest, Push, Registry, Settings, Torn, Whole},
    store::{
        Store,
        faulty::{Fault, Faulty},
        memory::MemoryStore,
        metered::Metered,
    },
};

use self::clock::Turned;

const HOUR: u64 = 3600;

impl Turned {
    fn forward(&self, hours: u64) {
        self.0.fetch_add(hours * HOUR, Ordering::Relaxed);
    }
}

async fn registry(store: Arc<dyn Store>, clock: &Arc<Turned>) -> Arc<Registry> {
    Registry::open_with(store, Settings::default(), clock.clone()).await.unwrap()
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let entries = store.list(prefix, None, 1000).await.unwrap();
    entries.into_iter().map(|entry| entry.key.to_string()).collect()
}

fn repository() -> Repository {
    Repository::parse("a/b").unwrap()
}

fn chunk(start: Option<u64>, bytes: &'static [u8]) -> Chunk {
    let length = Some(bytes.len() as u64);
    Chunk { start, declared: None, length, body: Box::pin(stream::iter([Ok(Bytes::from_static(bytes))])) }
}

const PARTS: &[u8] = b"0123456789abcdef";

// CHUNK-12
#[tokio::test]
async fn an_abandoned_session_is_unknown_after_its_life_and_leaves_nothing_after_another() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let registry = registry(store.clone(), &clock).await;
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    registry.append(&repository(), id, chunk(Some(0), PARTS)).await.unwrap();
    clock.forward(23);
    assert_eq!(registry.expire().await.unwrap(), Expired::default());
    // Activity counts, not age.
    registry.append(&repository(), id, chunk(Some(16), PARTS)).await.unwrap();
    clock.forward(23);
    assert_eq!(registry.upload_status(&repository(), id).await.unwrap().received, 32);
    assert_eq!(registry.expire().await.unwrap(), Expired::default());

    clock.forward(2);
    assert!(matches!(registry.upload_status(&repository(), id).await, Err(Error::UploadUnknown)));
    assert_eq!(registry.expire().await.unwrap().sessions, 1);
    assert_eq!(keys(store.as_ref(), "uploads/").await, [format!("uploads/{id}/!end")]);
    assert_eq!(store.open_uploads(), 0);
    clock.forward(26);
    assert_eq!(registry.expire().await.unwrap().sessions, 0, "told once");
    assert_eq!(keys(store.as_ref(), "uploads/").await, [""; 0]);
    assert!(matches!(registry.upload_status(&repository(), id).await, Err(Error::UploadUnknown)));
}

/// Most uploads end so. Their marks must not cost anything in each round of a day.
#[tokio::test]
async fn the_mark_of_a_finished_session_is_looked_at_by_one_round_only() {
    let (memory, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let store = Arc::new(Metered::new(memory.clone()));
    let registry = registry(store.clone(), &clock).await;
    let digest = Digest::of(Algorithm::Sha256, b"1234");
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    registry.finish(&repository(), id, &digest, chunk(None, b"1234")).await.unwrap();
    let mut looks = 0;
    for _ in 0..52 {
        clock.forward(1);
        store.take();
        assert_eq!(registry.expire().await.unwrap().sessions, 0);
        // Four lists tell what there is to be done.
        looks += u64::from(store.take().total() > 4);
    }
    assert_eq!(looks, 2, "of its reference in flight, and of its end");
    assert_eq!(keys(memory.as_ref(), "uploads/").await, [""; 0]);
}

// CHUNK-12
#[tokio::test]
async fn a_session_that_was_started_and_never_used_is_unknown_after_its_life() {
    let clock = Turned::new();
    let registry = registry(Arc::new(MemoryStore::default()), &clock).await;
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    clock.forward(24);
    assert_eq!(registry.upload_status(&repository(), id).await.unwrap().received, 0);
    clock.forward(2);
    assert!(matches!(registry.upload_status(&repository(), id).await, Err(Error::UploadUnknown)));
    let late = registry.append(&repository(), id, chunk(Some(0), b"late")).await;
    assert!(matches!(late, Err(Error::UploadUnknown)), "{late:?}");
}

#[tokio::test]
async fn the_bytes_of_a_finished_session_stay_and_its_journal_goes() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let registry = registry(store.clone(), &clock).await;
    let digest = Digest::of(Algorithm::Sha256, PARTS);
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    registry.append(&repository(), id, chunk(Some(0), PARTS)).await.unwrap();
    registry.finish(&repository(), id, &digest, chunk(None, b"")).await.unwrap();
    clock.forward(30);
    // The reference in flight goes in the first round, and only then, in the next, the session behind it.
    for _ in 0..2 {
        registry.expire().await.unwrap();
    }
    clock.forward(30);
    registry.expire().await.unwrap();
    assert_eq!(keys(store.as_ref(), "uploads/").await, [""; 0]);
    assert_eq!(keys(store.as_ref(), "pending/").await, [""; 0]);
    assert_eq!(keys(store.as_ref(), "data/").await.len(), 1);
    assert_eq!(keys(store.as_ref(), "dropped/").await.len(), 1);
    let blob = registry.find_blob(&repository(), &digest).await.unwrap();
    assert_eq!(blob.size, PARTS.len() as u64);
}

#[tokio::test]
async fn a_session_whose_content_was_there_already_drops_its_bytes() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let registry = registry(store.clone(), &clock).await;
    let digest = Digest::of(Algorithm::Sha256, PARTS);
    for _ in 0..2 {
        let id = registry.start_upload(&repository(), Algorithm::Sha256);
        registry.append(&repository(), id, chunk(Some(0), PARTS)).await.unwrap();
        registry.finish(&repository(), id, &digest, chunk(None, b"")).await.unwrap();
    }
    assert_eq!(keys(store.as_ref(), "data/").await.len(), 2, "completed before the record was lost to the first");
    clock.forward(30);
    for _ in 0..2 {
        registry.expire().await.unwrap();
    }
    assert_eq!(keys(store.as_ref(), "data/").await.len(), 1);
    let blob = registry.find_blob(&repository(), &digest).await.unwrap();
    registry.read_blob(&blob, marina_distribution::store::Span::ALL).await.unwrap();
}

/// A registry whose process dies before its store call number `calls`, counted from the first.
async fn dies_before(store: Arc<MemoryStore>, clock: &Arc<Turned>, calls: Arc<AtomicUsize>) -> Arc<Registry> {
    let faulty =
        Faulty::new(
            store,
            move |call| {
                if call.index < calls.load(Ordering::Relaxed) { Fault::None } else { Fault::NotApplied }
            },
        );
    registry(Arc::new(faulty), clock).await
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_push_that_died_before_its_record_are_dropped_and_the_push_can_come_again() {
    for calls in 1..=4 {
        let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
        let alive = Arc::new(AtomicUsize::new(usize::MAX));
        let dying = dies_before(store.clone(), &clock, alive.clone()).await;
        // Opening took three.
        alive.store(3 + calls, Ordering::Relaxed);
        let digest = Digest::of(Algorithm::Sha256, b"1234");
        let died = dying.upload_whole(&repository(), &digest, chunk(None, b"1234")).await;
        assert_eq!(died.is_err(), calls < 4, "{died:?}");

        let registry = registry(store.clone(), &clock).await;
        clock.forward(25);
        registry.expire().await.unwrap();
        assert_eq!(keys(store.as_ref(), "pending/").await, [""; 0]);
        assert_eq!(keys(store.as_ref(), "data/").await.len(), usize::from(calls >= 3), "after {calls} calls");
        let again = registry.upload_whole(&repository(), &digest, chunk(None, b"1234")).await.unwrap();
        assert_eq!(again, Whole::Stored);
        registry.stat_blob(&repository(), &digest).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_died_between_its_manifest_and_its_referrer_entry_is_completed() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let whole = registry(store.clone(), &clock).await;
    let config = Digest::of(Algorithm::Sha256, b"{}");
    whole.upload_whole(&repository(), &config, chunk(None, b"{}")).await.unwrap();
    let subject = Digest::of(Algorithm::Sha256, b"never pushed");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"text/x","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2}},"layers":[],"subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{subject}","size":1}}}}"#
    );
    let push = Push {
        target: Reference::Tag(Tag::parse("sig").unwrap()),
        tags: Vec::new(),
        content_type: None,
        bytes: Bytes::from(manifest.clone()),
        condition: None,
    };
    let listed = async |registry: &Registry| {
        let page = registry.referrers(&repository(), &subject, &[], &PageRequest::default()).await.unwrap();
        page.items.len()
    };
    let alive = Arc::new(AtomicUsize::new(usize::MAX));
    let dying = dies_before(store.clone(), &clock, alive.clone()).await;
    // Opening read the key; then three reads, the reference in flight, the holder and the catalog, and the manifest.
    alive.store(1 + 3 + 1 + 2 + 1, Ordering::Relaxed);
    assert!(matches!(dying.put_manifest(&repository(), push).await, Err(Error::Store(_))));

    let digest = Digest::of(Algorithm::Sha256, manifest.as_bytes());
    let registry = registry(store.clone(), &clock).await;
    registry.manifest(&repository(), &Reference::Digest(digest)).await.unwrap();
    assert_eq!(listed(&registry).await, 0);
    assert_eq!(registry.expire().await.unwrap(), Expired::default(), "it may still be at work");
    clock.forward(25);
    registry.expire().await.unwrap();
    assert_eq!(listed(&registry).await, 1);
    registry.settle().await;
    assert_eq!(keys(store.as_ref(), "pending/manifests/").await, [""; 0]);

    // Deleted since: then it stays deleted.
    registry.delete_manifest(&repository(), &digest).await.unwrap();
    clock.forward(50);
    registry.expire().await.unwrap();
    assert_eq!(listed(&registry).await, 0);
}

// CHUNK-11
#[tokio::test]
async fn a_cancelled_session_releases_its_parts_at_once() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let registry = registry(store.clone(), &clock).await;
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    registry.append(&repository(), id, chunk(Some(0), PARTS)).await.unwrap();
    assert_eq!(store.open_uploads(), 1);
    registry.cancel_upload(&repository(), id).await.unwrap();
    assert_eq!(store.open_uploads(), 0);
    assert!(matches!(registry.upload_status(&repository(), id).await, Err(Error::UploadUnknown)));
    assert!(matches!(registry.cancel_upload(&repository(), id).await, Err(Error::UploadUnknown)));
    clock.forward(26);
    registry.expire().await.unwrap();
    assert_eq!(keys(store.as_ref(), "uploads/").await, [format!("uploads/{id}/!end")]);
}

#[tokio::test]
async fn what_a_torn_body_left_is_dropped_with_its_session() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let registry = registry(store.clone(), &clock).await;
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    let body = stream::iter([Ok(Bytes::from_static(PARTS)), Err(Torn)]);
    let torn = Chunk { start: None, declared: None, length: Some(100), body: Box::pin(body) };
    assert!(matches!(registry.append(&repository(), id, torn).await, Err(Error::BodyTorn)));
    assert_eq!(registry.upload_status(&repository(), id).await.unwrap().received, 15);
    clock.forward(25);
    registry.expire().await.unwrap();
    assert_eq!(store.open_uploads(), 0);
    assert_eq!(keys(store.as_ref(), "uploads/").await, [format!("uploads/{id}/!end")]);
}

/// Of a session that is over nothing may be left but what its end says, and that goes one day.
#[tokio::test]
async fn a_session_that_this_process_remembers_does_not_outlive_its_mark() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Turned::new());
    let (registry, other) = (registry(store.clone(), &clock).await, registry(store.clone(), &clock).await);
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    registry.append(&repository(), id, chunk(Some(0), PARTS)).await.unwrap();
    for _ in 0..4 {
        clock.forward(26);
        other.expire().await.unwrap();
    }
    let late = registry.append(&repository(), id, chunk(Some(16), PARTS)).await;
    assert!(matches!(late, Err(Error::UploadUnknown)), "{late:?}");
    let digest = Digest::of(Algorithm::Sha256, PARTS);
    let late = registry.finish(&repository(), id, &digest, chunk(None, b"")).await;
    assert!(matches!(late, Err(Error::UploadUnknown)), "{late:?}");
    assert_eq!(keys(store.as_ref(), "uploads/").await, [""; 0]);
}
