//! Pushing a manifest and deleting it.

use futures_util::future::{join, join_all};

use crate::{
    process::{Job, Local, Next, Outcome, Steps, Store, Written, Wrong},
    world::{D, Is, Key, MANIFESTS, ON_CONDITION, Value, names_blob, names_manifest, target},
};

/// What a manifest's register says beside its bytes: the tags of its header, and which life of it this is.
fn header(value: Value) -> u8 {
    value.body() & 3
}

fn life(value: Value) -> Option<u8> {
    value.is_present().then(|| value.body() >> 2)
}

/// The tags of a set.
fn each(tags: u8) -> impl Iterator<Item = u8> {
    (0..2).filter(move |tag| tags >> tag & 1 == 1)
}

pub(super) async fn push(store: &Store, local: Local, job: Job) -> Steps<Next> {
    let local = if local.tries == 0 { Local { tags: job.tags, ..local } } else { local };
    match push_once(store, local, job, false).await? {
        Pushed::Whole(pending) => {
            // The client has its answer; that the reference in flight goes, nobody waits for.
            store.reply(Outcome::Acknowledged);
            store.delete(pending).await?;
            Ok(Next::Done(Outcome::Acknowledged))
        }
        Pushed::Gone => Ok(Next::Done(Outcome::Acknowledged)),
        Pushed::Again(local) => Ok(store.again(local)),
    }
}

pub(super) enum Pushed {
    Whole(Key),
    /// Deleted since this push wrote it, or before it was completed.
    Gone,
    Again(Local),
}

/// `completes`: it is there, and what belongs to it may not be.
pub(super) async fn push_once(store: &Store, mut local: Local, job: Job, completes: bool) -> Steps<Pushed> {
    let manifest = Key::Manifest { repo: job.repo, manifest: job.manifest };
    let entry = (store.rules.subject && job.manifest == D).then_some(Key::Entry);
    let read = |at: u8, key: Key| {
        let store = store.strand(at);
        async move { store.read(key).await }
    };
    let tags = each(local.tags).map(|tag| async move { (tag, read(2 + tag, Key::Tag(tag)).await) });
    let listed = async {
        match entry {
            Some(entry) => read(1, entry).await,
            None => Value::ABSENT,
        }
    };
    let (mut before, (listed, tags)) = join(read(0, manifest), join(listed, join_all(tags))).await;
    if completes && !before.is_present() {
        return Ok(Pushed::Gone);
    }
    if local.passed && life(before) != life(local.seen) && !store.is(Wrong::OneLife) {
        return Ok(Pushed::Again(Local { passed: false, tags: job.tags, ..local }));
    }
    if let Some(condition) = job.condition {
        let is = |tag: Value| if tag.is_live() { target(tag) } else { u8::MAX };
        if tags.iter().any(|(_, tag)| is(*tag) != condition) {
            return Err(Outcome::Refused);
        }
    }
    let pending = store.announce().await?;
    if !look(&store.strand(4), job).await? && !completes {
        store.reply(Outcome::Refused);
        store.delete(pending).await?;
        return Err(Outcome::Refused);
    }
    if store.is(Wrong::LateRead) {
        before = store.read(manifest).await;
    }
    let body = if before.is_present() { before.body() | job.tags } else { store.life() << 2 | job.tags };
    let mut is_listed = true;
    if !(before.is_live() && store.is(Wrong::NoTouch)) {
        let publish = async {
            let store = store.strand(0);
            store.publish(manifest, before, body).await
        };
        let (published, line) = join(publish, list_over(&store.strand(1), job.repo, local.line)).await;
        let line = line?;
        is_listed = line.is_live();
        local.line = if is_listed { Value::ABSENT } else { line };
        if !matches!(published?, Written::Done(_)) {
            return Ok(Pushed::Again(local));
        }
    }
    let written = Value::new(Is::Live, body & !3, 0);
    let again = Local { passed: true, seen: written, ..local };
    if !is_listed {
        return Ok(Pushed::Again(again));
    }
    if let Some(entry) = entry
        && !matches!(store.publish(entry, listed, 0).await?, Written::Done(_))
    {
        return Ok(Pushed::Again(again));
    }
    let point = tags.into_iter().map(|(tag, seen)| {
        let store = store.strand(2 + tag);
        async move { set_tag(&store, job, tag, seen).await }
    });
    let mut left = 0;
    for set in join_all(point).await {
        left |= set?;
    }
    if left == 0 { Ok(Pushed::Whole(pending)) } else { Ok(Pushed::Again(Local { tags: left, ..again })) }
}

/// The line of the repository in the catalog, after it was written over what was seen of it.
async fn list_over(store: &Store, repo: u8, mut over: Value) -> Steps<Value> {
    loop {
        match store.publish(Key::Catalog(repo), over, 0).await? {
            Written::Done(_) => return Ok(Value::new(Is::Live, 0, 0)),
            Written::Lost(now) | Written::Unclear(now) if now.is_live() || !store.is(Wrong::NoLineFence) => {
                return Ok(now);
            }
            Written::Lost(now) | Written::Unclear(now) => over = now,
        }
    }
}

/// Has a repository in the catalog that has a manifest.
pub(super) async fn list_repository(store: &Store, repo: u8) -> Steps<()> {
    let mut over = Value::ABSENT;
    loop {
        over = list_over(store, repo, over).await?;
        if over.is_live() {
            return Ok(());
        }
    }
}

/// Looks at what a manifest names and lifts what is condemned. Whether all of it is there.
async fn look(store: &Store, job: Job) -> Steps<bool> {
    let blobs = (0..2).filter(|blob| names_blob(job.manifest, *blob)).map(|blob| Key::Holder { repo: job.repo, blob });
    let children = (0..MANIFESTS).filter(|child| names_manifest(job.manifest, *child));
    let children = children.map(|manifest| Key::Manifest { repo: job.repo, manifest });
    let looks = blobs.chain(children).zip(0..).map(|(key, at)| {
        let store = store.strand(at);
        async move { store.lift(key, store.look(key).await).await }
    });
    let mut all = true;
    for found in join_all(looks).await {
        all &= found?.is_present();
    }
    Ok(all)
}

/// The tag, as a bit, if it has to be tried again.
async fn set_tag(store: &Store, job: Job, tag: u8, seen: Value) -> Steps<u8> {
    let ours = if job.condition.is_some() { job.manifest | ON_CONDITION } else { job.manifest };
    // Another put came, and this one took effect just before it.
    let overtakes = |now: Value| {
        let holds_after_ours = now.body() & ON_CONDITION == 0 || store.is(Wrong::AnyOvertakes);
        let is_new = target(now) != job.manifest && !(seen.is_live() && seen.body() == now.body());
        now.is_live() && job.condition.is_none() && holds_after_ours && is_new
    };
    match store.publish(Key::Tag(tag), seen, ours).await? {
        Written::Done(_) => Ok(0),
        Written::Lost(now) | Written::Unclear(now) if overtakes(now) => Ok(0),
        Written::Unclear(_) if !store.is(Wrong::Twice) => Err(Outcome::Failed),
        Written::Lost(_) | Written::Unclear(_) => Ok(1 << tag),
    }
}

pub(super) async fn delete(store: &Store, local: Local, manifest: u8) -> Steps<Next> {
    let key = Key::Manifest { repo: 0, manifest };
    let seen = store.read(key).await;
    if !seen.is_present() {
        return if local.passed { Ok(Next::Done(Outcome::Acknowledged)) } else { Err(Outcome::Refused) };
    }
    let gives_way = store.is(Wrong::NoRecheck) || store.is(Wrong::GivesWay);
    if delete_as_seen(store, manifest, seen, Tags::TakeAlong).await? || gives_way {
        return Ok(Next::Done(Outcome::Acknowledged));
    }
    Ok(store.again(Local { passed: true, ..local }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tags {
    TakeAlong,
    Spare,
}

/// Whether it was; if not, it or what hangs on it has changed, or is spared.
pub(super) async fn delete_as_seen(store: &Store, manifest: u8, seen: Value, spare: Tags) -> Steps<bool> {
    let key = Key::Manifest { repo: 0, manifest };
    let entry = (store.rules.subject && manifest == D).then_some(Key::Entry);
    if !store.is(Wrong::AnnouncedLast) {
        announce(store).await?;
    }
    let read = |at: u8, key: Key| {
        let store = store.strand(at);
        async move { store.read(key).await }
    };
    let tags = each(header(seen)).map(|tag| async move { (tag, read(1 + tag, Key::Tag(tag)).await) });
    let listed = async {
        match entry {
            Some(entry) => Some((entry, read(0, entry).await)),
            None => None,
        }
    };
    let (tags, listed) = join(join_all(tags), listed).await;
    let points = |found: &Value| found.is_live() && target(*found) == manifest;
    if spare == Tags::Spare && tags.iter().any(|(_, found)| points(found)) {
        return Ok(false);
    }
    if !store.is(Wrong::NoRecheck) && store.read(key).await != seen {
        return Ok(false);
    }
    let take = tags.into_iter().map(|(tag, found)| {
        let store = store.strand(3 + tag);
        async move { take_tag(&store, manifest, tag, found).await }
    });
    let unlist = async {
        match listed {
            Some((_, found)) if store.is(Wrong::NoEntryFence) && !found.is_live() => Ok(true),
            Some((entry, found)) => {
                Ok(matches!(store.strand(5).write(entry, found, Is::Deleted, 0).await?, Written::Done(_)))
            }
            None => Ok(true),
        }
    };
    let (taken, unlisted) = join(join_all(take), unlist).await;
    let mut all = unlisted?;
    for taken in taken {
        all &= taken?;
    }
    // Only a client may leave an index without a child.
    let gone = if spare == Tags::Spare { Is::Gone } else { Is::Deleted };
    let done = all && matches!(store.write(key, seen, gone, 0).await?, Written::Done(_));
    if done && store.is(Wrong::AnnouncedLast) {
        announce(store).await?;
    }
    Ok(done)
}

/// Until the entry is due the manifest can be put back.
async fn announce(store: &Store) -> Steps<()> {
    store.create_as(store.dropped(), Value::new(Is::Live, store.rules.undelete.into(), 0)).await
}

async fn take_tag(store: &Store, manifest: u8, tag: u8, found: Value) -> Steps<bool> {
    let points = found.is_live() && target(found) == manifest;
    let written = if found.is_live() && !points {
        if store.is(Wrong::NoTagFence) {
            return Ok(true);
        }
        store.publish(Key::Tag(tag), found, found.body()).await?
    } else {
        store.write(Key::Tag(tag), found, Is::Deleted, 0).await?
    };
    Ok(matches!(written, Written::Done(_)))
}
