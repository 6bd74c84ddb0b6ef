//! The collector as the code has it: rounds through its queues, beside everything else, and two of them at a time.

use crate::{
    process::{Announced, Brings, Drops, Op},
    scenarios::*,
    world::{D, GHOST, Is, Key, Queue},
};

const OF_BLOB: Drops = Drops::Blob { repo: 0, blob: 0 };

/// Blob 0, which nothing needs, and the entry that leads to it.
fn unneeded() -> Start {
    Start::empty().blob(0).dropped()
}

#[test]
fn holders_beside_pushes() {
    let it = |name, ops: &[Op]| scenario(name, unneeded(), ops).left(OF_BLOB).led();
    it("rounds", &[DROPPED, CONDEMNED]).holds(35);
    it("push, rounds", &[push(D, 0), DROPPED, CONDEMNED]).holds(602);
    it("upload, rounds", &[upload(0, 0), DROPPED, CONDEMNED]).holds(1000);
    it("two collectors", &[DROPPED, DROPPED, CONDEMNED, CONDEMNED]).holds(36_600);
    it("push, expired, rounds", &[push(D, 0), expire(0, 0), DROPPED, CONDEMNED]).holds(16_400);
}

#[test]
fn two_collectors_beside_a_push() {
    let it = |name, ops: &[Op]| scenario(name, unneeded(), ops).left(OF_BLOB).led();
    it("push, two collectors", &[push(D, 0), DROPPED, DROPPED, CONDEMNED]).holds(97_900);
}

#[test]
fn holders_beside_deletes() {
    let it = |name, ops: &[Op]| scenario(name, Start::image(), ops).led();
    it("delete, rounds", &[DELETE, DROPPED, CONDEMNED]).holds(80);
    it("delete, push, rounds", &[DELETE, push(D, 0), DROPPED, CONDEMNED]).holds(4600);
    it("blob deleted, upload, rounds", &[DELETE_BLOB, upload(0, 0), DROPPED]).holds(689);
}

#[test]
fn bytes() {
    let it = |name, start: Start, ops: &[Op]| scenario(name, start, ops).led();
    let unheld = Start::empty().blob(0).holder(0, 0, Is::Gone).put(Key::Unheld(GHOST), Is::Live, 1);
    // Somebody condemned the record, said which bytes go, and died.
    let named = Start::empty().condemned_record(0).holder(0, 0, Is::Gone).put(Key::Bytes(GHOST), Is::Live, 3);
    it("bytes", unheld, &[UNHELD, REST_OF_BYTES]).holds(241);
    it("two collectors of bytes", unheld, &[UNHELD, UNHELD]).holds(592);
    it("bytes of one that died, two collectors", named, &[REST_OF_BYTES, REST_OF_BYTES]).holds(1300);
    it("upload, bytes", unheld, &[upload(0, 0), UNHELD]).holds(813);
    it("upload, bytes of one that died", named, &[upload(0, 0), REST_OF_BYTES]).holds(681);
    it("upload, one write fails, bytes", unheld, &[upload(0, 0), UNHELD]).faults(1).holds(15_400);
    let held = unneeded().put(Key::Unheld(GHOST), Is::Live, 1);
    it("mount, blob deleted, bytes", held, &[mount(), DELETE_BLOB, UNHELD]).left(OF_BLOB).holds(274);
    let ended = Start::empty().put(Key::Unheld(GHOST), Is::Live, 1).session(0);
    it("session finished, expired, bytes", ended, &[finish(0), expire(0, 0), UNHELD]).holds(2500);
    let died = Start::empty().announced().attempted();
    let dead = Announced::Blob { repo: 0, blob: 0, brings: Brings::Attempt };
    it("an upload that died expires, bytes", died, &[expire(GHOST, 0), REST_OF_BYTES]).dead(dead).holds(28);
}

#[test]
fn gap() {
    let it = |name, ops: &[Op]| scenario(name, unneeded(), ops).left(OF_BLOB).led();
    it("ask, rounds", &[ask_and_push(), DROPPED, CONDEMNED]).holds(342);
    it("ask, two collectors", &[ask_and_push(), DROPPED, DROPPED, CONDEMNED]).holds(38_300);
}

#[test]
fn undo() {
    let it = |name, start: Start, ops: &[Op]| scenario(name, start, ops).undelete().led();
    let trash = Start::empty().blob(0).trash();
    let of_image = |name, ops: &[Op]| it(name, trash, ops).left(Drops::Manifest(D));
    it("delete, rounds", Start::image(), &[DELETE, DROPPED, CONDEMNED, TIME]).holds(95);
    it("delete, restore, rounds", Start::image(), &[DELETE, RESTORE, DROPPED, TIME]).holds(1400);
    of_image("restore, rounds", &[RESTORE, DROPPED, CONDEMNED, TIME]).holds(1700);
    of_image("restore, delete, rounds", &[RESTORE, DELETE, DROPPED, TIME]).holds(2400);
    it("two deletes, rounds", Start::image(), &[DELETE, DELETE, DROPPED, TIME]).holds(2600);
}

#[test]
fn catalog() {
    let it = |name, start: Start, ops: &[Op]| scenario(name, start.listed(), ops).catalog().led();
    it("delete, push, rounds, catalog", Start::image(), &[DELETE, push(D, 0), DROPPED]).holds(10_300);
    it("two collectors, catalog", Start::image(), &[DELETE, DROPPED, DROPPED]).holds(8000);
    let wide = Start::image();
    it("push that is refused, delete, rounds, catalog", wide, &[DELETE, push(W, 0), DROPPED]).holds(1100);
    let died = Start::empty().announced();
    let dead = Announced::Manifest { repo: 0, manifest: E };
    it("a push that died expires, catalog", died, &[expire(GHOST, 0), push(E, 0), DROPPED]).dead(dead).holds(1700);
}

#[test]
fn tombstones() {
    let gone = Key::Holder { repo: 0, blob: 0 };
    let start = Start::empty().blob(0).holder(0, 0, Is::Gone).note(gone).put(Key::Unheld(GHOST), Is::Live, 1);
    let it = |name, ops: &[Op]| scenario(name, start, ops).mortal();
    it("upload, tombstone", &[upload(0, 0), TOMBSTONE]).holds(135);
    let ops = [upload(0, 0), expire(0, 0), note_and_remove(Key::Record(0))];
    scenario("upload, expired, tombstone of its record", Start::empty(), &ops).mortal().holds(100);
}

#[test]
fn collectors_whose_calls_fail() {
    let it = |name, ops: &[Op]| scenario(name, unneeded(), ops).left(OF_BLOB).led().faults(1);
    it("push, rounds, one write fails", &[push(D, 0), DROPPED, CONDEMNED]).holds(1000);
    it("rounds, one write fails", &[DROPPED, CONDEMNED, UNHELD]).holds(1000);
}

#[test]
fn holders_beside_mounts() {
    let it = |name, ops: &[Op]| scenario(name, unneeded(), ops).left(OF_BLOB).led();
    it("mount, rounds", &[mount(), DROPPED, CONDEMNED]).holds(500);
    it("mount, rounds, bytes", &[mount(), DROPPED, CONDEMNED, UNHELD]).holds(1000);
    it("mount, expired, rounds there", &[mount(), expire(0, 0), holders_of(1, Queue::Dropped), UNHELD]).holds(100);
    // What lifts it between two entries changes its nonce.
    let start = Start::empty().blob(0).holder(0, 0, Is::Condemned).condemned().dropped();
    let ops = [push(W, 0), ask_and_push(), DROPPED, CONDEMNED];
    scenario("lifted, asked for, condemned again", start, &ops).left(OF_BLOB).holds(50_000);
}
