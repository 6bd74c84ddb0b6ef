//! The first level of the collector: one queue, as far as it is about one repository.

use futures_util::future::join_all;

use crate::{
    process::{Announced, Drops, Next, Outcome, Steps, Store, Written, Wrong},
    world::{AGAIN, Call, Is, Key, List, MANIFESTS, Queue, TRIES, Value, each, names_blob},
};

/// What the entries lead to.
#[derive(Default)]
struct Work {
    /// Blobs, as bits.
    candidates: u8,
    rested: Vec<(u8, u16)>,
    lost_a_manifest: bool,
    tombstone: Option<u16>,
}

/// What is left of it for other entries.
#[derive(Default)]
struct Rest {
    condemned: [u16; 2],
    unheld: u8,
    waiting: u8,
}

/// What is needed, as bits, and which manifests and dropped ones have been read.
#[derive(Default)]
struct Looks {
    read: u32,
    read_of_trash: u32,
}

#[derive(Clone, Copy, Default)]
struct Needed {
    in_flight: u8,
    named: u8,
}

pub(super) async fn batch(store: &Store, repo: u8, queue: Queue) -> Steps<Next> {
    let hasty = store.is(Wrong::NoRest);
    let due = store.simply(Call::List(List::Due { queue, hasty })).await;
    let entries = each(due).flat_map(|number| match queue {
        Queue::Condemned => vec![Key::Condemned(number)],
        _ if number >= AGAIN => vec![Key::Again(number - AGAIN), Key::AgainLine(number - AGAIN)],
        _ => vec![Key::Dropped(number)],
    });
    let entries: Vec<_> = entries.filter(|entry| is_of(store, *entry, repo)).collect();
    if entries.is_empty() {
        return Err(Outcome::Refused);
    }
    let (mut work, mut rest, mut looks) = (Work::default(), Rest::default(), Looks::default());
    let entries = read_entries(&store.strand(0), repo, entries, &mut work).await?;
    if store.is(Wrong::ConsumedFirst) {
        consume(store, &entries).await?;
    }
    take_rested(&store.strand(1), repo, &mut work, &mut rest, &mut looks).await?;
    condemn_unneeded(store, repo, &mut work, &mut rest, &mut looks).await?;
    if work.lost_a_manifest
        && store.rules.sees.catalog
        && collect_catalog(&store.strand(4), repo, &mut work).await?
        && !store.is(Wrong::LineForgotten)
    {
        store.create_as(Key::AgainLine(store.me), Value::new(Is::Live, 1, 0)).await?;
    }
    if rest.condemned != [0; 2] {
        let [one, other] = rest.condemned.map(u32::from);
        store.create_as(Key::Condemned(store.me), Value(one | other << 16)).await?;
    }
    if rest.unheld != 0 {
        store.create_as(Key::Unheld(store.me), Value::new(Is::Live, rest.unheld, 0)).await?;
    }
    if rest.waiting != 0 {
        store.create_as(Key::Again(store.me), Value::new(Is::Live, rest.waiting, 0)).await?;
    }
    if let Some(nonce) = work.tombstone {
        store.create_as(Key::Tombstones(store.me), Value(nonce.into())).await?;
    }
    if !store.is(Wrong::ConsumedFirst) {
        consume(store, &entries).await?;
    }
    Ok(Next::Done(Outcome::Acknowledged))
}

fn is_of(store: &Store, entry: Key, repo: u8) -> bool {
    match entry {
        Key::Dropped(id) => match store.rules.drops[usize::from(id / TRIES)] {
            Drops::Nothing => false,
            Drops::Blob { repo: of, .. } | Drops::Push { repo: of, .. } => of == repo,
            Drops::Manifest(_) => repo == 0,
        },
        Key::Again(of) | Key::AgainLine(of) | Key::Condemned(of) => store.rules.repos[usize::from(of)] == repo,
        _ => false,
    }
}

fn blobs_of(manifest: u8) -> u8 {
    (0..2).filter(|blob| names_blob(manifest, *blob)).fold(0, |blobs, blob| blobs | 1 << blob)
}

fn numbers(blobs: u8) -> Vec<u8> {
    each(blobs.into()).collect()
}

async fn consume(store: &Store, entries: &[Key]) -> Steps<()> {
    let aside = store.strand(5);
    let deletes = entries.iter().zip(0..).map(|(entry, at)| (aside.strand(at), *entry));
    let deletes = deletes.map(|(store, entry)| async move { store.delete(entry).await });
    join_all(deletes).await.into_iter().collect()
}

async fn read_entries(store: &Store, repo: u8, entries: Vec<Key>, work: &mut Work) -> Steps<Vec<Key>> {
    let reads = entries.iter().zip(0..).map(|(entry, at)| (store.strand(at), *entry));
    let found = join_all(reads.map(|(store, entry)| async move { store.read(entry).await })).await;
    store.skip(1);
    let found: Vec<_> = entries.into_iter().zip(found).filter(|(_, found)| *found != Value::ABSENT).collect();
    for (entry, found) in &found {
        match *entry {
            Key::Condemned(_) => {
                let nonces = [found.0 as u16, (found.0 >> 16) as u16];
                work.rested.extend((0..).zip(nonces).filter(|(_, nonce)| *nonce != 0));
            }
            Key::Dropped(id) => match store.rules.drops[usize::from(id / TRIES)] {
                Drops::Nothing => {}
                Drops::Blob { blob, .. } => work.candidates |= 1 << blob,
                Drops::Push { manifest, .. } => {
                    work.candidates |= blobs_of(manifest);
                    work.lost_a_manifest |= !store.is(Wrong::LineForgotten);
                    note(store, Key::Manifest { repo, manifest }, work).await;
                }
                Drops::Manifest(manifest) => {
                    let key = Key::Manifest { repo, manifest };
                    note(store, key, work).await;
                    if is_back(store, key).await? {
                        continue;
                    }
                    work.candidates |= blobs_of(manifest);
                    work.lost_a_manifest = true;
                }
            },
            Key::AgainLine(_) => work.lost_a_manifest = true,
            _ => work.candidates |= found.body(),
        }
    }
    Ok(found.into_iter().map(|(entry, _)| entry).collect())
}

/// Whether it is there although a delete of it was announced: then one that stalled loses, and announces itself again.
async fn is_back(store: &Store, key: Key) -> Steps<bool> {
    loop {
        let seen = store.read(key).await;
        match seen.is() {
            Is::Absent | Is::Gone | Is::Deleted => return Ok(false),
            Is::Condemned => return Ok(store.lift(key, seen).await?.is_present()),
            Is::Live => {
                if matches!(store.publish(key, seen, seen.body()).await?, Written::Done(_)) {
                    return Ok(true);
                }
            }
        }
    }
}

async fn note(store: &Store, key: Key, work: &mut Work) {
    let found = Value(store.simply(Call::Note(key)).await);
    if matches!(found.is(), Is::Gone | Is::Deleted) {
        work.tombstone = Some(found.nonce());
    }
}

async fn read_holders(store: &Store, repo: u8, blobs: &[u8]) -> Vec<Value> {
    let reads = blobs.iter().zip(0..).map(|(blob, at)| (store.strand(at), Key::Holder { repo, blob: *blob }));
    let found = join_all(reads.map(|(store, key)| async move { store.read(key).await })).await;
    store.skip(1);
    found
}

async fn take_rested(store: &Store, repo: u8, work: &mut Work, rest: &mut Rest, looks: &mut Looks) -> Steps<()> {
    let blobs: Vec<_> = work.rested.iter().map(|(blob, _)| *blob).collect();
    let found = read_holders(store, repo, &blobs).await;
    let mut ripe = Vec::new();
    for ((blob, nonce), seen) in work.rested.iter().zip(found) {
        match seen.is() {
            Is::Absent => rest.unheld |= 1 << blob,
            Is::Gone | Is::Deleted => {
                work.tombstone = Some(seen.nonce());
                rest.unheld |= 1 << blob;
            }
            Is::Condemned if seen.nonce() == *nonce || store.is(Wrong::AnyNonce) => ripe.push((*blob, seen)),
            Is::Condemned | Is::Live => work.candidates |= 1 << blob,
        }
    }
    let needed = if store.is(Wrong::NoLook) {
        Needed::default()
    } else {
        needed(store, repo, ripe.iter().fold(0, |blobs, (blob, _)| blobs | 1 << blob), looks).await
    };
    for (blob, seen) in ripe {
        let key = Key::Holder { repo, blob };
        if needed.has(blob) {
            store.lift(key, store.read(key).await).await?;
            rest.waiting |= needed.in_flight & !needed.named & 1 << blob;
            continue;
        }
        match store.write(key, seen, Is::Gone, 0).await? {
            Written::Done(gone) => {
                work.tombstone = Some(gone.nonce());
                rest.unheld |= 1 << blob;
            }
            Written::Lost(_) | Written::Unclear(_) => rest.waiting |= 1 << blob,
        }
    }
    Ok(())
}

async fn condemn_unneeded(store: &Store, repo: u8, work: &mut Work, rest: &mut Rest, looks: &mut Looks) -> Steps<()> {
    let (before, after) = (store.strand(2), store.strand(3));
    let blobs = numbers(work.candidates);
    let found = read_holders(&before, repo, &blobs).await;
    let mut held = Vec::new();
    for (blob, seen) in blobs.into_iter().zip(found) {
        match seen.is() {
            Is::Live | Is::Condemned => held.push((blob, seen)),
            Is::Absent => rest.unheld |= 1 << blob,
            Is::Gone | Is::Deleted => {
                work.tombstone = Some(seen.nonce());
                rest.unheld |= 1 << blob;
            }
        }
    }
    let need = needed(&before, repo, held.iter().fold(0, |blobs, (blob, _)| blobs | 1 << blob), looks).await;
    let mut condemned = Vec::new();
    for (blob, seen) in held {
        let key = Key::Holder { repo, blob };
        if need.named >> blob & 1 == 1 {
            if seen.is() == Is::Condemned {
                before.lift(key, before.read(key).await).await?;
            }
        } else if need.has(blob) {
            rest.waiting |= 1 << blob;
        } else if seen.is() == Is::Condemned {
            condemned.push((blob, seen.nonce()));
        } else {
            match before.write(key, seen, Is::Condemned, seen.body()).await? {
                Written::Done(now) => condemned.push((blob, now.nonce())),
                Written::Lost(_) | Written::Unclear(_) => rest.waiting |= 1 << blob,
            }
        }
    }
    let need = if store.is(Wrong::NoLook) {
        Needed::default()
    } else {
        needed(&after, repo, condemned.iter().fold(0, |blobs, (blob, _)| blobs | 1 << blob), looks).await
    };
    for (blob, nonce) in condemned {
        if need.has(blob) {
            let key = Key::Holder { repo, blob };
            after.lift(key, after.read(key).await).await?;
            rest.waiting |= 1 << blob;
        } else {
            rest.condemned[usize::from(blob)] = nonce;
        }
    }
    Ok(())
}

impl Needed {
    fn has(self, blob: u8) -> bool {
        (self.in_flight | self.named) >> blob & 1 == 1
    }
}

/// References in flight, then manifests, then what can be put back.
async fn needed(store: &Store, repo: u8, blobs: u8, looks: &mut Looks) -> Needed {
    if blobs == 0 {
        return Needed::default();
    }
    if store.is(Wrong::PublishedFirst) {
        let named = named(store, repo, blobs, looks).await;
        return Needed { named, in_flight: in_flight(store, repo, blobs).await };
    }
    let in_flight = in_flight(store, repo, blobs).await;
    Needed { in_flight, named: named(store, repo, blobs, looks).await }
}

async fn in_flight(store: &Store, repo: u8, blobs: u8) -> u8 {
    let looks = numbers(blobs).into_iter().zip(0..).map(|(blob, at)| {
        let store = store.strand(at);
        async move { if blob_in_flight(&store, repo, blob).await { 1 << blob } else { 0 } }
    });
    let mut found = join_all(looks).await.into_iter().fold(0, |all, one| all | one);
    store.skip(6);
    let listed = store.simply(Call::List(List::PendingManifests(repo))).await;
    let reads = each(listed).zip(0..).map(|(id, at)| {
        let store = store.strand(at);
        async move { (id, store.read(Key::Pending(id)).await) }
    });
    for (id, _) in join_all(reads).await.into_iter().filter(|(_, found)| *found != Value::ABSENT) {
        if let Announced::Manifest { manifest, .. } = store.rules.announced[usize::from(id / TRIES)] {
            found |= blobs_of(manifest) & blobs;
        }
    }
    store.skip(1);
    found
}

async fn blob_in_flight(store: &Store, repo: u8, blob: u8) -> bool {
    for id in each(store.simply(Call::List(List::PendingBlobs(blob))).await) {
        let is_there = store.read(Key::Pending(id)).await != Value::ABSENT;
        let announced = store.rules.announced[usize::from(id / TRIES)];
        if is_there && matches!(announced, Announced::Blob { repo: of, .. } if of == repo) {
            return true;
        }
    }
    false
}

pub(super) async fn named_by_any(store: &Store, repo: u8, blob: u8) -> bool {
    named(store, repo, 1 << blob, &mut Looks::default()).await != 0
}

async fn named(store: &Store, repo: u8, blobs: u8, looks: &mut Looks) -> u8 {
    let mut found = 0;
    let listed = store.simply(Call::List(List::Manifests(repo))).await;
    let reads = each(listed & !looks.read).zip(0..).map(|(manifest, at)| {
        let store = store.strand(at);
        async move { (manifest, store.look(Key::Manifest { repo, manifest }).await) }
    });
    let read = join_all(reads).await;
    looks.read |= read.iter().filter(|(_, found)| found.is_present()).fold(0, |all, (manifest, _)| all | 1 << manifest);
    for manifest in each(listed & looks.read).filter(|manifest| *manifest < MANIFESTS) {
        found |= blobs_of(manifest) & blobs;
    }
    store.skip(1);
    if found == blobs || store.is(Wrong::NoTrash) {
        return found;
    }
    let of_repo = |id: &u8| is_of(store, Key::Dropped(*id), repo);
    let listed = each(store.simply(Call::List(List::Trash)).await).filter(of_repo).fold(0_u32, |all, id| all | 1 << id);
    let reads = each(listed & !looks.read_of_trash).zip(0..).map(|(id, at)| {
        let store = store.strand(at);
        async move { (id, store.read(Key::Dropped(id)).await) }
    });
    let read = join_all(reads).await;
    looks.read_of_trash |=
        read.iter().filter(|(_, found)| *found != Value::ABSENT).fold(0, |all, (id, _)| all | 1 << id);
    for id in each(listed & looks.read_of_trash) {
        if let Drops::Manifest(manifest) = store.rules.drops[usize::from(id / TRIES)] {
            found |= blobs_of(manifest) & blobs;
        }
    }
    store.skip(1);
    found
}

/// Takes the line of the repository if no manifest is left. `true`: to be looked at again.
async fn collect_catalog(store: &Store, repo: u8, work: &mut Work) -> Steps<bool> {
    let key = Key::Catalog(repo);
    let mut seen = store.read(key).await;
    match seen.is() {
        Is::Absent => return Ok(false),
        Is::Gone | Is::Deleted => {
            work.tombstone = Some(seen.nonce());
            return Ok(false);
        }
        Is::Live => {
            match use_of(store, repo).await {
                Use::Manifests => return Ok(false),
                Use::InFlight => return Ok(true),
                Use::None => {}
            }
            if !matches!(store.write(key, seen, Is::Condemned, 0).await?, Written::Done(_)) {
                return Ok(true);
            }
            seen = store.read(key).await;
        }
        Is::Condemned => {}
    }
    if seen.is() != Is::Condemned {
        return Ok(true);
    }
    let used = use_of(store, repo).await;
    if used != Use::None {
        store.lift(key, seen).await?;
        return Ok(used == Use::InFlight);
    }
    match store.write(key, seen, Is::Gone, 0).await? {
        Written::Done(gone) => {
            work.tombstone = Some(gone.nonce());
            Ok(false)
        }
        Written::Lost(_) | Written::Unclear(_) => Ok(true),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    None,
    InFlight,
    Manifests,
}

async fn use_of(store: &Store, repo: u8) -> Use {
    let manifests = async || store.simply(Call::List(List::Manifests(repo))).await != 0;
    let published_first = store.is(Wrong::PublishedFirst) && manifests().await;
    let in_flight = store.simply(Call::List(List::PendingManifests(repo))).await != 0;
    if published_first || !store.is(Wrong::PublishedFirst) && manifests().await {
        Use::Manifests
    } else if in_flight {
        Use::InFlight
    } else {
        Use::None
    }
}
