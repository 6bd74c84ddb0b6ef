//! Expiring what nobody ended. At any moment: no process here asks how old anything is.

use futures_util::future::join;

use super::{EXPIRED, FINISHED, manifests};
use crate::{
    process::{Announced, Brings, Job, Local, Next, Outcome, Steps, Store, Written, Wrong},
    world::{Call, D, Is, Key, List, TRIES, Value, bytes_of, of_attempt, of_session, pending},
};

/// How far the expiry of a push has come.
const START: u8 = 0;
const COMPLETING: u8 = 1;

pub(super) async fn reference(store: &Store, local: Local, process: u8, tries: u8) -> Steps<Next> {
    let key = pending(process, tries);
    match store.rules.announced[usize::from(process)] {
        Announced::Nothing => return Err(Outcome::Refused),
        Announced::Blob { repo, blob, brings } => {
            if store.read(key).await == Value::ABSENT {
                return Err(Outcome::Refused);
            }
            let record = fence(store, Key::Record(blob)).await?;
            fence(store, Key::Holder { repo, blob }).await?;
            let data = of_attempt(process, tries);
            if brings == Brings::Attempt && !names(record, data) {
                store.delete(data).await?;
                // Looked at once more, much later: its owner may put it just after this.
                store.create_as(Key::Bytes(store.me), bytes_of(data)).await?;
            }
        }
        Announced::Manifest { repo, manifest } => {
            if local.stage == START {
                if store.read(key).await == Value::ABSENT {
                    return Err(Outcome::Refused);
                }
                let found = fence(store, Key::Manifest { repo, manifest }).await?;
                if found.is_present() {
                    manifests::list_repository(store, repo).await?;
                    let listed = store.rules.subject && manifest == D;
                    if listed && !store.read(Key::Entry).await.is_live() {
                        return Ok(Next::Again(Local { stage: COMPLETING, ..local }));
                    }
                } else {
                    fence(store, Key::Catalog(repo)).await?;
                }
            } else {
                let job = Job { repo, manifest, tags: 0, condition: None };
                match manifests::push_once(store, local, job, true).await? {
                    manifests::Pushed::Whole(ours) => {
                        // Nobody waits for that one to go.
                        let (aside, store) = (store.strand(6), store.strand(5));
                        return join(aside.delete(ours), consume(&store, key)).await.1;
                    }
                    manifests::Pushed::Gone => {}
                    manifests::Pushed::Again(local) => return Ok(store.again(local)),
                }
            }
        }
    }
    consume(store, key).await
}

async fn consume(store: &Store, pending: Key) -> Steps<Next> {
    store.create(store.dropped()).await?;
    store.delete(pending).await?;
    Ok(Next::Done(Outcome::Acknowledged))
}

fn names(record: Value, data: Key) -> bool {
    record.is_present() && Key::Data(record.body()) == data
}

/// Leaves a fresh tombstone where nothing is, so that whoever read "nothing" before loses.
async fn fence(store: &Store, key: Key) -> Steps<Value> {
    let mut seen = store.read(key).await;
    while !seen.is_present() && !store.is(Wrong::NoFence) {
        let is = if seen.is() == Is::Deleted { Is::Deleted } else { Is::Gone };
        match store.write(key, seen, is, 0).await? {
            Written::Done(_) => break,
            Written::Lost(now) | Written::Unclear(now) => seen = now,
        }
    }
    Ok(seen)
}

pub(super) async fn session(store: &Store, local: Local, session: u8, blob: u8) -> Steps<Next> {
    let key = Key::End(session);
    let listed = store.simply(Call::List(List::Session(session))).await;
    let end = if listed & 1 == 1 { store.read(key).await } else { Value::ABSENT };
    // Without a journal it had no parts, and what there is of it is a mark.
    if listed & 2 == 0 {
        return Err(Outcome::Refused);
    }
    store.read(Key::Journal(session)).await;
    let finished = if end.is_live() && end.body() & EXPIRED != 0 {
        end.body() & FINISHED != 0
    } else {
        let finished = end.is_live() && end.body() == FINISHED;
        let ours = if finished { EXPIRED | FINISHED } else { EXPIRED };
        if !matches!(store.publish(key, end, ours).await?, Written::Done(_)) {
            return Ok(store.again(local));
        }
        finished
    };
    if finished && !store.is(Wrong::NoWait) && brings(store, blob, of_session(session)).await {
        return Ok(store.again(local));
    }
    store.simply(Call::Abort(session)).await;
    if !finished || !names(store.look(Key::Record(blob)).await, of_session(session)) {
        store.delete(of_session(session)).await?;
    }
    store.simply(Call::List(List::Session(session))).await;
    store.delete(Key::Journal(session)).await?;
    Ok(Next::Done(Outcome::Acknowledged))
}

/// Removes the mark that is left of a session. The one step that is safe only because it comes so late: whoever still
/// takes the session for open would find nothing that says no.
pub(super) async fn mark(store: &Store, session: u8) -> Steps<Next> {
    let key = Key::End(session);
    let listed = store.simply(Call::List(List::Session(session))).await;
    if listed != 1 {
        return Err(Outcome::Refused);
    }
    store.read(key).await;
    store.simply(Call::List(List::Session(session))).await;
    store.delete(key).await?;
    Ok(Next::Done(Outcome::Acknowledged))
}

/// Whether a reference in flight says that these bytes may be published as that blob.
pub(super) async fn brings(store: &Store, blob: u8, data: Key) -> bool {
    let flying = store.simply(Call::List(List::PendingBlobs(blob))).await;
    for id in (0..32).filter(|id| flying >> id & 1 == 1) {
        if store.read(Key::Pending(id)).await != Value::ABSENT && brought_by(store, id) == Some(data) {
            return true;
        }
    }
    false
}

fn brought_by(store: &Store, pending: u8) -> Option<Key> {
    match store.rules.announced[usize::from(pending / TRIES)] {
        Announced::Blob { brings: Brings::Session(session), .. } => Some(of_session(session)),
        Announced::Blob { brings: Brings::Attempt, .. } => Some(of_attempt(pending / TRIES, pending % TRIES)),
        _ => None,
    }
}
