//! Orders of the collector that are known to be wrong. Each must break.

use crate::{
    explore::Scenario,
    process::{Announced, Drops, Op, Wrong},
    scenarios::*,
    world::{GHOST, Is, Key, of_old},
};

const OF_BLOB: Drops = Drops::Blob { repo: 0, blob: 0 };

/// Blob 0, which nothing needs, and the entry that leads to it.
fn unneeded(name: &'static str, ops: &[Op]) -> Scenario {
    scenario(name, Start::empty().blob(0).dropped(), ops).left(OF_BLOB).led()
}

/// Its holder is gone, an entry leads to its record.
fn unheld(name: &'static str, ops: &[Op]) -> Scenario {
    let start = Start::empty().blob(0).holder(0, 0, Is::Gone).put(Key::Unheld(GHOST), Is::Live, 1);
    scenario(name, start, ops).led()
}

/// There are two looks after a holder was condemned, at once and when it has rested, and either is enough.
#[test]
fn no_look_after_condemning() {
    let it = unneeded("no look after condemning", &[push(0, 0), DROPPED, CONDEMNED]);
    it.clone().wrong(1, Wrong::NoLook).holds(400);
    it.clone().wrong(2, Wrong::NoLook).holds(400);
    it.wrong(1, Wrong::NoLook).wrong(2, Wrong::NoLook).breaks("I1");
}

#[test]
fn manifests_looked_at_before_references() {
    let it = unneeded("manifests before references", &[push(0, 0), DROPPED, CONDEMNED]);
    it.wrong(1, Wrong::NoLook).wrong(2, Wrong::PublishedFirst).breaks("I1");
}

#[test]
fn rested_and_taken_with_another_nonce() {
    // Lifted by a push that is refused, asked for, and condemned again while the first entry still rests.
    let start = Start::empty().blob(0).holder(0, 0, Is::Condemned).condemned().dropped();
    let it = scenario("taken with another nonce", start, &[push(W, 0), ask_and_push(), DROPPED, CONDEMNED]);
    it.left(OF_BLOB).wrong(3, Wrong::AnyNonce).breaks("gap");
}

#[test]
fn entry_consumed_before_the_next_is_written() {
    let it = unneeded("consumed before the next is written", &[DROPPED]);
    it.wrong(0, Wrong::ConsumedFirst).breaks("left: nothing leads to holder");
    let rested = Start::empty().blob(0).holder(0, 0, Is::Condemned).condemned();
    let it = scenario("consumed before the next is written, rested", rested, &[CONDEMNED]).led();
    it.wrong(0, Wrong::ConsumedFirst).breaks("left: nothing leads to holder");
}

#[test]
fn bytes_deleted_before_the_tombstone_of_their_record() {
    unheld("bytes before their record", &[UNHELD]).wrong(0, Wrong::BytesFirst).breaks("I2");
}

#[test]
fn no_entry_for_the_bytes() {
    unheld("no entry for the bytes", &[UNHELD]).wrong(0, Wrong::NoBytesEntry).breaks("left: nothing leads to data");
}

#[test]
fn entry_for_the_bytes_consumed_while_another_takes_the_record() {
    let it = unheld("an entry for bytes that another one takes", &[UNHELD, REST_OF_BYTES]);
    it.wrong(1, Wrong::Unsettled).breaks("left: nothing leads to data");
    let it = unheld("an entry for bytes after a tombstone that may have been written", &[upload(0, 0), UNHELD]);
    it.faults(1).wrong(1, Wrong::Unsettled).breaks("left: nothing leads to data");
}

#[test]
fn record_taken_without_taking_the_end_of_its_session() {
    let start = Start::empty().session(0).put(Key::Unheld(GHOST), Is::Live, 1);
    let it = scenario("record taken without the end", start, &[finish(0), expire(0, 0), UNHELD]);
    it.tries(3).wrong(2, Wrong::NoEnd).breaks("I2");
}

#[test]
fn record_taken_without_a_second_look() {
    unheld("record taken without a second look", &[upload(0, 0), UNHELD]).wrong(1, Wrong::NoLook).breaks("I2");
}

#[test]
fn holders_looked_at_before_references() {
    let Key::Data(data) = of_old(0) else { panic!("it is of bytes") };
    let start = Start::empty().put(Key::Record(0), Is::Live, data).put(of_old(0), Is::Live, 0);
    let ops = [upload(0, 0), expire(0, 0), UNHELD];
    let it = scenario("holders before references", start.put(Key::Unheld(GHOST), Is::Live, 1), &ops);
    it.wrong(2, Wrong::PublishedFirst).breaks("I2");
}

#[test]
fn what_can_be_put_back_not_looked_at() {
    let trash = Start::empty().blob(0).holder(0, 0, Is::Condemned).condemned().trash();
    let it = scenario("trash not looked at", trash, &[CONDEMNED]).left(Drops::Manifest(0));
    it.wrong(0, Wrong::NoTrash).breaks("undo");
}

#[test]
fn delete_announced_when_it_is_done() {
    let it = scenario("delete announced when it is done", Start::image(), &[DELETE]).led();
    it.wrong(0, Wrong::AnnouncedLast).breaks("left: nothing leads to holder");
    let rests = Start::image().holder(0, 0, Is::Condemned).condemned();
    let it = scenario("delete announced when it is done, rested", rests, &[DELETE, CONDEMNED]).undelete();
    it.wrong(0, Wrong::AnnouncedLast).breaks("undo");
}

#[test]
fn told_that_what_is_condemned_exists() {
    let it = unneeded("told that what is condemned exists", &[ask_and_push(), DROPPED, CONDEMNED]);
    it.wrong(0, Wrong::ExistsCondemned).breaks("gap");
}

#[test]
fn condemned_and_taken_without_a_rest() {
    let it = unneeded("taken without a rest", &[ask_and_push(), DROPPED, CONDEMNED]);
    it.wrong(2, Wrong::NoRest).breaks("gap");
}

#[test]
fn tombstone_removed_whatever_is_there() {
    let it = tombstone("tombstone removed unconditionally", &[upload(0, 0), TOMBSTONE]);
    it.wrong(1, Wrong::Unconditional).breaks("I");
}

#[test]
fn tombstone_removed_while_a_publisher_may_mean_what_was_before() {
    let ops = [upload(0, 0), expire(0, 0), note_and_remove(Key::Record(0))];
    let it = scenario("tombstone removed too early", Start::empty(), &ops);
    it.wrong(2, Wrong::NoRest).breaks("I2");
}

fn tombstone(name: &'static str, ops: &[Op]) -> Scenario {
    let holder = Key::Holder { repo: 0, blob: 0 };
    scenario(name, Start::empty().blob(0).holder(0, 0, Is::Gone).note(holder), ops)
}

#[test]
fn catalog_looked_at_manifests_before_pushes() {
    let ops = [DELETE, push(E, 0), DROPPED];
    let it = scenario("catalog: manifests before pushes", Start::image().listed(), &ops).catalog();
    it.wrong(2, Wrong::PublishedFirst).breaks("catalog");
}

#[test]
fn repository_listed_over_the_tombstone_that_was_to_shut_its_push_out() {
    let it = scenario("line: no fence", Start::empty(), &[push(E, 0), expire(0, 0), DROPPED]).catalog().led();
    it.wrong(0, Wrong::NoLineFence).breaks("left: nothing leads to the line");
}

#[test]
fn line_of_a_repository_in_use_forgotten() {
    let it = scenario("line forgotten, refused", Start::image().listed(), &[DELETE, push(W, 0), DROPPED]);
    it.catalog().led().wrong(2, Wrong::LineForgotten).breaks("left: nothing leads to the line");
    let died = Start::empty().listed().announced();
    let dead = Announced::Manifest { repo: 0, manifest: E };
    let it = scenario("line forgotten, died", died, &[expire(GHOST, 0), DROPPED]).dead(dead).catalog().led();
    it.wrong(1, Wrong::LineForgotten).breaks("left: nothing leads to the line");
}
