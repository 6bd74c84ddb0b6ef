//! Real operations, each on a registry of its own over the shared store, and a collector that is only a script yet.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Digest, Reference},
    registry::{Chunk, Clock, Error, Push, Registry, SessionId, Settings, TagCondition},
    store::{Condition, Key, Put, Store},
};

use crate::{
    content::{BLOBS, PARTS, What, blob, repository, tag},
    walk,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Upload {
        repo: usize,
        blob: usize,
    },
    /// Of the session that was prepared.
    Finish,
    Append {
        from: usize,
        to: usize,
    },
    Cancel,
    Mount,
    Push {
        what: What,
        tags: &'static [usize],
        condition: Option<TagCondition>,
    },
    DeleteManifest(What),
    DeleteTag(usize),
    DeleteBlob {
        repo: usize,
        blob: usize,
    },
    Expire,
    CollectHolder {
        repo: usize,
        blob: usize,
    },
    CollectRecord(usize),
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Acknowledged,
    Refused,
    /// It may have happened or not.
    Failed,
    /// The store is called damaged, which it never is here.
    Damaged,
}

#[derive(Debug)]
struct Fixed(SystemTime);

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        self.0
    }
}

/// A registry on a clock that stands still, so many hours after the start.
pub(crate) async fn registry(store: Arc<dyn Store>, hours: u64) -> Arc<Registry> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + Duration::from_hours(hours);
    // Waiting for a turn is not slowness.
    let settings = Settings { publish_deadline: Duration::from_hours(24 * 365), ..Settings::default() };
    Registry::open_with(store, settings, Arc::new(Fixed(now))).await.unwrap()
}

pub(crate) fn chunk(start: Option<usize>, bytes: &'static [u8]) -> Chunk {
    let (start, length) = (start.map(|start| start as u64), Some(bytes.len() as u64));
    Chunk { start, declared: None, length, body: Box::pin(stream::iter([Ok(Bytes::from_static(bytes))])) }
}

pub(crate) async fn run(op: Op, registry: Arc<Registry>, store: Arc<dyn Store>, session: Option<SessionId>) -> Outcome {
    let here = repository(0);
    let done = match op {
        Op::Upload { repo, blob: number } => {
            registry.upload_whole(&repository(repo), &blob(number), chunk(None, BLOBS[number])).await.map(drop)
        }
        Op::Finish => registry.finish(&here, session.unwrap(), &blob(PARTS), chunk(None, b"")).await,
        Op::Append { from, to } => {
            registry.append(&here, session.unwrap(), chunk(Some(from), &BLOBS[PARTS][from..to])).await.map(drop)
        }
        Op::Cancel => registry.cancel_upload(&here, session.unwrap()).await,
        Op::Mount => match registry.mount(&repository(1), &blob(0), Some(&here)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::BlobUnknown(blob(0))),
            Err(error) => Err(error),
        },
        Op::Push { what, tags, condition } => {
            let push = match (tags, condition) {
                ([only], Some(_)) => Push { target: Reference::Tag(tag(*only)), condition, ..push(what, &[]) },
                _ => push(what, tags),
            };
            registry.put_manifest(&here, push).await.map(drop)
        }
        Op::DeleteManifest(what) => registry.delete_manifest(&here, &what.digest()).await,
        Op::DeleteTag(number) => registry.delete_tag(&here, &tag(number)).await,
        Op::DeleteBlob { repo, blob: number } => registry.delete_blob(&repository(repo), &blob(number)).await,
        Op::Expire => registry.expire().await.map(drop),
        Op::CollectHolder { repo, blob: number } => collect_holder(store.as_ref(), repo, &blob(number)).await,
        Op::CollectRecord(number) => collect_record(store.as_ref(), &blob(number)).await,
    };
    let outcome = match done {
        Ok(()) => Outcome::Acknowledged,
        Err(Error::Store(_) | Error::Busy | Error::Full(_)) => Outcome::Failed,
        Err(Error::Corrupt(_)) => Outcome::Damaged,
        Err(_) => Outcome::Refused,
    };
    registry.settle().await;
    outcome
}

pub(crate) fn push(what: What, tags: &[usize]) -> Push {
    Push {
        target: Reference::Digest(what.digest()),
        tags: tags.iter().map(|number| tag(*number)).collect(),
        content_type: Some(what.media_type().to_owned()),
        bytes: what.bytes(),
        condition: None,
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Writes a register anew, in this state and with what it said.
pub(crate) async fn rewrite(store: &dyn Store, at: &str, letter: u8, nonce: &str) -> Result<bool, Error> {
    let Some(found) = store.read(&key(at)).await? else { return Ok(false) };
    rewrite_as(store, at, &found.bytes, letter, nonce, Condition::Replace(found.version)).await
}

async fn rewrite_as(
    store: &dyn Store,
    at: &str,
    was: &Bytes,
    letter: u8,
    nonce: &str,
    over: Condition,
) -> Result<bool, Error> {
    let mut bytes = vec![letter];
    bytes.extend_from_slice(nonce.as_bytes());
    if letter != b'g' {
        bytes.extend_from_slice(&was[23..]);
    }
    Ok(matches!(store.put(&key(at), bytes.into(), over).await?, Put::Stored(_)))
}

const CONDEMNS: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const RETIRES: &str = "BBBBBBBBBBBBBBBBBBBBBA";

/// Condemn; look for what is in flight, then for what it turns into; gone.
async fn collect_holder(store: &dyn Store, repo: usize, digest: &Digest) -> Result<(), Error> {
    let name = repository(repo);
    let holder = walk::holder(&digest.to_string(), name.as_str());
    if !condemn(store, &holder).await? {
        return Ok(());
    }
    let Some(condemned) = store.read(&key(&holder)).await? else { return Ok(()) };
    if condemned.bytes[0] != b'c' || is_in_flight(store, digest, Some(name.as_str())).await? {
        return Ok(());
    }
    for entry in store.list(&format!("repos/{name}/_manifests/"), None, 1000).await? {
        let manifest = store.read(&entry.key).await?;
        if manifest.is_some_and(|manifest| b"lc".contains(&manifest.bytes[0]) && names(&manifest.bytes, digest)) {
            return Ok(());
        }
    }
    let over = Condition::Replace(condemned.version);
    rewrite_as(store, &holder, &condemned.bytes, b'g', RETIRES, over).await.map(drop)
}

async fn collect_record(store: &dyn Store, digest: &Digest) -> Result<(), Error> {
    let holders = walk::holders(&digest.to_string());
    let record = format!("{holders}_");
    if !condemn(store, &record).await? {
        return Ok(());
    }
    let Some(condemned) = store.read(&key(&record)).await? else { return Ok(()) };
    if condemned.bytes[0] != b'c' {
        return Ok(());
    }
    let said: serde_json::Value = serde_json::from_slice(&condemned.bytes[24..]).unwrap();
    let data = said["data"].as_str().unwrap();
    let session = data.rsplit('/').next().unwrap();
    if session.len() == 36 {
        take_end(store, &format!("uploads/{session}/!end")).await?;
    }
    if is_in_flight(store, digest, None).await? {
        return Ok(());
    }
    for entry in store.list(&holders, None, 1000).await? {
        let found = store.read(&entry.key).await?;
        if entry.key.as_str() != record && found.is_some_and(|found| b"lc".contains(&found.bytes[0])) {
            return Ok(());
        }
    }
    let over = Condition::Replace(condemned.version);
    if rewrite_as(store, &record, &condemned.bytes, b'g', RETIRES, over).await? {
        store.delete(&key(data)).await?;
    }
    Ok(())
}

async fn condemn(store: &dyn Store, at: &str) -> Result<bool, Error> {
    match store.read(&key(at)).await? {
        Some(found) if found.bytes[0] == b'c' => Ok(true),
        Some(found) if found.bytes[0] == b'l' => {
            let over = Condition::Replace(found.version);
            rewrite_as(store, at, &found.bytes, b'c', CONDEMNS, over).await
        }
        _ => Ok(false),
    }
}

async fn take_end(store: &dyn Store, at: &str) -> Result<(), Error> {
    const EXPIRED: &str = "lCCCCCCCCCCCCCCCCCCCCCA\n{\"expired\":{\"at\":0,\"digest\":null}}";
    loop {
        let over = match store.read(&key(at)).await? {
            Some(found) if found.bytes.ends_with(&EXPIRED.as_bytes()[23..]) => return Ok(()),
            Some(found) => Condition::Replace(found.version),
            None => Condition::Create,
        };
        if matches!(store.put(&key(at), EXPIRED.into(), over).await?, Put::Stored(_)) {
            return Ok(());
        }
    }
}

/// Whether a reference in flight names the blob: any upload or mount, into this repository if one is given, and any push.
async fn is_in_flight(store: &dyn Store, digest: &Digest, repo: Option<&str>) -> Result<bool, Error> {
    let hex = digest.hex();
    for entry in store.list(&format!("pending/sha256/{}/{hex}.", &hex[..2]), None, 1000).await? {
        let Some(found) = store.read(&entry.key).await? else { continue };
        let said: serde_json::Value = serde_json::from_slice(&found.bytes).unwrap();
        if repo.is_none_or(|repo| said["repository"] == repo) {
            return Ok(true);
        }
    }
    let Some(repo) = repo else { return Ok(false) };
    for entry in store.list(&format!("pending/manifests/{repo}/"), None, 1000).await? {
        if store.read(&entry.key).await?.is_some_and(|found| names(&found.bytes, digest)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn names(text: &[u8], digest: &Digest) -> bool {
    String::from_utf8_lossy(text).contains(&digest.to_string())
}
