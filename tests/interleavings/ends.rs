//! What was acknowledged, when all is over.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::StreamExt;
use marina_distribution::{
    oci::Reference,
    registry::{PageRequest, Registry},
    store::Span,
};

use crate::{
    content::{BLOBS, PARTS, What, blob, repository, tag},
    process::{Op, Outcome},
    walk::{self, Walk},
};

/// The first promise that was not kept.
pub(crate) async fn broken(ops: &[Op], outcomes: &[Outcome], walk: &Walk, registry: &Arc<Registry>) -> Option<String> {
    if outcomes.contains(&Outcome::Damaged) {
        return Some("the store is called damaged".to_owned());
    }
    if outcomes.contains(&Outcome::Failed) {
        // Somebody stopped half way: what it meant to do is to be done again.
        return None;
    }
    for (op, outcome) in ops.iter().zip(outcomes) {
        if *outcome != Outcome::Acknowledged {
            continue;
        }
        let broken = match *op {
            Op::Push { what, tags, .. } => broken_push(ops, walk, registry, what, tags).await,
            Op::Upload { repo, blob } => broken_blob(ops, registry, repo, blob).await,
            Op::Finish => broken_blob(ops, registry, 0, PARTS).await,
            Op::Mount => broken_blob(ops, registry, 1, 0).await,
            Op::DeleteManifest(what) => {
                let is_pushed = ops.iter().any(|op| matches!(op, Op::Push { what: of, .. } if *of == what));
                let is_there = walk.is_present(&walk::manifest("a", &what.digest().to_string()));
                (is_there && !is_pushed).then(|| format!("{what:?} was deleted, pushed by nobody, and is there"))
            }
            Op::DeleteTag(number) => {
                let is_set = ops.iter().any(|op| matches!(op, Op::Push { tags, .. } if tags.contains(&number)));
                let is_there = walk.is_live(&walk::tag("a", tag(number).as_ref()));
                (is_there && !is_set).then(|| format!("tag {number} was deleted, set by nobody, and is there"))
            }
            Op::DeleteBlob { repo, blob: number } => {
                let is_brought = ops.iter().any(|op| brings(*op, repo, number));
                let holder = walk::holder(&blob(number).to_string(), repository(repo).as_str());
                (walk.is_present(&holder) && !is_brought).then(|| format!("blob {number} was deleted, and is held"))
            }
            Op::Append { .. } | Op::Cancel | Op::Expire | Op::CollectHolder { .. } | Op::CollectRecord(_) => None,
        };
        if broken.is_some() {
            return broken;
        }
    }
    None
}

fn brings(op: Op, repo: usize, blob: usize) -> bool {
    match op {
        Op::Upload { repo: to, blob: of } => (to, of) == (repo, blob),
        Op::Finish => (repo, blob) == (0, PARTS),
        Op::Mount => (repo, blob) == (1, 0),
        _ => false,
    }
}

/// Whole, or deleted whole.
async fn broken_push(ops: &[Op], walk: &Walk, registry: &Arc<Registry>, what: What, tags: &[usize]) -> Option<String> {
    let deletes = |what: What| ops.contains(&Op::DeleteManifest(what));
    let digest = what.digest();
    let found = registry.manifest(&repository(0), &Reference::Digest(digest)).await;
    let Ok((head, bytes)) = found else {
        return (!deletes(what)).then(|| format!("{what:?} was pushed, and answers {:?}", found.err()));
    };
    if bytes != what.bytes() || head.media_type != what.media_type() {
        return Some(format!("{what:?} was pushed and has other bytes"));
    }
    if what == What::Referrer {
        let subject = marina_distribution::oci::Digest::of(digest.algorithm(), b"subject");
        let listed = registry.referrers(&repository(0), &subject, &[], &PageRequest::default()).await.unwrap();
        if listed.items.len() != 1 {
            return Some("a referrer was pushed, is there and is not listed".to_owned());
        }
    }
    // What is deleted and pushed again has the tags that are pushed then.
    let each_sets = |number: usize| {
        ops.iter().all(|op| !matches!(op, Op::Push { what: of, tags, .. } if *of == what && !tags.contains(&number)))
    };
    let stays = |number: usize| !ops.contains(&Op::DeleteTag(number)) && (each_sets(number) || !deletes(what));
    for number in tags.iter().filter(|number| stays(**number)) {
        let points = walk.json(&walk::tag("a", tag(*number).as_ref()));
        let points = points.filter(|_| walk.is_live(&walk::tag("a", tag(*number).as_ref())));
        let is_mine = points.as_ref().is_some_and(|points| points["digest"] == digest.to_string());
        let others = || {
            let others = ops.iter().filter_map(|op| match op {
                Op::Push { what: of, tags, .. } if *of != what && tags.contains(number) => Some(*of),
                _ => None,
            });
            others.collect::<Vec<_>>()
        };
        let is_moved = !others().is_empty() && points.is_some() || others().into_iter().any(deletes);
        if !is_mine && !is_moved {
            return Some(format!("{what:?} was pushed, is there, and tag {number} says {points:?}"));
        }
    }
    for number in what.blobs() {
        if let Some(broken) = broken_blob(ops, registry, 0, *number).await {
            return Some(broken);
        }
    }
    None
}

/// Held and byte for byte what it was, unless a client deleted it.
async fn broken_blob(ops: &[Op], registry: &Arc<Registry>, repo: usize, number: usize) -> Option<String> {
    if ops.contains(&Op::DeleteBlob { repo, blob: number }) {
        return None;
    }
    if ops.contains(&Op::Expire) && !ops.iter().any(|op| matches!(op, Op::Push { .. })) {
        // The grace period is over for what nothing refers to.
        return None;
    }
    let found = match registry.find_blob(&repository(repo), &blob(number)).await {
        Ok(found) => found,
        Err(error) => return Some(format!("blob {number} was acknowledged: {error}")),
    };
    let mut body = registry.read_blob(&found, Span::ALL).await.unwrap().into_stream();
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    (bytes != BLOBS[number]).then(|| format!("blob {number} was acknowledged and has other bytes"))
}
