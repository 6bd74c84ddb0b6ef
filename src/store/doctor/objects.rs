//! Objects, one at a time and listed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt, future::try_join_all};
use tokio::time::Instant;

use super::{Condition, Key, Outcome, Put, Result, bench::Bench};
use crate::store::{Causes, Span};

const ROUNDS: usize = 5;
/// How long a presigned URL is valid that is used at once.
const TTL: Duration = Duration::from_mins(1);

pub(super) async fn read_after_write(bench: &Bench<'_>) -> Result<Outcome> {
    let stale =
        |what: &str| Outcome::bad(format!("{what} is read"), "what was pushed is not found, or what was deleted is");
    for round in 0..ROUNDS {
        let (key, version) = bench.create(&format!("seen-{round}"), "1").await?;
        let read = async || Ok(bench.store.read(&key).await?.map(|there| there.bytes));
        if read().await? != Some("1".into()) {
            return Ok(stale("not what was created"));
        }
        let replaced = bench.store.put(&key, "2".into(), Condition::Replace(version)).await?;
        if replaced == Put::Lost || read().await? != Some("2".into()) {
            return Ok(stale("not what was replaced"));
        }
        bench.store.delete(&key).await?;
        if read().await?.is_some() || bench.store.head(&key).await?.is_some() {
            return Ok(stale("what was deleted"));
        }
    }
    Ok(Outcome::well("each write is seen at once", "replicas see each other's pushes"))
}

pub(super) async fn list_after_write(bench: &Bench<'_>) -> Result<Outcome> {
    let prefix = format!("{}listed/", bench.folder());
    let stale = |what: &str| Outcome::bad(format!("{what} is listed"), "tags and referrers are missing, or come back");
    for round in 0..ROUNDS {
        let (key, _) = bench.create(&format!("listed/{round}"), "1").await?;
        let is_listed = async || {
            let entries = bench.store.list(&prefix, None, 10).await?;
            Ok(entries.iter().any(|entry| entry.key == key && entry.size == 1))
        };
        if !is_listed().await? {
            return Ok(stale("not what was created"));
        }
        bench.store.delete(&key).await?;
        if is_listed().await? {
            return Ok(stale("what was deleted"));
        }
    }
    Ok(Outcome::well("each write is listed at once", "lists of tags and referrers are never behind"))
}

/// As the driver puts it in order, whatever the order of the store.
pub(super) async fn order(bench: &Bench<'_>) -> Result<Outcome> {
    let names = ["order/a!b", "order/a-b", "order/a.b", "order/a/b", "order/a/c", "order/a0"];
    let created = try_join_all(names.iter().map(|name| bench.create(name, "1"))).await?;
    let entries = bench.store.list(&format!("{}order/a", bench.folder()), None, names.len() + 1).await?;
    Ok(if entries.iter().map(|entry| &entry.key).eq(created.iter().map(|(key, _)| key)) {
        Outcome::well("in byte order, and complete", "pages of tags neither repeat nor skip")
    } else {
        Outcome::bad(
            "out of order, or not complete",
            "pages of tags repeat or skip some, and a delete may not find all",
        )
    })
}

pub(super) async fn pages(bench: &Bench<'_>) -> Result<Outcome> {
    let names: Vec<String> = (10..35).map(|number| format!("pages/{number}")).collect();
    let created = try_join_all(names.iter().map(|name| bench.create(name, "1"))).await?;
    let (mut listed, mut after, mut pages): (Vec<Key>, Option<Key>, u32) = (Vec::new(), None, 0);
    let prefix = format!("{}pages/", bench.folder());
    while listed.len() <= names.len() {
        let page = bench.store.list(&prefix, after.as_ref(), 10).await?;
        pages += 1;
        let is_last = page.len() < 10;
        listed.extend(page.into_iter().map(|entry| entry.key));
        after = listed.last().cloned();
        if is_last {
            break;
        }
    }
    Ok(if listed.iter().eq(created.iter().map(|(key, _)| key)) {
        Outcome::well(
            format!("{} keys in {pages} pages", listed.len()),
            "lists cost what they show, however much there is",
        )
    } else {
        Outcome::bad(format!("{} of {} keys", listed.len(), names.len()), "lists of tags repeat or skip some")
    })
}

pub(super) async fn ranges(bench: &Bench<'_>) -> Result<Outcome> {
    let (key, _) = bench.create("ranges", "0123456789").await?;
    let spans = [span(bench, &key, 3, 4).await?, span(bench, &key, 8, 100).await?, span(bench, &key, 20, 5).await?];
    Ok(if spans == [&b"3456"[..], b"89", b""] {
        Outcome::well("as asked for", "broken downloads go on where they broke off")
    } else {
        Outcome::bad("other bytes than asked for", "parts of blobs that clients ask for are wrong")
    })
}

pub(super) async fn empty(bench: &Bench<'_>) -> Result<Outcome> {
    let (key, _) = bench.create("empty", "").await?;
    let read = bench.store.read(&key).await?.map(|there| there.bytes.len());
    Ok(if (bench.store.head(&key).await?, read, span(bench, &key, 0, 1).await?) == (Some(0), Some(0), Vec::new()) {
        Outcome::well("kept", "so is the empty blob")
    } else {
        Outcome::bad("not kept as they are", "the empty blob, which many artifacts name, is damaged")
    })
}

/// Nothing but redirects depends on it.
pub(super) async fn presigned(bench: &Bench<'_>, fetch: &impl AsyncFn(String) -> Result<Bytes>) -> Result<Outcome> {
    let (key, _) = bench.create("presigned", "as a client sees it").await?;
    let Some(url) = bench.store.presign(&key, TTL).await? else {
        return Ok(Outcome::well("none", "the registry sends all bytes itself"));
    };
    Ok(match fetch(url).await {
        Ok(bytes) if bytes == "as a client sees it" => {
            Outcome::well("a client without credentials gets the bytes", "clients may be sent to the store for blobs")
        }
        Ok(_) => Outcome::adapted("a client gets other bytes", "clients must not be sent to the store"),
        Err(error) => Outcome::adapted(
            format!("nothing: {}", Causes(&error)),
            "clients cannot be sent to the store, as seen from here",
        ),
    })
}

/// The median of a few calls of each verb.
pub(super) async fn latency(bench: &Bench<'_>) -> Result<Outcome> {
    let verbs = ["put", "head", "read", "list", "delete"];
    let mut times: [Vec<Duration>; 5] = Default::default();
    for round in 0..ROUNDS {
        let key = bench.key(&format!("timed-{round}"))?;
        let mut since = Instant::now();
        let mut lap = || std::mem::replace(&mut since, Instant::now()).elapsed();
        bench.store.put(&key, Bytes::from_static(&[0; 1024]), Condition::Create).await?;
        let put = lap();
        bench.store.head(&key).await?;
        let head = lap();
        bench.store.read(&key).await?;
        let read = lap();
        bench.store.list(key.as_str(), None, 1).await?;
        let list = lap();
        bench.store.delete(&key).await?;
        times.iter_mut().zip([put, head, read, list, lap()]).for_each(|(times, time)| times.push(time));
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(ROUNDS / 2).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    let told = verbs.iter().zip(&mut times).map(|(verb, times)| format!("{verb} {:.1} ms", median(times)));
    Ok(Outcome::well(
        told.collect::<Vec<_>>().join(", "),
        "a pull waits for one or two in a row, a push for about five",
    ))
}

/// Some bytes of an object.
pub(super) async fn span(bench: &Bench<'_>, key: &Key, start: u64, length: u64) -> Result<Vec<u8>> {
    let Some(object) = bench.store.open(key, Span::new(start, length)).await? else { return Ok(b"absent".to_vec()) };
    let chunks: Vec<Bytes> = object.body.into_stream().try_collect().await?;
    Ok(chunks.concat())
}
