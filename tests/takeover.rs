//! A replica dies in the middle of a finish, after each of its store calls in turn; another one is asked again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod read;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{future::join, stream};
use marina_distribution::{
    oci::{Algorithm, Digest, Repository},
    registry::{Chunk, Error, Registry, SessionId, Settings, Torn},
    store::{
        Store, Verb,
        faulty::{Fault, Faulty},
        memory::{MemoryStore, TINY_PARTS},
    },
};

const BYTES: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

async fn registry(store: Arc<dyn Store>) -> Arc<Registry> {
    Registry::open(store, Settings::default()).await.unwrap()
}

fn repository() -> Repository {
    Repository::parse("a").unwrap()
}

fn chunk(bytes: &'static [u8]) -> Chunk {
    let body = Box::pin(stream::iter(bytes.chunks(3).map(|it| Ok(Bytes::from_static(it)))));
    Chunk { start: None, declared: None, length: Some(bytes.len() as u64), body }
}

/// Starts a session, of which `sent` bytes are acknowledged.
async fn session(registry: &Arc<Registry>, algorithm: Algorithm, sent: usize) -> SessionId {
    let id = registry.start_upload(&repository(), algorithm);
    if sent > 0 {
        registry.append(&repository(), id, chunk(&BYTES[..sent])).await.unwrap();
    }
    id
}

// PUSH-17, CHUNK-9
#[tokio::test]
async fn finishing_again_succeeds_wherever_the_replica_died_that_was_at_it() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for sent in [0, 7, BYTES.len()] {
            let mut calls = 0;
            loop {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new(TINY_PARTS));
                let survivor = registry(Arc::clone(&store)).await;
                let id = session(&survivor, Algorithm::Sha256, sent).await;
                let before = calls + 1;
                let dies = move |call: &marina_distribution::store::faulty::Call| {
                    if call.index < before { Fault::None } else { Fault::NotApplied }
                };
                let dying = registry(Arc::new(Faulty::new(Arc::clone(&store), dies))).await;
                let digest = Digest::of(algorithm, BYTES);
                let done = dying.finish(&repository(), id, &digest, chunk(&BYTES[sent..])).await;

                let status = survivor.upload_status(&repository(), id).await;
                if survivor.stat_blob(&repository(), &digest).await.is_ok() {
                    assert!(matches!(status, Err(Error::UploadUnknown)), "{status:?}");
                } else {
                    // The client that asks where it stands may go on.
                    let received = usize::try_from(status.unwrap().received).unwrap();
                    assert!((sent..=BYTES.len()).contains(&received), "{received} of {sent}");
                }

                let again = survivor.finish(&repository(), id, &digest, chunk(&BYTES[sent..])).await;
                assert!(again.is_ok(), "{algorithm}, {sent} sent before, dead after call {calls}: {again:?}");
                assert_eq!(read::blob(&survivor, &repository(), &digest).await, BYTES);
                if done.is_ok() {
                    assert!(calls > 3, "it died too late to show anything");
                    break;
                }
                calls += 1;
            }
        }
    }
}

// CHUNK-9
#[tokio::test]
async fn whatever_came_in_pieces_and_was_torn_another_replica_finishes_with_the_same_bytes() {
    for (sent, torn, more) in
        (0..=9).flat_map(|sent| (0..=8).flat_map(move |torn| (0..=6).map(move |more| (sent, torn, more))))
    {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(TINY_PARTS));
        let first = registry(Arc::clone(&store)).await;
        let id = session(&first, Algorithm::Sha256, 0).await;
        for piece in BYTES[..sent].chunks(2) {
            first.append(&repository(), id, chunk(piece)).await.unwrap();
        }
        let body = [Ok(Bytes::from_static(&BYTES[sent..sent + torn])), Err(Torn)];
        let cut = Chunk { length: Some(100), body: Box::pin(stream::iter(body)), ..chunk(b"") };
        assert!(matches!(first.append(&repository(), id, cut).await, Err(Error::BodyTorn)));
        // The client asks, goes on from there, and is sent to another replica at the end.
        let mut at = usize::try_from(first.upload_status(&repository(), id).await.unwrap().received).unwrap();
        if more > 0 {
            let goes_on = Chunk { start: Some(at as u64), ..chunk(&BYTES[at..at + more]) };
            first.append(&repository(), id, goes_on).await.unwrap();
            at += more;
        }
        let digest = Digest::of(Algorithm::Sha256, BYTES);
        let other = registry(store).await;
        let rest = Chunk { start: Some(at as u64), ..chunk(&BYTES[at..]) };
        other.finish(&repository(), id, &digest, rest).await.unwrap();
        assert_eq!(read::blob(&other, &repository(), &digest).await, BYTES, "{sent} sent, {torn} torn, {more} more");
    }
}

// PUSH-11
#[tokio::test(start_paused = true)]
async fn a_blob_that_takes_longer_to_read_through_than_a_publish_may_take_is_published() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(TINY_PARTS));
    let slow = Arc::new(Faulty::new(store, |call| if call.verb == Verb::Open { Fault::Halted } else { Fault::None }));
    let registry = registry(Arc::clone(&slow) as Arc<dyn Store>).await;
    let id = session(&registry, Algorithm::Sha256, 20).await;
    let digest = Digest::of(Algorithm::Sha512, BYTES);
    let repository = repository();
    let finish = registry.finish(&repository, id, &digest, chunk(&BYTES[20..]));
    let reading = async {
        slow.halted().await;
        tokio::time::advance(Settings::default().publish_deadline * 2).await;
        slow.release();
    };
    let (done, ()) = join(finish, reading).await;
    done.unwrap();
    assert!(registry.stat_blob(&repository, &digest).await.is_ok());
}
