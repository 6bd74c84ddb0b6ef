//! What holds in every state, and what holds when nothing moves any more.

use crate::{
    explore::{Scenario, is_acknowledged},
    process::{Announced, Job, Op, Outcome},
    world::{D, Is, Key, MANIFESTS, State, TRIES, Value, get, names_blob, names_manifest, pending, target},
};

/// I1 to I5 of the registry.
pub(crate) fn always(scenario: &Scenario, state: &State, replied: &[Option<Outcome>]) -> Option<String> {
    let keeps = |key: Key| get(state, key).is_present() || get(state, key).is() == Is::Deleted;
    for (repo, manifest) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, D)] {
        if !get(state, Key::Manifest { repo, manifest }).is_present() {
            continue;
        }
        let lost = (0..2).find(|blob| names_blob(manifest, *blob) && !keeps(Key::Holder { repo, blob: *blob }));
        if let Some(blob) = lost {
            return Some(format!("I1 manifest {repo}/{manifest} is there, blob {blob} is not held"));
        }
        let children = (0..MANIFESTS).filter(|child| names_manifest(manifest, *child));
        if let Some(child) = children.into_iter().find(|child| !keeps(Key::Manifest { repo, manifest: *child })) {
            return Some(format!("I1 index {repo}/{manifest} is there, its child {child} is not"));
        }
    }
    for blob in 0..2 {
        let record = get(state, Key::Record(blob));
        for repo in 0..2 {
            let holder = get(state, Key::Holder { repo, blob });
            if holder.is_present() && !(record.is_present() && record.body() == holder.body()) {
                return Some(format!("I2 holder {repo}/{blob} {holder:?}, record {record:?}"));
            }
        }
        if record.is_present() && get(state, Key::Data(record.body())) == Value::ABSENT {
            return Some(format!("I2 record {record:?} without bytes"));
        }
    }
    for tag in 0..2 {
        let tag = get(state, Key::Tag(tag));
        if tag.is_live() && !get(state, Key::Manifest { repo: 0, manifest: target(tag) }).is_present() {
            return Some(format!("I3 tag {tag:?} without manifest"));
        }
    }
    if get(state, Key::Entry).is_live() && !get(state, Key::Manifest { repo: 0, manifest: D }).is_present() {
        return Some("I4 referrer entry without manifest".to_owned());
    }
    for (index, process) in (0..).zip(&scenario.processes) {
        if let Announced::Blob { repo, blob, .. } = process.announced()
            && is_acknowledged(replied[usize::from(index)])
            && (0..TRIES).any(|tries| get(state, pending(index, tries)) != Value::ABSENT)
            && !keeps(Key::Holder { repo, blob })
        {
            return Some(format!("I5 process {index} acknowledged a blob that is not held"));
        }
    }
    None
}

/// What was acknowledged, when nothing moves any more.
pub(crate) fn at_the_end(scenario: &Scenario, state: &State, replied: &[Option<Outcome>]) -> Option<String> {
    let ops = || scenario.processes.iter().map(|process| process.op);
    let pushes = |wanted: u8| ops().filter_map(pushed).any(|job| job.repo == 0 && job.manifest == wanted);
    let sets = |tag: u8| ops().filter(move |op| matches!(op, Op::Push(job) if job.tags >> tag & 1 == 1)).count();
    let deletes = |manifest: u8| ops().any(|op| op == Op::DeleteManifest(manifest));
    let untags = |tag: u8| ops().any(|op| op == Op::DeleteTag(tag));
    // Not while a tag points to it.
    let collects = |job: Job| {
        let keeps = (0..2).any(|tag| job.tags >> tag & 1 == 1 && !untags(tag) && sets(tag) == 1);
        !keeps && ops().any(|op| op == Op::CollectManifest(job.manifest))
    };
    // What is deleted and pushed again has the tags that are pushed then.
    let comes_bare = |manifest: u8, tag: u8| {
        let bare = |job: Job| job.manifest == manifest && job.tags >> tag & 1 == 0;
        deletes(manifest) && ops().filter_map(pushed).any(bare)
    };
    if replied.contains(&Some(Outcome::Failed)) {
        // Somebody stopped half way: what it meant to do is to be done again.
        return None;
    }
    if let Some(unexplained) = in_some_order(scenario, state, replied) {
        return Some(unexplained);
    }
    for (op, replied) in ops().zip(replied) {
        if !is_acknowledged(*replied) {
            continue;
        }
        match op {
            Op::Push(job) if job.repo == 0 => {
                let is_there = get(state, Key::Manifest { repo: 0, manifest: job.manifest }).is_present();
                if !is_there && !deletes(job.manifest) && !collects(job) {
                    return Some(format!("manifest {} was pushed and is not there", job.manifest));
                }
                if is_there && job.manifest == D && scenario.subject && !get(state, Key::Entry).is_live() {
                    return Some("a referrer was pushed, is there and is not listed".to_owned());
                }
                for tag in
                    (0..2).filter(|tag| job.tags >> tag & 1 == 1 && !untags(*tag) && !comes_bare(job.manifest, *tag))
                {
                    let points = get(state, Key::Tag(tag));
                    let is_mine = points.is_live() && target(points) == job.manifest;
                    // Moved on by another push, and gone from there with what that pushed.
                    let goes = ops().any(|op| matches!(op, Op::Push(of) if of.tags >> tag & 1 == 1 && of.manifest != job.manifest && deletes(of.manifest)));
                    let is_moved = sets(tag) > 1 && points.is_live() || goes;
                    if is_there && !is_mine && !is_moved {
                        return Some(format!(
                            "manifest {} was pushed, is there, and tag {tag} is {points:?}",
                            job.manifest
                        ));
                    }
                }
            }
            Op::DeleteManifest(manifest)
                if !pushes(manifest) && get(state, Key::Manifest { repo: 0, manifest }).is_present() =>
            {
                return Some(format!("manifest {manifest} was deleted, pushed by nobody, and is there"));
            }
            Op::DeleteTag(tag) if sets(tag) == 0 && get(state, Key::Tag(tag)).is_live() => {
                return Some(format!("tag {tag} was deleted, set by nobody, and is there"));
            }
            Op::DeleteBlob { repo, blob } => {
                let brought = |op| matches!(op, Op::Upload { repo: to, blob: of, .. } | Op::Mount { to, blob: of, .. } if (to, of) == (repo, blob));
                if !ops().any(brought) && get(state, Key::Holder { repo, blob }).is_present() {
                    return Some(format!("blob {repo}/{blob} was deleted, brought by nobody, and is held"));
                }
            }
            _ => {}
        }
    }
    None
}

/// What a process pushes, in whatever way.
fn pushed(op: Op) -> Option<Job> {
    match op {
        Op::Push(job) | Op::AskAndPush(job) => Some(job),
        Op::Restore(manifest) => Some(Job { repo: 0, manifest, tags: 0, condition: None }),
        _ => None,
    }
}

/// What a request does to one register, as its client sees it.
#[derive(Clone, Copy)]
enum Act {
    Set(u8),
    SetIf(u8, u8),
    Remove,
}

/// A tag that points nowhere, a blob that is not held.
const NOTHING: u8 = u8::MAX;

impl Act {
    fn on(self, content: u8) -> Option<u8> {
        match self {
            Self::Set(to) => Some(to),
            Self::SetIf(condition, to) => (content == condition).then_some(to),
            Self::Remove => (content != NOTHING).then_some(NOTHING),
        }
    }
}

/// Each tag and each holder is what one order of the requests makes of it, each done once. Not where deletes of manifests
/// or collectors change it too.
fn in_some_order(scenario: &Scenario, state: &State, replied: &[Option<Outcome>]) -> Option<String> {
    let ops = || scenario.processes.iter().map(|process| process.op);
    let acts = |act: &dyn Fn(Op) -> Option<Act>| -> Vec<(bool, Act)> {
        let acts = ops().zip(replied).filter_map(|(op, replied)| Some((is_acknowledged(*replied), act(op)?)));
        acts.collect()
    };
    if !ops().any(|op| matches!(op, Op::DeleteManifest(_) | Op::CollectManifest(_))) {
        for tag in 0..2 {
            let content = |state: &State| {
                let tag = get(state, Key::Tag(tag));
                if tag.is_live() { target(tag) } else { NOTHING }
            };
            let acts = acts(&|op| match op {
                Op::Push(job) if job.repo == 0 && job.tags >> tag & 1 == 1 => Some(match job.condition {
                    Some(condition) => Act::SetIf(condition, job.manifest),
                    None => Act::Set(job.manifest),
                }),
                Op::DeleteTag(of) if of == tag => Some(Act::Remove),
                _ => None,
            });
            if !leads(content(&scenario.start), content(state), &acts) {
                return Some(format!("tag {tag}: no order of what was acknowledged leaves {}", content(state)));
            }
        }
    }
    if !ops().any(|op| matches!(op, Op::CollectHolder { .. } | Op::Holders { .. })) {
        for (repo, blob) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let content = |state: &State| if get(state, Key::Holder { repo, blob }).is_present() { 0 } else { NOTHING };
            let acts = acts(&|op| match op {
                Op::Upload { repo: to, blob: of, .. } | Op::Mount { to, blob: of, .. } => {
                    ((to, of) == (repo, blob)).then_some(Act::Set(0))
                }
                Op::DeleteBlob { repo: from, blob: of } => ((from, of) == (repo, blob)).then_some(Act::Remove),
                _ => None,
            });
            if !leads(content(&scenario.start), content(state), &acts) {
                return Some(format!(
                    "blob {repo}/{blob}: no order of what was acknowledged leaves {}",
                    content(state)
                ));
            }
        }
    }
    None
}

/// Whether some order of all that must have been done, and some of the rest, leads from one content to the other.
fn leads(from: u8, to: u8, acts: &[(bool, Act)]) -> bool {
    let goes = |at: usize| {
        let mut others = acts.to_vec();
        let (_, act) = others.remove(at);
        act.on(from).is_some_and(|next| leads(next, to, &others))
    };
    from == to && acts.iter().all(|(must, _)| !must) || (0..acts.len()).any(goes)
}
