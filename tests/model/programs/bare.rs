//! The collector stripped to the steps that decide: condemn, look, gone, at any moment and with no look before.
//!
//! Whatever the whole one does (beside) is among what this one does, so what holds with this one holds with that, in far
//! fewer states. Manifests are condemned by retention alone.

use super::{
    EXPIRED,
    manifests::{Tags, delete_as_seen},
};
use crate::{
    process::{Announced, Next, Outcome, Steps, Store, Written, Wrong},
    world::{Call, Is, Key, List, MANIFESTS, Value, names_blob, names_manifest, owners, session_of},
};

/// Condemns what is live; what is condemned already is taken over as it is.
async fn condemn(store: &Store, key: Key) -> Steps<Value> {
    let seen = store.read(key).await;
    match seen.is() {
        Is::Condemned => Ok(seen),
        Is::Live => match store.write(key, seen, Is::Condemned, seen.body()).await? {
            Written::Done(now) => Ok(now),
            Written::Lost(_) | Written::Unclear(_) => Err(Outcome::Refused),
        },
        Is::Absent | Is::Gone | Is::Deleted => Err(Outcome::Refused),
    }
}

/// The last look: references in flight, and only then what they turn into.
async fn is_needed(store: &Store, flying: impl AsyncFn() -> bool, settled: impl AsyncFn() -> bool) -> bool {
    if store.is(Wrong::NoLook) {
        return false;
    }
    let published_first = store.is(Wrong::PublishedFirst) && settled().await;
    published_first || flying().await || !store.is(Wrong::PublishedFirst) && settled().await
}

async fn retire(store: &Store, key: Key, condemned: Value, needed: bool) -> Steps<Next> {
    if needed {
        store.publish(key, condemned, condemned.body()).await?;
        return Err(Outcome::Refused);
    }
    match store.write(key, condemned, Is::Gone, 0).await? {
        Written::Done(_) => Ok(Next::Done(Outcome::Acknowledged)),
        Written::Lost(_) | Written::Unclear(_) => Err(Outcome::Refused),
    }
}

pub(super) async fn holder(store: &Store, repo: u8, blob: u8) -> Steps<Next> {
    let key = Key::Holder { repo, blob };
    let condemned = condemn(store, key).await?;
    let flying = async || {
        let blobs = store.simply(Call::List(List::PendingBlobs(blob))).await;
        let here = |what| matches!(what, Announced::Blob { repo: of, .. } if of == repo);
        owners(blobs).any(|owner| here(store.rules.announced[owner])) || {
            let manifests = store.simply(Call::List(List::PendingManifests(repo))).await;
            let names = |what| matches!(what, Announced::Manifest { manifest, .. } if names_blob(manifest, blob));
            owners(manifests).any(|owner| names(store.rules.announced[owner]))
        }
    };
    let settled = async || {
        let there = store.simply(Call::List(List::Manifests(repo))).await;
        (0..MANIFESTS).any(|manifest| there >> manifest & 1 == 1 && names_blob(manifest, blob))
    };
    let needed = is_needed(store, flying, settled).await;
    retire(store, key, condemned, needed).await
}

pub(super) async fn record(store: &Store, blob: u8) -> Steps<Next> {
    let key = Key::Record(blob);
    let condemned = condemn(store, key).await?;
    if let Some(session) = session_of(condemned.body())
        && !store.is(Wrong::NoEnd)
    {
        take_end(store, session).await?;
    }
    let flying = async || store.simply(Call::List(List::PendingBlobs(blob))).await != 0;
    let settled = async || store.simply(Call::List(List::Holders(blob))).await != 0;
    let needed = is_needed(store, flying, settled).await;
    let done = retire(store, key, condemned, needed).await?;
    store.delete(Key::Data(condemned.body())).await?;
    Ok(done)
}

/// The session that brought the bytes may not bring them again.
async fn take_end(store: &Store, session: u8) -> Steps<()> {
    let mut seen = store.read(Key::End(session)).await;
    while seen.is_live() && seen.body() & EXPIRED == 0 {
        match store.publish(Key::End(session), seen, EXPIRED | seen.body()).await? {
            Written::Done(_) => break,
            Written::Lost(now) | Written::Unclear(now) => seen = now,
        }
    }
    Ok(())
}

/// By retention: what no index names and no tag points to.
pub(super) async fn manifest(store: &Store, manifest: u8) -> Steps<Next> {
    let key = Key::Manifest { repo: 0, manifest };
    let condemned = condemn(store, key).await?;
    let flying = async || {
        let flying = store.simply(Call::List(List::PendingManifests(0))).await;
        let names = |what| matches!(what, Announced::Manifest { manifest: of, .. } if names_manifest(of, manifest));
        owners(flying).any(|owner| names(store.rules.announced[owner]))
    };
    let settled = async || {
        let there = store.simply(Call::List(List::Manifests(0))).await;
        (0..MANIFESTS).any(|index| there >> index & 1 == 1 && names_manifest(index, manifest))
    };
    if !is_needed(store, flying, settled).await {
        let seen = store.read(key).await;
        let is_ours = seen == condemned || store.is(Wrong::NoNonce) && seen.is() == Is::Condemned;
        let spare = if store.is(Wrong::TakesTags) { Tags::TakeAlong } else { Tags::Spare };
        if is_ours && delete_as_seen(store, manifest, seen, spare).await? {
            return Ok(Next::Done(Outcome::Acknowledged));
        }
    }
    store.lift(key, store.read(key).await).await?;
    Err(Outcome::Refused)
}
