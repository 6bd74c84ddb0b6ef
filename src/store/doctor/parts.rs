//! Objects made of parts.

use bytes::Bytes;

use super::{Condition, ErrorKind, Outcome, Result, bench::Bench, objects::span};
use crate::store::{Multipart, Part, Placed};

/// Parts of the smallest size, numbers with gaps, and a last part that is smaller.
pub(super) async fn assembled(bench: &Bench<'_>) -> Result<Outcome> {
    let upload = bench.begin("parts").await?;
    let size = bench.store.limits().min_part;
    let mut parts = Vec::new();
    for (number, size) in [(1, size), (3, size), (7, 1)] {
        parts.push(part(bench, &upload, number, size).await?);
    }
    bench.store.complete(&upload, &parts).await?;
    let seen = [span(bench, &upload.key, size - 1, 2).await?, span(bench, &upload.key, 2 * size - 1, 9).await?];
    let is_whole = bench.store.head(&upload.key).await? == Some(2 * size + 1) && seen == [[1, 3], [3, 7]];
    Ok(if is_whole {
        Outcome::well(
            format!("parts of {size} bytes, with gaps in their numbers, are joined"),
            "uploads are never copied",
        )
    } else {
        Outcome::bad("parts are not joined in the order of their numbers", "blobs that are pushed in parts are damaged")
    })
}

/// A lost answer makes us ask again, and each store answers in its own way.
pub(super) async fn completed_twice(bench: &Bench<'_>) -> Result<Outcome> {
    let upload = bench.begin("twice").await?;
    let parts = [part(bench, &upload, 1, 5).await?];
    bench.store.complete(&upload, &parts).await?;
    let again = match bench.store.complete(&upload, &parts).await {
        Ok(()) => "answered as done".to_owned(),
        Err(error) if error.kind == ErrorKind::NotFound => "answered as unknown".to_owned(),
        Err(error) => format!("answered as an error: {}", error.kind),
    };
    Ok(match bench.store.head(&upload.key).await? {
        Some(5) => Outcome::well(again, "it is read back, so that a lost answer costs nothing"),
        there => Outcome::bad(format!("{again}; then the object has {there:?} bytes"), "a lost answer damages a blob"),
    })
}

pub(super) async fn completed_over_another(bench: &Bench<'_>) -> Result<Outcome> {
    let upload = bench.begin("taken").await?;
    let parts = [part(bench, &upload, 1, 5).await?];
    bench.store.put(&upload.key, Bytes::from_static(b"of another"), Condition::Create).await?;
    let completed = bench.store.complete(&upload, &parts).await;
    let is_kept = bench.store.head(&upload.key).await? == Some(10);
    Ok(match (completed, is_kept) {
        (Err(_), true) => Outcome::well("refused", "a second line of defence"),
        (Ok(()), true) => Outcome::bad("answered as done, and not done", "a blob is not what was pushed"),
        (_, false) => Outcome::adapted("done", "no key of bytes is used twice, so nothing depends on it"),
    })
}

/// A part of bytes that say its number.
async fn part(bench: &Bench<'_>, upload: &Multipart, number: u8, size: u64) -> Result<Part> {
    let bytes = vec![number; usize::try_from(size).unwrap_or_default()];
    let (Placed::New(part) | Placed::Grown(part)) =
        bench.store.put_part(upload, number.into(), bytes.into(), None).await?;
    Ok(part)
}
