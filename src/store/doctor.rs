//! What a store can do, found out by trying it, and what that means for a registry on it.
//!
//! [`brief`] takes a few calls and answers what a driver has to know; [`examine`] tries all that the contract of a
//! [`Store`] promises. Both work in a folder of their own, and leave nothing in it.

mod bench;
mod objects;
mod parts;
mod races;
mod report;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use self::bench::Bench;
use super::{Causes, Condition, Deleted, Error, ErrorKind, Key, Put, Result, Store};

pub use report::{Finding, Report, Verdict};

/// What has to be known of a store before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    pub create: Answer,
    pub replace: Answer,
    pub delete: Answer,
    /// Listings are in the byte order of whole keys. Else they are in the order of path components.
    pub in_byte_order: bool,
}

/// How a store answers to a condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Honoured,
    Ignored,
}

/// What one probe has seen, and what that means here.
struct Outcome {
    verdict: Verdict,
    seen: String,
    means: &'static str,
}

/// Tries what differs from store to store and can be found out in ten calls. Keys begin with `folder`, which ends in `/`.
pub async fn brief(store: &dyn Store, folder: &str) -> Result<Brief> {
    let bench = Bench::new(store, folder);
    let found = look(&bench).await;
    let cleared = bench.clear().await;
    let found = found?;
    cleared.map(|()| found)
}

async fn look(bench: &Bench<'_>) -> Result<Brief> {
    let store = bench.store;
    // In byte order; a store that orders by path components puts the second first.
    let (first, second) = (bench.key("a-b")?, bench.key("a/b")?);
    let refused = |what: &str| Error::new(ErrorKind::Corrupt, format!("{first}: {what} was refused"));
    let put = async |bytes: &'static str, condition| store.put(&first, bytes.into(), condition).await;

    let Put::Stored(mut version) = put("1", Condition::Create).await? else {
        return Err(refused("the first create"));
    };
    let create = match put("2", Condition::Create).await? {
        Put::Lost => Answer::Honoured,
        Put::Stored(now) => {
            version = now;
            Answer::Ignored
        }
    };
    let stale = version.clone();
    if put("3", Condition::Replace(version)).await? == Put::Lost {
        return Err(refused("a replace over the version that is there"));
    }
    let replace = match put("4", Condition::Replace(stale.clone())).await? {
        Put::Lost => Answer::Honoured,
        Put::Stored(_) => Answer::Ignored,
    };
    store.put(&second, Bytes::new(), Condition::Create).await?;
    let in_byte_order = match store.list(bench.folder(), None, 3).await {
        Ok(entries) => entries.iter().map(|entry| &entry.key).eq([&first, &second]),
        Err(error) if error.kind == ErrorKind::Corrupt => false,
        Err(error) => return Err(error),
    };
    // Last, since it may be gone after that.
    let delete = match store.delete_if(&first, &stale).await {
        Ok(Deleted::Lost) => Answer::Honoured,
        // An answer that is none is not to be relied on.
        Ok(Deleted::Deleted) | Err(_) => Answer::Ignored,
    };
    Ok(Brief { create, replace, delete, in_byte_order })
}

/// Tries everything. `fetch` gets a presigned URL as a client would.
///
/// An error is one of reaching the store: then nothing is known. Whatever the store does wrong is a finding.
pub async fn examine(
    store: &dyn Store,
    folder: &str,
    fetch: impl AsyncFn(String) -> Result<Bytes>,
) -> Result<Vec<Finding>> {
    let bench = Bench::new(store, folder);
    let findings = examine_on(&bench, &fetch).await;
    let cleared = bench.clear().await;
    let findings = findings?;
    cleared.map(|()| findings)
}

async fn examine_on(bench: &Bench<'_>, fetch: &impl AsyncFn(String) -> Result<Bytes>) -> Result<Vec<Finding>> {
    let probes: [(&'static str, LocalBoxFuture<'_, Result<Outcome>>); 13] = [
        ("racing creates", Box::pin(races::creates(bench))),
        ("racing replaces", Box::pin(races::replaces(bench))),
        ("read after write", Box::pin(objects::read_after_write(bench))),
        ("list after write", Box::pin(objects::list_after_write(bench))),
        ("listing", Box::pin(objects::order(bench))),
        ("pages", Box::pin(objects::pages(bench))),
        ("ranges", Box::pin(objects::ranges(bench))),
        ("empty objects", Box::pin(objects::empty(bench))),
        ("multipart upload", Box::pin(parts::assembled(bench))),
        ("completing twice", Box::pin(parts::completed_twice(bench))),
        ("completing over another", Box::pin(parts::completed_over_another(bench))),
        ("presigned URLs", Box::pin(objects::presigned(bench, fetch))),
        ("latency", Box::pin(objects::latency(bench))),
    ];
    let mut findings = Vec::new();
    for (probe, trying) in probes {
        findings.push(match trying.await {
            Ok(outcome) => outcome.of(probe),
            Err(error) if error.kind.is_transient() => return Err(error),
            Err(error) => {
                Outcome::bad(Causes(&error).to_string(), "stored content could not be told from damage").of(probe)
            }
        });
    }
    Ok(findings)
}

impl Brief {
    /// What would be lost by whom, if the registry relied on this store.
    pub fn danger(&self) -> Option<&'static str> {
        match (self.create, self.replace) {
            (Answer::Honoured, Answer::Honoured) => None,
            (Answer::Ignored, _) | (_, Answer::Ignored) => Some(
                "the store ignores the conditions of conditional writes: of two replicas that push at the same time, one \
                 would overwrite the tags, manifests and blobs of the other after both were told that all is well",
            ),
        }
    }

    pub fn findings(&self) -> [Finding; 4] {
        let create = match self.create {
            Answer::Honoured => Outcome::well("the second of two is refused", "who comes second learns of it"),
            Answer::Ignored => Outcome::bad("the second of two is done", "who comes second overwrites the first"),
        };
        let replace = match self.replace {
            Answer::Honoured => Outcome::well("of an old version: refused", "no write of another is overwritten"),
            Answer::Ignored => Outcome::bad("of an old version: done", "writes of others are overwritten"),
        };
        let delete = match self.delete {
            Answer::Honoured => Outcome::well("of an old version: refused", "tombstones can be removed"),
            Answer::Ignored => Outcome::adapted("of an old version: done", "never used: tombstones, of 23 bytes, stay"),
        };
        let order = if self.in_byte_order {
            Outcome::well("by bytes", "as the registry needs it")
        } else {
            Outcome::adapted("by path components", "the driver asks for, and sorts, what it needs")
        };
        [create.of("create"), replace.of("replace"), delete.of("conditional delete"), order.of("order of keys")]
    }
}

impl Outcome {
    fn well(seen: impl Into<String>, means: &'static str) -> Self {
        Self { verdict: Verdict::Ok, seen: seen.into(), means }
    }

    fn adapted(seen: impl Into<String>, means: &'static str) -> Self {
        Self { verdict: Verdict::Adapted, seen: seen.into(), means }
    }

    fn bad(seen: impl Into<String>, means: &'static str) -> Self {
        Self { verdict: Verdict::Unsafe, seen: seen.into(), means }
    }

    fn of(self, probe: &'static str) -> Finding {
        let Self { verdict, seen, means } = self;
        Finding { probe, verdict, seen, means }
    }
}

#[cfg(test)]
mod tests;
