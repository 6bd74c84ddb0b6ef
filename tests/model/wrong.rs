//! Orders that are known to be wrong. Each must break, or the exploration would prove nothing.

use crate::{
    process::Wrong,
    scenarios::*,
    world::{Is, Key},
};

#[test]
fn no_pending_reference() {
    let it = scenario("no pending reference", Start::empty().blob(0), &[push(0, 1), HOLDER]);
    it.wrong(0, Wrong::NoPending).breaks("I1");
}

#[test]
fn holder_condemned_and_not_lifted() {
    let it = scenario("holder condemned and not lifted", Start::empty().blob(0), &[push(0, 1), HOLDER]);
    it.wrong(0, Wrong::NoLift).breaks("I1");
}

#[test]
fn no_second_look() {
    let it = scenario("no second look", Start::empty().blob(0), &[push(0, 1), HOLDER]);
    it.wrong(1, Wrong::NoLook).breaks("I1");
}

#[test]
fn second_look_at_what_is_published_before_what_is_pending() {
    let it = scenario("second look: published before pending", Start::empty().blob(0), &[push(0, 1), HOLDER]);
    it.wrong(1, Wrong::PublishedFirst).breaks("I1");
}

#[test]
fn expiry_of_a_push_without_a_fence() {
    let it = scenario("expiry without a fence, push", Start::empty().blob(0), &[push(0, 1), expire(0, 0), HOLDER]);
    it.wrong(1, Wrong::NoFence).breaks("I1");
}

#[test]
fn expiry_of_an_upload_without_a_fence() {
    let start = Start::empty().blob(0).holder(0, 0, Is::Gone).session(0);
    let it = scenario("expiry without a fence, upload", start, &[finish(0), expire(0, 0), expire(0, 1), BYTES]);
    it.wrong(2, Wrong::NoFence).breaks("I2");
}

#[test]
fn upload_published_over_a_value_read_after_the_pending_reference() {
    let ops = [finish(0), expire(0, 0), HOLDER, BYTES];
    let it = scenario("published over a value read after pending, upload", Start::empty().blob(0).session(0), &ops);
    it.wrong(0, Wrong::LateRead).breaks("I2");
}

#[test]
fn push_published_over_a_value_read_after_the_pending_reference() {
    let ops = [push(0, 1), expire(0, 0), HOLDER];
    let it = scenario("published over a value read after pending, push", Start::empty().blob(0), &ops);
    it.wrong(0, Wrong::LateRead).breaks("I1");
}

#[test]
fn what_is_live_is_not_pushed_again() {
    let it = scenario("what is live already is not written again, push", Start::tagged(), &[push(0, 1), DELETE]);
    it.wrong(0, Wrong::NoTouch).breaks("I3");
}

#[test]
fn what_is_live_is_not_uploaded_again() {
    let ops = [finish(0), HOLDER, BYTES];
    let it = scenario("what is live already is not written again, upload", Start::empty().blob(0).session(0), &ops);
    it.wrong(0, Wrong::NoTouch).breaks("I");
}

#[test]
fn a_finisher_that_does_not_own_its_session() {
    let ops = [finish(0), expire(0, 0), expire_session(0), HOLDER, BYTES];
    let start = Start::empty().session(0).put(Key::End(0), Is::Live, 1);
    let it = scenario("a finisher that does not own its session", start, &ops);
    it.wrong(0, Wrong::NoEnd).breaks("I2");
}

#[test]
fn session_expired_without_waiting_for_its_pending_references() {
    let ops = [finish(0), expire_session(0), HOLDER, BYTES];
    let it = scenario("session expired without waiting", Start::empty().session(0), &ops);
    it.wrong(1, Wrong::NoWait).breaks("I2");
}

#[test]
fn mount_that_does_not_read_the_record() {
    let start = Start::empty().condemned_record(0).holder(0, 0, Is::Live);
    let it = scenario("mount that does not read the record", start, &[mount(), HOLDER, BYTES]);
    it.wrong(0, Wrong::NoRecord).breaks("I2");
}

#[test]
fn delete_that_does_not_see_the_manifest_again() {
    let it = scenario("delete that does not see the manifest again", Start::tagged(), &[DELETE, push(0, 1)]);
    it.wrong(0, Wrong::NoRecheck).breaks("manifest 0 was pushed, is there");
}

#[test]
fn delete_that_does_not_fence_tags_that_point_elsewhere() {
    let start = Start::empty().blob(0).manifest(0, Is::Live, 1).manifest(E, Is::Live, 1);
    let it = scenario("delete that does not fence tags pointing elsewhere", start.tag(0, E), &[DELETE, push(0, 1)]);
    it.wrong(0, Wrong::NoTagFence).breaks("I3");
}

#[test]
fn delete_that_does_not_fence_an_absent_referrer_entry() {
    let it = scenario("delete that does not fence an absent entry", Start::image(), &[DELETE, push(0, 0)]);
    it.with_subject().wrong(0, Wrong::NoEntryFence).breaks("I4");
}

#[test]
fn bytes_retired_without_taking_the_end_of_their_session() {
    let ops = [finish(0), expire(0, 0), BYTES];
    let it = scenario("bytes retired without taking the end", Start::empty().session(0), &ops);
    it.tries(3).wrong(2, Wrong::NoEnd).breaks("I2");
}

#[test]
fn delete_that_gives_way_to_a_lift() {
    let start = Start::empty().blob(0).manifest(0, Is::Condemned, 0);
    let it = scenario("delete that gives way to whoever writes the manifest", start, &[DELETE, push(I, 0)]);
    it.wrong(0, Wrong::GivesWay).breaks("manifest 0 was deleted");
}

#[test]
fn push_that_takes_tags_for_set_that_went_with_its_manifest() {
    let start = Start::empty().blob(0).manifest(0, Is::Live, 3).tag(0, 0).tag(1, 0);
    let it = scenario("push that does not tell the lives of its manifest apart", start, &[DELETE, push(0, 3)]);
    it.wrong(1, Wrong::OneLife).breaks("manifest 0 was pushed, is there");
}

#[test]
fn upload_that_may_have_been_done_and_is_done_again() {
    let it = scenario("upload done twice around a delete", Start::empty(), &[upload(0, 0), DELETE_BLOB]);
    it.faults(1).wrong(0, Wrong::Twice).breaks("blob 0/0: no order");
}

#[test]
fn mount_that_may_have_been_done_and_is_done_again() {
    let it = scenario("mount done twice around a delete", Start::empty().blob(0), &[mount(), DELETE_MOUNTED]);
    it.faults(1).wrong(0, Wrong::Twice).breaks("blob 1/0: no order");
}

#[test]
fn tag_that_may_have_been_set_and_is_set_again() {
    let it = scenario("tag set twice around a delete", Start::image(), &[push(0, 1), DELETE_TAG]);
    it.faults(1).wrong(0, Wrong::Twice).breaks("tag 0: no order");
}

#[test]
fn tag_that_may_have_been_deleted_and_is_deleted_again() {
    let it = scenario("one delete takes two tags", Start::tagged(), &[DELETE_TAG, push_if(E, 1, NOTHING)]);
    it.faults(1).wrong(0, Wrong::Twice).breaks("tag 0: no order");
}

#[test]
fn push_that_takes_itself_for_overtaken_by_one_with_a_condition() {
    let it = scenario("overtaken by a condition", Start::image(), &[push_if(E, 1, NOTHING), push(0, 1)]);
    it.wrong(1, Wrong::AnyOvertakes).breaks("tag 0: no order");
}

#[test]
fn mark_of_a_session_removed_while_a_finisher_may_still_come() {
    let ops = [finish(0), expire(0, 0), expire_session(0), remove_mark(0)];
    scenario("mark removed while a finisher may come", Start::empty().session(0), &ops).breaks("I2");
}

#[test]
fn a_manifest_taken_that_another_walk_has_condemned_since() {
    let it = scenario("taken though condemned by another", Start::image(), &[push(I, 0), CHILD, CHILD]);
    it.wrong(1, Wrong::NoNonce).breaks("I1");
}

#[test]
fn a_manifest_that_goes_with_the_tag_that_was_set_meanwhile() {
    let it = scenario("retention takes tags along", Start::image(), &[push(0, 1), CHILD]);
    it.wrong(1, Wrong::TakesTags).breaks("manifest 0 was pushed and is not there");
}

#[test]
fn a_manifest_taken_without_a_look_for_indexes() {
    let it = scenario("a child taken without a look", Start::image(), &[push(I, 0), CHILD]);
    it.wrong(1, Wrong::NoLook).breaks("I1");
}
