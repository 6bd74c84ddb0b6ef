//! What the processes do, in the order of the code that they stand for: blobs here, the rest beside.

mod bare;
mod bytes;
mod expiry;
mod holders;
mod manifests;
mod tombstones;
mod undo;

use futures_util::future::join;

use crate::{
    process::{From, Local, Next, Op, Outcome, Steps, Store, Written, Wrong},
    world::{Call, FAILED, Is, Key, List, Value, of_attempt, of_session},
};

pub(crate) async fn run(store: Store, op: Op, local: Local) -> Next {
    let done = match op {
        Op::Upload { repo, blob, from } => upload(&store, local, repo, blob, from).await,
        Op::Mount { from, to, blob } => mount(&store, local, from, to, blob).await,
        Op::DeleteBlob { repo, blob } => delete(&store, local, Key::Holder { repo, blob }).await,
        Op::DeleteTag(tag) => delete(&store, local, Key::Tag(tag)).await,
        Op::Push(job) => manifests::push(&store, local, job).await,
        Op::DeleteManifest(manifest) => manifests::delete(&store, local, manifest).await,
        Op::Expire { process, tries } => expiry::reference(&store, local, process, tries).await,
        Op::ExpireSession { session, blob } => expiry::session(&store, local, session, blob).await,
        Op::RemoveMark(session) => expiry::mark(&store, session).await,
        Op::CollectHolder { repo, blob } => bare::holder(&store, repo, blob).await,
        Op::CollectRecord(blob) => bare::record(&store, blob).await,
        Op::Holders { repo, queue } => holders::batch(&store, repo, queue).await,
        Op::Bytes { blob, queue } => bytes::batch(&store, blob, queue).await,
        Op::Tombstones(key) => tombstones::batch(&store, key).await,
        Op::NoteAndRemove(key) => tombstones::note(&store, key).await,
        Op::AskAndPush(job) => undo::ask_and_push(&store, local, job).await,
        Op::Restore(manifest) => undo::restore(&store, local, manifest).await,
        Op::Time => {
            store.simply(Call::Ripen).await;
            Ok(Next::Done(Outcome::Acknowledged))
        }
        Op::CollectManifest(manifest) => bare::manifest(&store, manifest).await,
    };
    done.unwrap_or_else(Next::Done)
}

async fn upload(store: &Store, mut local: Local, repo: u8, blob: u8, from: From) -> Steps<Next> {
    let mut end = Value::ABSENT;
    if let (From::Session { session, remembered: false, .. } | From::Small { session }, 0) = (from, local.tries) {
        let listed = store.simply(Call::List(List::Session(session))).await;
        if listed & 1 == 1 {
            end = store.read(Key::End(session)).await;
        }
        let mut is_there = listed & 2 == 2;
        if is_there && store.read(Key::Journal(session)).await == Value::ABSENT {
            (is_there, end) = (false, store.read(Key::End(session)).await);
        }
        if end != Value::ABSENT {
            // The reply to an earlier finish may have been lost.
            if store.look(Key::Holder { repo, blob }).await.is_live() {
                return Ok(Next::Done(Outcome::Acknowledged));
            }
            if !is_finished(end) || !is_there {
                return Err(Outcome::Refused);
            }
            if store.simply(Call::Head(of_session(session))).await != 0 {
                local = Local { passed: true, stage: UNREAD, ..local };
            }
        } else if !is_there && matches!(from, From::Session { .. }) {
            return Err(Outcome::Refused);
        }
    }
    publish_blob(store, local, repo, blob, from, end).await
}

/// The bytes were completed by an earlier finisher, and are not known to be what they should be.
const UNREAD: u8 = 1;

fn is_finished(end: Value) -> bool {
    end.is_live() && end.body() == FINISHED
}

/// What the end of a session says.
pub(crate) const FINISHED: u8 = 1;
pub(crate) const EXPIRED: u8 = 2;

async fn publish_blob(store: &Store, local: Local, repo: u8, blob: u8, from: From, mut end: Value) -> Steps<Next> {
    let (holder, record) = (Key::Holder { repo, blob }, Key::Record(blob));
    let (mut held, mut recorded) = (Value::ABSENT, Value::ABSENT);
    if local.tries > 0 || store.is(Wrong::NoTouch) {
        (held, recorded) = join(store.strand(2).read(holder), store.strand(3).read(record)).await;
        may_be_held_again(store, local, held)?;
        if let From::Session { session, .. } = from {
            end = store.read(Key::End(session)).await;
        }
    }
    store.announce().await?;
    let data = match from {
        From::Session { session, .. } => {
            if !store.is(Wrong::NoEnd) {
                own(store, session, end).await?;
            }
            of_session(session)
        }
        From::Attempt | From::Small { .. } => of_attempt(store.me, local.tries),
    };
    if store.is(Wrong::LateRead) {
        recorded = store.read(record).await;
    }
    let mut local = local;
    if let Some(data) = settle_record(store, record, recorded, from, data, &mut local).await? {
        if store.is(Wrong::LateRead) {
            held = store.read(holder).await;
        }
        if held.is_live() && store.is(Wrong::NoTouch) {
            return Ok(Next::Done(Outcome::Acknowledged));
        }
        return Ok(held_or_again(store, local, store.publish(holder, held, data).await?));
    }
    Ok(store.again(local))
}

/// After a write that may have happened. If it did, a client may have deleted the blob since, and that is not undone.
fn may_be_held_again(store: &Store, local: Local, held: Value) -> Steps<()> {
    if local.unclear && !held.is_present() && !store.is(Wrong::Twice) { Err(Outcome::Failed) } else { Ok(()) }
}

fn held_or_again(store: &Store, local: Local, written: Written) -> Next {
    match written {
        Written::Done(_) => Next::Done(Outcome::Acknowledged),
        Written::Lost(_) => store.again(local),
        Written::Unclear(_) => store.again(Local { unclear: true, ..local }),
    }
}

/// Takes the right to publish a session's bytes, also from a finisher that died.
async fn own(store: &Store, session: u8, mut end: Value) -> Steps<()> {
    loop {
        if end != Value::ABSENT && !is_finished(end) {
            return Err(Outcome::Refused);
        }
        match store.publish(Key::End(session), end, FINISHED).await? {
            Written::Done(_) => return Ok(()),
            Written::Lost(now) | Written::Unclear(now) => end = now,
        }
    }
}

/// The data key that the record names in the end; `None`: it went.
async fn settle_record(
    store: &Store,
    record: Key,
    seen: Value,
    from: From,
    data: Key,
    local: &mut Local,
) -> Steps<Option<u8>> {
    let named = |record: Value| record.is_present().then(|| record.body());
    if seen.is_present() {
        let now = store.look(record).await;
        return Ok(named(store.lift(record, now).await?));
    }
    bring(store, from, data, local).await?;
    let Key::Data(id) = data else { return Err(Outcome::Failed) };
    match store.publish(record, seen, id).await? {
        Written::Done(_) => Ok(Some(id)),
        Written::Lost(now) | Written::Unclear(now) => Ok(named(store.lift(record, now).await?)),
    }
}

async fn bring(store: &Store, from: From, data: Key, local: &mut Local) -> Steps<()> {
    match from {
        From::Attempt => store.create(data).await,
        From::Small { session } => {
            let (bytes, end) = (store.strand(0), store.strand(1));
            let (brought, ended) = join(bytes.create(data), own(&end, session, Value::ABSENT)).await;
            ended.and(brought)
        }
        From::Session { session, tail, .. } => {
            if !local.passed {
                complete(store, session, tail).await?;
                local.passed = true;
            }
            if local.stage == UNREAD {
                if store.simply(Call::Open(data)).await == 0 {
                    return Err(Outcome::Refused);
                }
                local.stage = 0;
            }
            Ok(())
        }
    }
}

async fn complete(store: &Store, session: u8, tail: bool) -> Steps<()> {
    let completed = (!tail || store.simply(Call::PutPart(session)).await != FAILED)
        && store.simply(Call::Complete(session)).await != FAILED;
    // Perhaps another finisher has.
    if completed || store.simply(Call::Head(of_session(session))).await != 0 { Ok(()) } else { Err(Outcome::Failed) }
}

async fn mount(store: &Store, local: Local, from: u8, to: u8, blob: u8) -> Steps<Next> {
    let (own, theirs, record) = (Key::Holder { repo: to, blob }, Key::Holder { repo: from, blob }, Key::Record(blob));
    let over = store.read(own).await;
    may_be_held_again(store, local, over)?;
    let pending = store.announce().await?;
    let (held, recorded) = if store.is(Wrong::NoRecord) {
        let held = store.look(theirs).await;
        (held, held)
    } else {
        join(store.strand(0).look(theirs), store.strand(1).look(record)).await
    };
    // What is held already may be mounted from anywhere.
    let held = if held.is_live() { held } else { over };
    let lifted = if held.is_live() { store.lift(record, recorded).await? } else { Value::ABSENT };
    if !lifted.is_present() || lifted.body() != held.body() {
        store.reply(Outcome::Refused);
        store.delete(pending).await?;
        return Err(Outcome::Refused);
    }
    Ok(held_or_again(store, local, store.publish(own, over, lifted.body()).await?))
}

/// Deletes a tag, or a blob from a repository, for a client.
async fn delete(store: &Store, local: Local, key: Key) -> Steps<Next> {
    let seen = store.read(key).await;
    let is_there = if matches!(key, Key::Tag(_)) { seen.is_live() } else { seen.is_present() };
    if !is_there {
        return Err(Outcome::Refused);
    }
    store.create(store.dropped()).await?;
    over_or_again(store, local, store.write(key, seen, Is::Deleted, seen.body()).await?)
}

/// The write that others see a request by. Where it may have been done it is not done twice.
fn over_or_again(store: &Store, local: Local, written: Written) -> Steps<Next> {
    match written {
        Written::Done(_) => Ok(Next::Done(Outcome::Acknowledged)),
        Written::Unclear(_) if !store.is(Wrong::Twice) => Err(Outcome::Failed),
        Written::Lost(_) | Written::Unclear(_) => Ok(store.again(local)),
    }
}
