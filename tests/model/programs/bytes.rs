//! The second level of the collector: the record of a blob, and its bytes.

use futures_util::future::join_all;

use super::{EXPIRED, FINISHED, expiry::brings};
use crate::{
    process::{Next, Outcome, Steps, Store, Written, Wrong},
    world::{Call, Is, Key, List, Queue, Value, bytes_of, each, session_of},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    None,
    InFlight,
    Held,
}

/// What became of bytes that an entry names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Deleted,
    Recorded,
    Open,
}

#[derive(Default)]
struct Rest {
    is_waiting: bool,
    tombstone: Option<u16>,
}

pub(super) async fn batch(store: &Store, blob: u8, queue: Queue) -> Steps<Next> {
    let due = store.simply(Call::List(List::Due { queue, hasty: false })).await;
    let entries = each(due).filter(|by| queue == Queue::Unheld || store.rules.blobs[usize::from(*by)] == blob);
    let entries = entries.map(|by| if queue == Queue::Unheld { Key::UnheldBlob { by, blob } } else { Key::Bytes(by) });
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() {
        return Err(Outcome::Refused);
    }
    let (reading, taking, settling) = (store.strand(0), store.strand(2), store.strand(3));
    let mut is_candidate = false;
    // Entries to be consumed, and those whose bytes a record still named.
    let (mut spent, mut named) = (Vec::new(), Vec::new());
    for entry in entries {
        let found = reading.read(entry).await;
        match entry {
            _ if found == Value::ABSENT => {}
            Key::UnheldBlob { .. } => {
                is_candidate = true;
                spent.push(entry);
            }
            _ if delete_unless_named(&reading, blob, found.body() - 1).await? == Fate::Deleted => spent.push(entry),
            _ => {
                is_candidate = true;
                named.push((entry, found.body() - 1));
            }
        }
    }
    let mut rest = Rest::default();
    let mut taken = None;
    let doomed = if is_candidate { condemn(&store.strand(1), blob, &mut rest).await? } else { None };
    if let Some(doomed) = doomed {
        let ours = Key::Bytes(store.me);
        if !store.is(Wrong::NoBytesEntry) {
            store.create_as(ours, bytes_of(Key::Data(doomed.body()))).await?;
        }
        if take(&taking, blob, doomed, &mut rest).await? {
            taken = Some(doomed.body());
            spent.push(ours);
        } else if !store.is(Wrong::NoBytesEntry) {
            named.push((ours, doomed.body()));
        }
    }
    for (entry, data) in named {
        let is_settled = taken == Some(data)
            || store.is(Wrong::Unsettled)
            || delete_unless_named(&settling, blob, data).await? != Fate::Open;
        if is_settled {
            spent.push(entry);
        }
    }
    if rest.is_waiting {
        store.create_as(Key::UnheldBlob { by: store.me, blob }, Value::new(Is::Live, 1, 0)).await?;
    }
    if let Some(nonce) = rest.tombstone {
        store.create_as(Key::Tombstones(store.me), Value(nonce.into())).await?;
    }
    let aside = store.strand(5);
    let deletes = spent.into_iter().zip(0..).map(|(entry, at)| (aside.strand(at), entry));
    let deletes = deletes.map(|(store, entry)| async move { store.delete(entry).await });
    join_all(deletes).await.into_iter().collect::<Steps<()>>()?;
    Ok(Next::Done(Outcome::Acknowledged))
}

/// What was condemned and is not needed.
async fn condemn(store: &Store, blob: u8, rest: &mut Rest) -> Steps<Option<Value>> {
    let key = Key::Record(blob);
    let seen = store.read(key).await;
    let need = if seen.is_present() { need_of(store, blob).await } else { Need::None };
    match (seen.is(), need) {
        (Is::Absent, _) | (Is::Live, Need::Held) => Ok(None),
        (Is::Gone | Is::Deleted, _) => {
            rest.tombstone = Some(seen.nonce());
            Ok(None)
        }
        (Is::Condemned, Need::Held) => store.lift(key, seen).await.map(|_| None),
        (Is::Live | Is::Condemned, Need::InFlight) => {
            rest.is_waiting = true;
            Ok(None)
        }
        (Is::Condemned, Need::None) => Ok(Some(seen)),
        (Is::Live, Need::None) => {
            if matches!(store.write(key, seen, Is::Condemned, seen.body()).await?, Written::Done(_)) {
                let now = store.read(key).await;
                if now.is() == Is::Condemned {
                    return Ok(Some(now));
                }
            }
            rest.is_waiting = true;
            Ok(None)
        }
    }
}

/// Whether it was taken with its bytes.
async fn take(store: &Store, blob: u8, doomed: Value, rest: &mut Rest) -> Steps<bool> {
    let key = Key::Record(blob);
    if !store.is(Wrong::NoEnd) {
        end_session_of(store, doomed.body()).await?;
    }
    let need = if store.is(Wrong::NoLook) { Need::None } else { need_of(store, blob).await };
    if need != Need::None {
        store.lift(key, doomed).await?;
        rest.is_waiting = need == Need::InFlight;
        return Ok(false);
    }
    if store.is(Wrong::BytesFirst) {
        store.delete(Key::Data(doomed.body())).await?;
    }
    match store.write(key, doomed, Is::Gone, 0).await? {
        Written::Done(gone) => {
            store.delete(Key::Data(doomed.body())).await?;
            rest.tombstone = Some(gone.nonce());
            Ok(true)
        }
        Written::Lost(_) | Written::Unclear(_) => {
            rest.is_waiting = true;
            Ok(false)
        }
    }
}

async fn need_of(store: &Store, blob: u8) -> Need {
    let held = async || store.simply(Call::List(List::Holders(blob))).await != 0;
    let held_first = store.is(Wrong::PublishedFirst) && held().await;
    let in_flight = store.simply(Call::List(List::PendingBlobs(blob))).await != 0;
    if held_first || !store.is(Wrong::PublishedFirst) && held().await {
        Need::Held
    } else if in_flight {
        Need::InFlight
    } else {
        Need::None
    }
}

/// Deletes bytes, unless their record names them or may come to name them.
async fn delete_unless_named(store: &Store, blob: u8, data: u8) -> Steps<Fate> {
    let named = |record: Value| {
        let fate = if record.is_live() { Fate::Recorded } else { Fate::Open };
        (record.is_present() && record.body() == data).then_some(fate)
    };
    if let Some(fate) = named(store.look(Key::Record(blob)).await) {
        return Ok(fate);
    }
    end_session_of(store, data).await?;
    if brings(store, blob, Key::Data(data)).await {
        return Ok(Fate::Open);
    }
    if let Some(fate) = named(store.look(Key::Record(blob)).await) {
        return Ok(fate);
    }
    store.delete(Key::Data(data)).await?;
    Ok(Fate::Deleted)
}

/// The session that brought the bytes may not bring them again.
async fn end_session_of(store: &Store, data: u8) -> Steps<()> {
    let Some(session) = session_of(data) else { return Ok(()) };
    let mut seen = store.read(Key::End(session)).await;
    while seen.is_live() && seen.body() == FINISHED {
        match store.publish(Key::End(session), seen, EXPIRED | FINISHED).await? {
            Written::Done(_) => break,
            Written::Lost(now) | Written::Unclear(now) => seen = now,
        }
    }
    Ok(())
}
