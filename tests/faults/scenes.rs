//! Each kind of request, in each state in which it takes another path.

use marina_distribution::oci::Algorithm::{Sha256, Sha512};

use crate::operation::{
    BIG,
    Doc::{Image, Index, Other, Signature},
    LONG,
    Op::{self, *},
    SMALL,
    Session::{Big, Long, Wide},
};

/// A request, what was there before it, and what the client does when it has been answered.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) before: Vec<Op>,
    pub(crate) op: Op,
    pub(crate) then: Vec<Op>,
}

impl Scene {
    pub(crate) fn has_session(&self) -> bool {
        self.before.iter().chain([&self.op]).any(Op::is_of_session)
    }
}

fn scene(before: &[Op], op: Op, then: &[Op]) -> Scene {
    Scene { before: before.to_vec(), op, then: then.to_vec() }
}

/// What the manifests need.
pub(crate) const CONTENT: [Op; 2] = [Whole("a", SMALL), Whole("a", BIG)];

pub(crate) fn scenes() -> Vec<Scene> {
    [blobs(), sessions(), finishes(), manifests(), deletes(), reads()].concat()
}

fn blobs() -> Vec<Scene> {
    let (small, deleted) = (Whole("a", SMALL), DeleteBlob("a", SMALL));
    let expired = [small.clone(), deleted.clone(), Expire];
    let mut scenes = vec![
        scene(&[], WholeWrong(SMALL), &[]),
        scene(&[], WholeWrong(BIG), &[]),
        scene(&[], Whole("a", LONG), &[]),
        scene(&[small.clone()], deleted.clone(), &[small.clone()]),
        scene(&[Whole("b", SMALL), small.clone()], deleted.clone(), &[]),
        scene(&[small.clone()], Expire, &[]),
        scene(&[small.clone(), deleted.clone()], Expire, &[]),
    ];
    for from in [Some("b"), None] {
        let mount = |before: &[Op]| scene(before, Mount("a", SMALL, from), &[]);
        scenes.extend([mount(&[]), mount(&[Whole("b", SMALL)]), mount(&[Whole("b", SMALL), small.clone()])]);
        scenes.push(mount(&[Whole("b", SMALL), small.clone(), deleted.clone()]));
    }
    for blob in [SMALL, BIG] {
        let (this, gone) = (Whole("a", blob), DeleteBlob("a", blob));
        scenes.push(scene(&[], this.clone(), &[]));
        scenes.push(scene(&[this.clone()], this.clone(), &[]));
        scenes.push(scene(&[this.clone(), gone], this.clone(), &[]));
        scenes.push(scene(&[Whole("b", blob)], this, &[]));
    }
    scenes.push(scene(&expired, small, &[]));
    scenes
}

fn sessions() -> Vec<Scene> {
    let mut scenes = Vec::new();
    // None, a tail, parts and a tail, and what a torn body left.
    for before in [vec![], vec![Append(Big, 0..3)], vec![Append(Big, 0..13)], vec![Torn(Big, 0..12)]] {
        let at = match before.first() {
            Some(Append(_, sent)) => sent.end,
            _ => 0,
        };
        let session = |op, then: &[Op]| scene(&before, op, then);
        for end in [at + 1, at + 7, at + 10] {
            scenes.push(session(Append(Big, at..end), &[Append(Big, end..23), Finish(Big, 23..23, Sha256)]));
            scenes.push(session(Torn(Big, at..end), &[Resume(Big)]));
        }
        scenes.push(session(Append(Big, at..at + 10), &[Resume(Big)]));
        scenes.push(session(Torn(Big, at..at + 10), &[Append(Big, at..23), Resume(Big)]));
        scenes.push(session(Resume(Big), &[]));
        scenes.push(session(Finish(Big, at..23, Sha256), &[]));
        scenes.push(session(FinishWrong(Big, at..23, Sha256), &[]));
        scenes.push(session(FinishWrong(Big, at..23, Sha512), &[]));
        scenes.push(session(Expire, &[]));
        scenes.push(session(Cancel(Big), &[]));
        scenes.push(session(Status(Big), &[]));
        scenes.push(scene(&[&before[..], &[Cancel(Big)]].concat(), Expire, &[]));
    }
    scenes.push(scene(&[], Append(Long, 0..LONG.len()), &[Resume(Long)]));
    scenes.push(scene(&[], Torn(Long, 0..LONG.len()), &[Resume(Long)]));
    scenes.push(scene(&[Append(Long, 0..50)], Torn(Long, 50..70), &[Append(Long, 50..90), Resume(Long)]));
    scenes.push(scene(&[], Stream(Big, 0..23), &[Finish(Big, 23..23, Sha256)]));
    scenes
}

fn finishes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    let whole = [Append(Big, 0..23)];
    let even = [Append(Big, 0..20)];
    for algorithm in [Sha256, Sha512] {
        for session in [Big, Wide] {
            scenes.push(scene(&[], Finish(session, 0..23, algorithm), &[]));
            scenes.push(scene(&[Append(session, 0..3)], Finish(session, 3..23, algorithm), &[]));
            scenes.push(scene(&[Append(session, 0..23)], Finish(session, 23..23, algorithm), &[]));
            scenes.push(scene(&[Append(session, 0..20)], Finish(session, 20..23, algorithm), &[]));
        }
    }
    // The blob is there already, or was; another session has the same content.
    for before in [vec![Whole("a", BIG)], vec![Whole("a", BIG), DeleteBlob("a", BIG)], vec![Whole("b", BIG)]] {
        scenes.push(scene(&[&before[..], &whole].concat(), Finish(Big, 23..23, Sha256), &[]));
        scenes.push(scene(&[&before[..], &even].concat(), Finish(Big, 20..23, Sha256), &[]));
    }
    scenes.push(scene(&[&even[..], &[Append(Wide, 0..20)]].concat(), Finish(Big, 20..23, Sha256), &[]));
    scenes.push(scene(&[Torn(Big, 0..23)], Finish(Big, 20..23, Sha256), &[]));
    scenes.push(scene(&[Append(Big, 0..23), Finish(Big, 23..23, Sha256)], Expire, &[]));
    scenes.push(scene(&[Append(Long, 0..96)], Finish(Long, 96..96, Sha256), &[]));
    scenes
}

fn manifests() -> Vec<Scene> {
    let image = Push(Image, "t");
    let push = |more: &[Op], op: Op| scene(&[&CONTENT, more].concat(), op, &[]);
    let gone = [image.clone(), DeleteManifest(Image)];
    vec![
        scene(&[], image.clone(), &[]),
        scene(&[CONTENT[0].clone()], image.clone(), &[]),
        push(&[], image.clone()),
        push(&[], PushByDigest(Image, &[])),
        push(&[], PushByDigest(Image, &["t", "u", "v"])),
        push(&[image.clone()], image.clone()),
        push(&[image.clone()], Push(Image, "u")),
        push(&[image.clone()], Push(Other, "t")),
        push(&[image.clone(), Push(Other, "t")], PushByDigest(Image, &["t", "u"])),
        push(&[image.clone()], PushIf(Other, "t", Some(Image))),
        push(&[image.clone()], PushIf(Other, "t", None)),
        push(&[image.clone()], PushIf(Other, "u", None)),
        push(&[image.clone()], PushIf(Other, "u", Some(Image))),
        push(&gone, image.clone()),
        push(&gone, PushByDigest(Image, &["t", "u"])),
        push(&[image.clone(), DeleteTag("t")], image.clone()),
        push(&[], PushByDigest(Signature, &[])),
        push(&[image.clone()], Push(Signature, "u")),
        push(&[Push(Signature, "u")], Push(Signature, "v")),
        push(&[Push(Signature, "u"), DeleteManifest(Signature)], Push(Signature, "u")),
        push(&[image.clone()], Push(Index, "u")),
        push(&gone, Push(Index, "u")),
        push(&[image, DeleteBlob("a", SMALL)], Push(Other, "t")),
    ]
}

fn deletes() -> Vec<Scene> {
    let all = [&CONTENT[..], &[Push(Image, "t"), Push(Other, "u"), Push(Signature, "v"), Push(Index, "t")]].concat();
    let delete = |op: Op, then: &[Op]| scene(&all, op, then);
    vec![
        delete(DeleteTag("u"), &[Push(Other, "u")]),
        delete(DeleteTag("t"), &[]),
        delete(DeleteManifest(Image), &[Push(Image, "t")]),
        delete(DeleteManifest(Other), &[]),
        delete(DeleteManifest(Signature), &[Push(Signature, "v")]),
        delete(DeleteManifest(Index), &[Push(Image, "u")]),
        delete(DeleteBlob("a", BIG), &[Whole("a", BIG)]),
        delete(Expire, &[]),
        scene(&CONTENT, DeleteManifest(Image), &[]),
        scene(&CONTENT, DeleteTag("t"), &[]),
        scene(&CONTENT, DeleteBlob("b", BIG), &[]),
    ]
}

fn reads() -> Vec<Scene> {
    let all = [&CONTENT[..], &[Push(Image, "t"), Push(Other, "u"), Push(Signature, "v")]].concat();
    let ops = [
        Stat("a", BIG),
        Stat("b", BIG),
        Read("a", BIG),
        Head(Image),
        Get(Image),
        Head(Index),
        HeadTag("t"),
        GetTag("t"),
        GetTag("w"),
        Tags,
        Referrers(Image),
        Catalog,
    ];
    ops.into_iter().map(|op| scene(&all, op, &[])).collect()
}
