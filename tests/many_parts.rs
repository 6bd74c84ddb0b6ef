//! Blobs of as many parts as a store can number, and of more.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use marina_distribution::{
    oci::{Algorithm, Digest, Repository},
    registry::{Chunk, Error, Progress, Registry, Result, SessionId, Settings},
    store::{
        Limits, Span,
        memory::{MemoryStore, TINY_PARTS},
    },
};

const SMALLEST: u64 = TINY_PARTS.min_part;
/// One more than the store has numbers for parts of the smallest size.
const TOO_MUCH: u64 = (TINY_PARTS.max_parts as u64 + 1) * SMALLEST;

fn content(length: u64) -> Vec<u8> {
    (0..length).flat_map(u64::to_le_bytes).step_by(8).take(usize::try_from(length).unwrap()).collect()
}

fn repository() -> Repository {
    Repository::parse("a").unwrap()
}

/// Sends it all to a registry with parts of this size.
async fn append(part: u64, bytes: &[u8]) -> (Arc<Registry>, SessionId, Result<Progress>) {
    let store = Arc::new(MemoryStore::new(Limits { part, ..TINY_PARTS }));
    let registry = Registry::open(store, Settings::default()).await.unwrap();
    let id = registry.start_upload(&repository(), Algorithm::Sha256);
    let pieces: Vec<_> = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let chunk = Chunk { start: None, declared: None, length: None, body: Box::pin(stream::iter(pieces)) };
    let appended = registry.append(&repository(), id, chunk).await;
    (registry, id, appended)
}

/// Pushes and pulls it.
async fn lives(part: u64, bytes: &[u8]) {
    let (registry, id, appended) = append(part, bytes).await;
    assert_eq!(appended.unwrap().received, bytes.len() as u64);
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let nothing = Chunk { start: None, declared: None, length: Some(0), body: Box::pin(stream::empty()) };
    registry.finish(&repository(), id, &digest, nothing).await.unwrap();
    let blob = registry.find_blob(&repository(), &digest).await.unwrap();
    let mut body = registry.read_blob(&blob, Span::ALL).await.unwrap().into_stream();
    let mut read = Vec::new();
    while let Some(bytes) = body.next().await {
        read.extend_from_slice(&bytes.unwrap());
    }
    assert!(read == bytes);
}

#[tokio::test]
async fn parts_may_be_larger_than_they_must_so_that_their_numbers_suffice() {
    lives(SMALLEST + 1, &content(TOO_MUCH)).await;
}

#[tokio::test]
async fn every_number_is_used_and_the_last_is_for_what_is_left() {
    lives(SMALLEST, &content(u64::from(TINY_PARTS.max_parts) * SMALLEST - 1)).await;
}

#[tokio::test]
async fn a_blob_for_which_they_do_not_suffice_is_refused_and_says_so() {
    let (_, _, appended) = append(SMALLEST, &content(TOO_MUCH)).await;
    let error = appended.unwrap_err();
    assert!(matches!(&error, Error::UploadInvalid(why) if why.contains("larger than the store can take")), "{error:?}");
}
