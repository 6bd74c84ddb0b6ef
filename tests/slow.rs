//! What is slow, on a store whose parts are of one size: the memory of its parts is there for others.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod read;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use marina_distribution::{
    oci::{Algorithm, Digest, MAX_MANIFEST, Reference, Repository, Tag},
    registry::{Chunk, Push, Registry, Settings, Torn},
    store::{
        Limits, Store, Verb,
        faulty::{Call, Fault, Faulty},
        memory::{MemoryStore, TINY_PARTS},
    },
};

const PART: usize = 1000;
/// The memory of the replica, in parts.
const PARTS: usize = 2;
const SLOW: usize = 10;
/// What a client sends before it is silent, and how long for.
const FRAME: usize = 150;
const SILENCE: Duration = Duration::from_secs(20);

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Limits { part: PART as u64, min_part: PART as u64, ..TINY_PARTS }))
}

async fn registry_on(store: Arc<dyn Store>) -> Arc<Registry> {
    let settings = Settings { memory: PARTS * PART, ..Settings::default() };
    Registry::open(store, settings).await.unwrap()
}

async fn registry() -> Arc<Registry> {
    registry_on(store()).await
}

fn repository() -> Repository {
    Repository::parse("a").unwrap()
}

/// Bytes that are another's in no place.
fn bytes(client: usize, length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251 + client * 31) % 256).unwrap()).collect()
}

/// A body in frames, with a silence before each but the first.
fn body(bytes: &Bytes, silence: Duration) -> Chunk {
    let frames: Vec<Bytes> = bytes.chunks(FRAME).map(Bytes::copy_from_slice).collect();
    let frames = stream::iter(frames.into_iter().enumerate()).then(move |(at, frame)| async move {
        if at > 0 {
            tokio::time::sleep(silence).await;
        }
        Ok::<_, Torn>(frame)
    });
    Chunk { start: None, declared: None, length: None, body: Box::pin(frames) }
}

// GEN-11
#[tokio::test(start_paused = true)]
async fn slow_clients_keep_nobody_else_from_memory_and_lose_nothing() {
    push_beside_slow_clients(SILENCE).await;
    // Where there are no files they hold their memory, and the others wait until it is free.
    tempfile::env::override_temp_dir(Path::new("/nowhere")).unwrap();
    push_beside_slow_clients(SILENCE * 1000).await;
}

async fn push_beside_slow_clients(patience: Duration) {
    let registry = registry().await;
    let slow = (0..SLOW).map(|client| {
        let (registry, sent) = (Arc::clone(&registry), bytes(client, 2 * PART + PART / 2));
        tokio::spawn(async move { push(&registry, sent, SILENCE).await })
    });
    let slow: Vec<_> = slow.collect();
    tokio::time::sleep(SILENCE / 2).await;

    let fast = (SLOW..2 * SLOW).map(|client| push(&registry, bytes(client, 5 * PART + 1), Duration::ZERO));
    let fast = tokio::time::timeout(patience, join_all(fast)).await.unwrap();
    assert!(patience > SILENCE || slow.iter().all(|slow| !slow.is_finished()));

    for (digest, sent) in fast.into_iter().chain(join_all(slow).await.into_iter().map(Result::unwrap)) {
        assert_eq!(read::blob(&registry, &repository(), &digest).await, sent);
    }
}

async fn push(registry: &Arc<Registry>, sent: Bytes, silence: Duration) -> (Digest, Bytes) {
    let digest = Digest::of(Algorithm::Sha256, &sent);
    registry.upload_whole(&repository(), &digest, body(&sent, silence)).await.unwrap();
    (digest, sent)
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_from_what_a_slow_client_left_in_it() {
    let registry = registry().await;
    let sessions = join_all((0..SLOW).map(async |client| {
        let sent = bytes(client, 3 * PART);
        let id = registry.start_upload(&repository(), Algorithm::Sha256);
        let (first, rest) = (sent.slice(..PART + PART / 3), sent.slice(PART + PART / 3..));
        let after = registry.append(&repository(), id, body(&first, SILENCE)).await.unwrap();
        assert_eq!(after.received, first.len() as u64);
        let digest = Digest::of(Algorithm::Sha256, &sent);
        registry.finish(&repository(), id, &digest, body(&rest, SILENCE)).await.unwrap();
        (digest, sent)
    }));
    for (digest, sent) in sessions.await {
        assert_eq!(read::blob(&registry, &repository(), &digest).await, sent);
    }
}

// PUSH-11
#[tokio::test(start_paused = true)]
async fn blobs_that_are_read_through_keep_nobody_from_memory() {
    let slow = Arc::new(Faulty::new(store(), |call| if call.verb == Verb::Open { Fault::Halted } else { Fault::None }));
    let registry = registry_on(Arc::clone(&slow) as Arc<dyn Store>).await;
    let finishes: Vec<_> =
        (0..PARTS).map(|client| tokio::spawn(finish_as_sha512(Arc::clone(&registry), client))).collect();
    tokio::time::sleep(SILENCE).await;
    let push = push(&registry, bytes(SLOW, PARTS * PART), Duration::ZERO);
    tokio::time::timeout(SILENCE, push).await.unwrap();
    slow.release();
    for done in join_all(finishes).await {
        done.unwrap();
    }
}

/// Its bytes are hashed as sha256 on their way in, and so read once more.
async fn finish_as_sha512(registry: Arc<Registry>, client: usize) {
    let sent = bytes(client, 2 * PART + PART / 2);
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    registry.append(&repository(), id, body(&sent.slice(..PART), Duration::ZERO)).await.unwrap();
    let digest = Digest::of(Algorithm::Sha512, &sent);
    registry.finish(&repository(), id, &digest, body(&sent.slice(PART..), Duration::ZERO)).await.unwrap();
}

// MAN-6
#[tokio::test(start_paused = true)]
async fn a_usual_manifest_does_not_wait_for_one_of_the_largest() {
    let halts = |call: &Call| if call.key.contains("large") { Fault::Halted } else { Fault::None };
    let slow = Arc::new(Faulty::new(store(), halts));
    let registry = registry_on(Arc::clone(&slow) as Arc<dyn Store>).await;
    let large = {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { push_index(&registry, "large", MAX_MANIFEST - 1000).await })
    };
    slow.halted().await;
    tokio::time::timeout(SILENCE, push_index(&registry, "a", 1000)).await.unwrap();
    assert!(!large.is_finished());
    slow.release();
    large.await.unwrap();
}

/// An index of nothing, with an annotation of so many bytes.
async fn push_index(registry: &Arc<Registry>, repository: &str, length: usize) {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let annotation = "x".repeat(length);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[],"annotations":{{"a":"{annotation}"}}}}"#
    );
    let push = Push {
        target: Reference::Tag(Tag::parse("t").unwrap()),
        tags: Vec::new(),
        content_type: Some(media_type.to_owned()),
        bytes: index.into(),
        condition: None,
    };
    registry.put_manifest(&Repository::parse(repository).unwrap(), push).await.unwrap();
}
