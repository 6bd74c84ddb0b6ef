//! The contract of a [`Store`], clause by clause. Every driver and decorator passes it unchanged.
//!
//! A clause is a function over an empty store; `contract!(fixture)` stamps all of them into tests. The fixture is an
//! expression, and may await: the store, and whatever has to be kept alive beside it.

mod conditions;
mod listing;
mod multipart;
mod objects;

pub(super) use self::{conditions::*, listing::*, multipart::*, objects::*};

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Body, Condition, Key, Put, Span, Store, Version};

macro_rules! contract {
    ($fixture:expr) => {
        $crate::store::contract::contract! { $fixture;
            what_was_created_is_there_whole
            an_absent_object_is_none_and_not_an_error
            a_folder_is_not_an_object
            a_span_is_cut_at_the_end_of_the_object
            deleting_is_final_and_can_be_repeated
            creating_beside_deleting_in_one_folder_never_fails
            a_reader_sees_one_whole_version_while_it_is_replaced

            create_over_something_is_lost_and_changes_nothing
            replace_over_the_version_that_is_there_takes_its_place
            replace_over_another_version_is_lost_and_changes_nothing
            replace_of_what_is_absent_is_lost
            of_racing_creators_one_wins_and_the_others_change_nothing
            of_racing_replacers_one_wins_and_the_others_change_nothing
            of_racing_increments_none_is_lost
            a_conditional_delete_honours_its_condition
            of_a_replace_racing_a_conditional_delete_one_wins

            a_listing_is_in_the_byte_order_of_whole_keys
            a_prefix_is_text_and_not_a_folder
            pages_visit_every_key_once
            a_page_starts_after_any_key_even_an_absent_one
            a_listing_has_every_key_that_was_there_throughout

            parts_become_one_object_in_the_order_of_their_numbers
            an_upload_is_no_object_before_it_is_complete
            parts_that_are_not_named_are_dropped
            a_single_part_may_be_of_any_size
            parts_of_every_size_that_the_limits_allow_fit_together
            a_part_may_follow_the_previous_one_directly_or_not
            a_part_may_follow_a_sync
            two_writers_of_one_upload_never_mix
            a_part_sent_again_never_mixes_with_the_one_before
            completing_twice_leaves_the_object_right
            racing_completers_leave_the_object_right
            completing_again_out_of_other_parts_changes_nothing
            completing_with_no_parts_or_unknown_ones_makes_nothing
            a_completed_upload_takes_no_more_parts
            an_aborted_upload_takes_no_more_parts
            uploads_of_one_key_are_apart
            an_object_of_parts_is_one_like_any_other
            a_large_object_is_streamed_whole
        }
    };
    ($fixture:expr; $($clause:ident)+) => {
        $(
            #[tokio::test]
            async fn $clause() {
                let (store, _kept) = $fixture;
                $crate::store::contract::$clause(&store).await;
            }
        )+
    };
}
pub(super) use contract;

fn key(text: impl Into<String>) -> Key {
    let text = text.into();
    Key::parse(text.as_str()).unwrap_or_else(|| panic!("not a key: {text:?}"))
}

/// Bytes that tell their place and their seed, so that mixed, moved or missing ones show.
fn pattern(length: u64, seed: u8) -> Bytes {
    (0..length).map(|at| (at % 249 + at / 249 % 241).to_le_bytes()[0] ^ seed).collect()
}

async fn create(store: &dyn Store, key: &Key, bytes: impl Into<Bytes>) -> Version {
    match store.put(key, bytes.into(), Condition::Create).await.unwrap() {
        Put::Stored(version) => version,
        Put::Lost => panic!("{key} is there already"),
    }
}

/// The bytes of a span, and the size of the whole object.
async fn open(store: &dyn Store, key: &Key, span: Span) -> Option<(Vec<u8>, u64)> {
    let object = store.open(key, span).await.unwrap()?;
    Some((collect(object.body).await, object.size))
}

async fn collect(body: Body) -> Vec<u8> {
    let chunks: Vec<Bytes> = body.into_stream().try_collect().await.unwrap();
    chunks.concat()
}

/// Every way to look at the object says that it is exactly these bytes.
async fn assert_is(store: &dyn Store, key: &Key, bytes: &[u8]) {
    let size = bytes.len() as u64;
    assert_eq!(store.head(key).await.unwrap(), Some(size), "head of {key}");
    let (opened, told) = open(store, key, Span::ALL).await.unwrap_or_else(|| panic!("{key} is absent"));
    assert!(opened == bytes, "{key} opens as other bytes, {} instead of {size}", opened.len());
    assert_eq!(told, size, "size of {key} as opened");
    let read = store.read(key).await.unwrap().unwrap();
    assert!(read.bytes == bytes, "{key} reads as other bytes, {} instead of {size}", read.bytes.len());
    let listed = store.list(key.as_str(), None, 1).await.unwrap();
    assert_eq!(listed.first().map(|entry| (&entry.key, entry.size)), Some((key, size)), "listing of {key}");
}

/// Every way to look at the object says that it is not there.
async fn assert_absent(store: &dyn Store, key: &Key) {
    assert_eq!(store.head(key).await.unwrap(), None, "head of {key}");
    assert!(store.open(key, Span::ALL).await.unwrap().is_none(), "{key} opens");
    assert_eq!(store.read(key).await.unwrap(), None, "read of {key}");
    let listed = store.list(key.as_str(), None, 1).await.unwrap();
    assert!(listed.iter().all(|entry| entry.key != *key), "{key} is listed");
}
