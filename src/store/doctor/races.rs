//! Writers that meet.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{Condition, Key, Outcome, Put, Result, bench::Bench};

const RACERS: u8 = 20;

pub(super) async fn creates(bench: &Bench<'_>) -> Result<Outcome> {
    let key = bench.key("created")?;
    race(bench, &key, &Condition::Create).await
}

pub(super) async fn replaces(bench: &Bench<'_>) -> Result<Outcome> {
    let (key, version) = bench.create("replaced", "before").await?;
    race(bench, &key, &Condition::Replace(version)).await
}

/// All write at the same time, under the same condition: one may win, and then it is that one's bytes that are there.
async fn race(bench: &Bench<'_>, key: &Key, condition: &Condition) -> Result<Outcome> {
    let write = |racer: u8| bench.store.put(key, Bytes::copy_from_slice(&[racer; 64]), condition.clone());
    let ends = try_join_all((0..RACERS).map(write)).await?;
    let winners: HashSet<u8> = (0..).zip(&ends).filter(|(_, end)| **end != Put::Lost).map(|(racer, _)| racer).collect();
    let there = bench.store.read(key).await?;
    let is_of_winner = there.is_some_and(|there| there.bytes.first().is_some_and(|racer| winners.contains(racer)));
    let seen = format!("{} of {RACERS} won", winners.len());
    Ok(match winners.len() {
        1 if is_of_winner => Outcome::well(seen, "any number of replicas may write at the same time"),
        1 => Outcome::bad(
            format!("{seen}, and others' bytes are there"),
            "who is told to have lost overwrites the winner",
        ),
        _ => Outcome::bad(seen, "writes of replicas that meet are lost although they were answered with success"),
    })
}
