//! Tombstones go when nobody can mean them any more.

use super::holders::named_by_any;
use crate::{
    process::{Next, Outcome, Steps, Store, Wrong},
    world::{Call, Is, Key, LOST, List, Queue, Value, each},
};

/// Notes a tombstone, as any round does that comes by it, and removes it when it is due.
pub(super) async fn note(store: &Store, key: Key) -> Steps<Next> {
    let found = store.strand(1).read(key).await;
    if !matches!(found.is(), Is::Gone | Is::Deleted) {
        return Err(Outcome::Refused);
    }
    store.strand(2).create_as(Key::Tombstones(store.me), Value(found.nonce().into())).await?;
    batch(store, key).await
}

pub(super) async fn batch(store: &Store, key: Key) -> Steps<Next> {
    let queue = Queue::Tombstones;
    let due = store.simply(Call::List(List::Due { queue, hasty: store.is(Wrong::NoRest) })).await;
    if due == 0 {
        return Err(Outcome::Refused);
    }
    let mut still = None;
    for entry in each(due) {
        let noted = store.read(Key::Tombstones(entry)).await;
        let found = if noted == Value::ABSENT { Value::ABSENT } else { store.read(key).await };
        if matches!(found.is(), Is::Gone | Is::Deleted) && u32::from(found.nonce()) == noted.0 {
            still = Some(found);
        }
    }
    if let Some(found) = still {
        let is_meant = match key {
            Key::Holder { repo, blob } if found.is() == Is::Deleted => named_by_any(&store.strand(0), repo, blob).await,
            _ => false,
        };
        if is_meant {
            store.create_as(Key::Tombstones(store.me), Value(found.nonce().into())).await?;
        } else if store.is(Wrong::Unconditional) {
            store.delete(key).await?;
        } else if store.simply(Call::DeleteIf { key, is: found }).await == LOST {
            // Somebody has written over it: it is none any more.
        }
    }
    for entry in each(due) {
        store.delete(Key::Tombstones(entry)).await?;
    }
    Ok(Next::Done(Outcome::Acknowledged))
}
