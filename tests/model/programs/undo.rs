//! What clients count on: that what they are told is there is there when they push, and that what was deleted can be put
//! back.

use futures_util::future::join_all;

use super::manifests;
use crate::{
    process::{Drops, Job, Local, Next, Outcome, Steps, Store, Wrong},
    world::{Call, Is, Key, List, TRIES, Value, each, names_blob},
};

/// HEAD, and then a push of the manifest without an upload.
pub(super) async fn ask_and_push(store: &Store, local: Local, job: Job) -> Steps<Next> {
    if local.tries == 0 {
        let asking = store.strand(6);
        let counts = if store.is(Wrong::ExistsCondemned) { Is::Condemned } else { Is::Live };
        for blob in (0..2).filter(|blob| names_blob(job.manifest, *blob)) {
            let key = Key::Holder { repo: job.repo, blob };
            if asking.simply(Call::Ask { client: store.me, key, counts }).await == 0 {
                // It would upload it.
                return Ok(Next::Done(Outcome::Acknowledged));
            }
        }
    }
    manifests::push(store, local, job).await
}

/// An ordinary push of what a dropped entry says.
pub(super) async fn restore(store: &Store, local: Local, manifest: u8) -> Steps<Next> {
    let job = Job { repo: 0, manifest, tags: 0, condition: None };
    if local.tries > 0 {
        return manifests::push(store, local, job).await;
    }
    let looking = store.strand(6);
    let listed = looking.simply(Call::List(List::Trash)).await;
    let reads = each(listed).zip(0..).map(|(id, at)| {
        let store = looking.strand(at);
        async move { (id, store.read(Key::Dropped(id)).await) }
    });
    let found = join_all(reads).await;
    looking.skip(1);
    let is_it = |id: u8| store.rules.drops[usize::from(id / TRIES)] == Drops::Manifest(manifest);
    let entry =
        found.into_iter().filter(|(id, found)| *found != Value::ABSENT && is_it(*id)).map(|(id, _)| id).next_back();
    if looking.look(Key::Manifest { repo: 0, manifest }).await.is_present() {
        return Ok(Next::Done(Outcome::Acknowledged));
    }
    let Some(entry) = entry else { return Err(Outcome::Refused) };
    if looking.read(Key::Dropped(entry)).await == Value::ABSENT {
        return Err(Outcome::Refused);
    }
    manifests::push(store, local, job).await
}
