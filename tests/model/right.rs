//! What must hold, in every state. The numbers are floors, so that a scenario cannot become empty unnoticed.

use crate::{
    process::{Announced, Brings, Op},
    scenarios::*,
    world::{D, GHOST, Is},
};

fn old() -> Start {
    Start::empty().blob(0).session(0).session(1)
}

fn new() -> Start {
    Start::empty().session(0).session(1)
}

#[test]
fn uploads() {
    scenario("upload three times over, expired, bytes", new(), &[finish(0), expire(0, 0), BYTES]).tries(3).holds(1800);
    scenario("two uploads from nothing, holders, bytes", new(), &[finish(0), finish(1), HOLDER, BYTES]).holds(11_000);
    scenario("two whole uploads, holders, bytes", new(), &[upload(0, 0), upload(0, 0), HOLDER, BYTES]).holds(6000);
    scenario("upload, expired, holders, bytes", new(), &[finish(0), expire(0, 0), HOLDER, BYTES]).holds(2900);
    scenario("whole upload, expired, holders, bytes", new(), &[upload(0, 0), expire(0, 0), HOLDER, BYTES]).holds(2000);
    let ops = [upload(0, 0), expire(0, 0), expire(0, 1), BYTES];
    scenario("whole upload, expired twice, bytes, old record", old(), &ops).holds(11_000);
    let ops = [upload(0, 0), upload(1, 0), HOLDER, BYTES];
    scenario("two uploads (two repositories), holders, bytes", old(), &ops).holds(53_000);
    let ops = [upload(0, 0), DELETE_BLOB, BYTES, BYTES];
    scenario("upload, blob deleted, bytes twice", old(), &ops).holds(26_000);
    let died = new().announced().attempted();
    let dead = Announced::Blob { repo: 0, blob: 0, brings: Brings::Attempt };
    let ops = [expire(GHOST, 0), upload(0, 0), BYTES];
    scenario("an upload that died expires, another comes", died, &ops).dead(dead).holds(1000);
}

#[test]
fn sessions() {
    let ops = [finish(0), expire(0, 0), expire_session(0), BYTES];
    scenario("upload, expired, session expired, bytes", new(), &ops).holds(90_000);
    scenario("upload, expired, session expired, bytes, old record", old(), &ops).holds(63_000);
    let ops = [finish(0), finish_cold(0), expire_session(0)];
    scenario("two finishers of a session, it expires", new(), &ops).holds(13_000);
    scenario("two finishers of a session, one expires", new(), &[finish(0), finish(0), expire(0, 0)]).holds(24_000);
    let ops = [finish(0), expire(0, 0), expire(0, 1), expire_session(0), BYTES];
    scenario("upload, expired twice, session expired, bytes, old record", old(), &ops).holds(240_000);
    let ops = [finish(0), upload(0, 0), expire(0, 0), expire_session(0)];
    scenario("two uploads, one expired with its session", new(), &ops).holds(200_000);
}

#[test]
fn pushes() {
    let (blob, image) = (Start::empty().blob(0), Start::image());
    scenario("two pushes, holders", image, &[push(D, 1), push(D, 1), HOLDER]).holds(10_000);
    scenario("push, two collectors of holders", image, &[push(D, 1), HOLDER, HOLDER]).holds(2400);
    scenario("push, delete, two collectors of holders", image, &[push(D, 1), DELETE, HOLDER, HOLDER]).holds(90_000);
    scenario("push, delete, holders, bytes", image, &[push(D, 1), DELETE, HOLDER, BYTES]).holds(17_000);
    scenario("delete, holders, bytes, upload", image, &[DELETE, HOLDER, BYTES, upload(0, 0)]).holds(10_000);
    scenario("upload, push, holders, bytes", blob, &[upload(0, 0), push(D, 0), HOLDER, BYTES]).holds(34_000);
    scenario("push, expired, holders twice", blob, &[push(D, 1), expire(0, 0), HOLDER, HOLDER]).holds(29_000);
    scenario("push, expired, holders, bytes", blob, &[push(D, 1), expire(0, 0), HOLDER, BYTES]).holds(5400);
    let ops = [push(D, 0), expire(0, 0), DELETE, HOLDER, BYTES];
    scenario("push, expired, delete, holders, bytes", image, &ops).holds(26_000);
    scenario("push, blob deleted, upload", blob, &[push(D, 0), DELETE_BLOB, upload(0, 0)]).holds(310);
}

#[test]
fn mounts() {
    let blob = Start::empty().blob(0);
    let ops = [mount(), push_to_1(), HOLDER, collect(1, 0), BYTES];
    scenario("mount, push there, holders of both, bytes", blob, &ops).holds(9000);
    let ops = [mount(), expire(0, 0), HOLDER, collect(1, 0), BYTES];
    scenario("mount, expired, holders of both, bytes", blob, &ops).holds(23_000);
    let ops = [mount(), HOLDER, BYTES, upload(0, 0)];
    scenario("mount, holders, bytes, upload", blob, &ops).holds(65_000);
    let held = blob.holder(1, 0, Is::Live);
    let ops = [mount(), HOLDER, collect(1, 0), BYTES];
    scenario("mount of what is held, holders of both, bytes", held, &ops).holds(30_000);
    scenario("mount, blob deleted, bytes", blob, &[mount(), DELETE_BLOB, BYTES]).holds(270);
}

#[test]
fn tags() {
    let (tagged, image) = (Start::tagged(), Start::image());
    scenario("delete D, push D:t", tagged, &[DELETE, push(D, 1)]).holds(310);
    scenario("delete D, push D:t, the tag new", image, &[DELETE, push(D, 1)]).holds(160);
    scenario("delete D, push D:t, push E:t", tagged, &[DELETE, push(D, 1), push(E, 1)]).holds(10_000);
    scenario("delete D, push E:t", tagged, &[DELETE, push(E, 1)]).holds(86);
    scenario("two deletes of D, push E:t", tagged, &[DELETE, DELETE, push(E, 1)]).holds(2600);
    scenario("two deletes of D, push D:t", tagged, &[DELETE, DELETE, push(D, 1)]).holds(28_000);
    scenario("delete D, two pushes D:t", tagged, &[DELETE, push(D, 1), push(D, 1)]).holds(68_000);
    scenario("push D:t, expired", Start::empty().blob(0), &[push(D, 1), expire(0, 0)]).holds(49);
    scenario("delete D, push D:t, expired", tagged, &[DELETE, push(D, 1), expire(1, 0)]).holds(1600);
    scenario("delete D, push D:t, expired, push E:t", tagged, &[DELETE, push(D, 1), expire(1, 0), push(E, 1)])
        .holds(60_000);
    scenario("delete D, push D:t, expired, holders", tagged, &[DELETE, push(D, 1), expire(1, 0), HOLDER]).holds(33_000);
    scenario("delete D, delete the tag, push D:t", tagged, &[DELETE, DELETE_TAG, push(D, 1)]).holds(2600);
    scenario("delete the tag, push E:t", tagged, &[DELETE_TAG, push(E, 1)]).holds(44);
    scenario("two conditional pushes, delete", image, &[push_if(D, 1, NOTHING), push_if(E, 1, NOTHING), DELETE])
        .holds(2900);
    scenario("conditional push, push", image, &[push_if(E, 1, NOTHING), push(D, 1)]).holds(110);
    scenario("conditional push, push, delete", tagged, &[push_if(E, 1, D), push(D, 1), DELETE]).holds(6000);
}

#[test]
fn several_tags() {
    let both = Start::image().manifest(D, Is::Live, 3).tag(0, D).tag(1, D);
    scenario("delete D, push D:t,u", both, &[DELETE, push(D, 3)]).tries(3).holds(5900);
    scenario("delete D, push D:t,u, both new", Start::image(), &[DELETE, push(D, 3)]).tries(3).holds(3100);
    scenario("delete D, push D:t,u, push E:t", both, &[DELETE, push(D, 3), push(E, 1)]).holds(90_000);
    scenario("delete D, push D:t,u, push D:t", both, &[DELETE, push(D, 3), push(D, 1)]).holds(590_000);
    scenario("push D:t,u, push E:t,u", both, &[push(D, 3), push(E, 3)]).holds(530);
    scenario("delete D, delete the tag t, push D:t,u", both, &[DELETE, DELETE_TAG, push(D, 3)]).holds(22_000);
}

#[test]
fn referrers() {
    let (listed, image) = (Start::referrer(), Start::image());
    let referrer = |name, start, ops: &[Op]| scenario(name, start, ops).with_subject();
    referrer("delete D, push of a referrer", listed, &[DELETE, push(D, 0)]).holds(310);
    referrer("delete D, push of a referrer, new", image, &[DELETE, push(D, 0)]).holds(310);
    referrer("two deletes, push of a referrer", listed, &[DELETE, DELETE, push(D, 0)]).holds(28_000);
    referrer("delete, push of a referrer, expired", listed, &[DELETE, push(D, 0), expire(1, 0)]).holds(25_000);
    referrer("delete, two pushes of a referrer", listed, &[DELETE, push(D, 0), push(D, 0)]).holds(68_000);
    let blob = Start::empty().blob(0);
    referrer("push of a referrer, expired twice", blob, &[push(D, 0), expire(0, 0), expire(0, 0)]).holds(22_000);
    let tagged = listed.manifest(D, Is::Live, 1).tag(0, D);
    referrer("delete, push of a tagged referrer", tagged, &[DELETE, push(D, 1)]).tries(3).holds(6800);
    let died = Start::image().announced();
    let dead = Announced::Manifest { repo: 0, manifest: D };
    let ops = [expire(GHOST, 0), DELETE];
    referrer("a referrer whose push died is completed, delete", died, &ops).dead(dead).holds(410);
}

#[test]
fn several_blobs_and_indexes() {
    let wide = Start::empty().blob(0).blob(1);
    scenario("push of two blobs, holders of both", wide, &[push(W, 0), HOLDER, collect(0, 1)]).holds(1600);
    let ops = [push(W, 0), expire(0, 0), HOLDER, collect(0, 1)];
    scenario("push of two blobs, expired, holders of both", wide, &ops).holds(19_000);
    let ops = [push(W, 0), push(D, 0), HOLDER, DELETE];
    scenario("push of two blobs, push of one, holders, delete", wide, &ops).holds(3600);
    let condemned = Start::empty().blob(0).manifest(D, Is::Condemned, 0);
    scenario("push of an index, its child collected", condemned, &[push(I, 0), CHILD, HOLDER]).holds(650);
    let ops = [push(I, 0), expire(0, 0), CHILD];
    scenario("push of an index, expired, its child collected", Start::image(), &ops).holds(590);
    scenario("push of an index, its child deleted", condemned, &[push(I, 0), DELETE]).holds(47);
    let ops = [push(I, 0), push(D, 0), DELETE, CHILD];
    scenario("push of an index and its child, deleted, collected", condemned, &ops).holds(31_000);
}

#[test]
fn retention() {
    let (image, tagged, listed) = (Start::image(), Start::tagged(), Start::referrer());
    scenario("push D:t, collected", image, &[push(D, 1), CHILD]).holds(350);
    scenario("push D:t, collected, tagged before", tagged, &[push(D, 1), CHILD]).holds(350);
    scenario("push D:t, collected twice", image, &[push(D, 1), CHILD, CHILD]).holds(1000);
    scenario("push D:t, expired, collected", image, &[push(D, 1), expire(0, 0), CHILD]).holds(1000);
    scenario("push D:t, deleted, collected", image, &[push(D, 1), DELETE, CHILD]).holds(1000);
    scenario("push E:t, D:t collected", tagged, &[push(E, 1), CHILD]).holds(50);
    scenario("push D:t, push E:t, D collected", image, &[push(D, 1), push(E, 1), CHILD]).holds(1000);
    scenario("push D:t, delete the tag, collected", tagged, &[push(D, 1), DELETE_TAG, CHILD]).holds(1000);
    scenario("push of an index, its child collected twice", image, &[push(I, 0), CHILD, CHILD]).holds(1000);
    scenario("push of an index and of its child, collected", image, &[push(I, 0), push(D, 1), CHILD]).holds(1000);
    scenario("push of a referrer, collected", listed, &[push(D, 0), CHILD]).with_subject().holds(350);
    scenario("push D:t, collected, one write fails", image, &[push(D, 1), CHILD]).faults(1).holds(1000);
    scenario("push of an index, its child collected, one write fails", image, &[push(I, 0), CHILD])
        .faults(1)
        .holds(500);
}

#[test]
fn faults() {
    let (blob, tagged) = (Start::empty().blob(0), Start::tagged());
    let fails = |times, name, start, ops: &[Op]| scenario(name, start, ops).faults(times);
    fails(1, "upload, one write fails, holders, bytes", new(), &[upload(0, 0), HOLDER, BYTES]).holds(800);
    fails(2, "upload, two writes fail, bytes", new(), &[upload(0, 0), BYTES]).holds(2800);
    fails(1, "session, one write fails, expired, bytes", new(), &[finish(0), expire(0, 0), BYTES]).holds(56_000);
    fails(1, "push D:t, one write fails, delete", tagged, &[push(D, 1), DELETE]).holds(6000);
    fails(2, "push D:t, two writes fail, delete", tagged, &[push(D, 1), DELETE]).holds(64_000);
    fails(1, "push D:t, one write fails, expired, holders", blob, &[push(D, 1), expire(0, 0), HOLDER]).holds(20_000);
    fails(1, "push D:t, push E:t, one write fails", tagged, &[push(D, 1), push(E, 1)]).holds(1500);
    fails(1, "mount, one write fails, holders of both", blob, &[mount(), HOLDER, collect(1, 0)]).holds(1400);
    fails(1, "upload, one write fails, blob deleted", new(), &[upload(0, 0), DELETE_BLOB]).holds(80);
    let ops = [upload(0, 0), upload(0, 0), DELETE_BLOB];
    fails(1, "two uploads, one write fails, blob deleted", new(), &ops).holds(5000);
    fails(1, "mount, one write fails, blob deleted there", blob, &[mount(), DELETE_MOUNTED]).holds(60);
    fails(1, "push D:t, one write fails, delete the tag", Start::image(), &[push(D, 1), DELETE_TAG]).holds(130);
    let ops = [DELETE_TAG, push_if(E, 1, NOTHING)];
    fails(1, "delete the tag, one write fails, conditional push", tagged, &ops).holds(140);
    let referrer = |name, ops: &[Op]| fails(1, name, Start::image(), ops).with_subject();
    referrer("referrer, one write fails, expired", &[push(D, 0), expire(0, 0)]).holds(6700);
    referrer("referrer, one write fails, delete", &[push(D, 0), DELETE]).holds(6000);
}
