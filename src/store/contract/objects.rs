//! What reading, opening and deleting promise.

use futures_util::future::{join, join_all};

use super::{assert_absent, assert_is, collect, create, key, open, pattern};
use crate::store::{Condition, Put, Span, Store};

pub(crate) async fn what_was_created_is_there_whole(store: &dyn Store) {
    for size in [0, 1, 4096, 300_000] {
        let key = key(format!("a/b-{size}"));
        let bytes = pattern(size, 7);
        let version = create(store, &key, bytes.clone()).await;
        assert_is(store, &key, &bytes).await;
        assert_eq!(store.read(&key).await.unwrap().unwrap().version, version);
    }
}

pub(crate) async fn an_absent_object_is_none_and_not_an_error(store: &dyn Store) {
    for absent in ["a", "a/b/c/d"] {
        assert_absent(store, &key(absent)).await;
    }
    create(store, &key("x/y"), "1").await;
    for absent in ["x/z", "x/y-", "x/Y", "X/y"] {
        assert_absent(store, &key(absent)).await;
    }
}

pub(crate) async fn a_folder_is_not_an_object(store: &dyn Store) {
    create(store, &key("a/b/c"), "1").await;
    assert_absent(store, &key("a/b")).await;
    assert_absent(store, &key("a")).await;
}

pub(crate) async fn a_span_is_cut_at_the_end_of_the_object(store: &dyn Store) {
    let key = key("object");
    create(store, &key, "0123456789").await;
    for (start, length, expected) in [
        (0, 10, "0123456789"),
        (0, u64::MAX, "0123456789"),
        (0, 0, ""),
        (0, 1, "0"),
        (3, 4, "3456"),
        (9, 1, "9"),
        (9, 5, "9"),
        (10, 0, ""),
        (10, 1, ""),
        (11, 3, ""),
        (5, u64::MAX, "56789"),
        (u64::MAX, u64::MAX, ""),
    ] {
        let (bytes, size) = open(store, &key, Span::new(start, length)).await.unwrap();
        assert_eq!(bytes, expected.as_bytes(), "{length} from {start}");
        assert_eq!(size, 10, "the size is of the whole object");
    }
}

pub(crate) async fn deleting_is_final_and_can_be_repeated(store: &dyn Store) {
    let [gone, stays] = ["a/gone", "a/stays"].map(key);
    create(store, &gone, "1").await;
    create(store, &stays, "2").await;
    for _ in 0..2 {
        store.delete(&gone).await.unwrap();
        assert_absent(store, &gone).await;
    }
    store.delete(&key("never/was")).await.unwrap();
    store.delete(&key("a")).await.unwrap();
    assert_is(store, &stays, b"2").await;
}

pub(crate) async fn creating_beside_deleting_in_one_folder_never_fails(store: &dyn Store) {
    let comings_and_goings = (0..8).map(|task| async move {
        for round in 0..8 {
            let key = key(format!("deep/down/folder/{task}-{round}"));
            create(store, &key, "1").await;
            assert_is(store, &key, b"1").await;
            store.delete(&key).await.unwrap();
            assert_absent(store, &key).await;
        }
    });
    join_all(comings_and_goings).await;
    assert_eq!(store.list("", None, 10).await.unwrap(), []);
}

pub(crate) async fn a_reader_sees_one_whole_version_while_it_is_replaced(store: &dyn Store) {
    let key = key("tags/latest");
    // Every version has its own size and bytes.
    let bytes = |seed: u8| pattern(100_000 + 1000 * u64::from(seed), seed);
    let mut version = create(store, &key, bytes(0)).await;
    let writing = async {
        for seed in 1..=20 {
            let replaced = store.put(&key, bytes(seed), Condition::Replace(version.clone())).await.unwrap();
            let Put::Stored(next) = replaced else { panic!("lost against nobody") };
            version = next;
        }
    };
    let reading = async {
        let mut last = 0;
        while last < 20 {
            let object = store.open(&key, Span::ALL).await.unwrap().expect("there all the time");
            let read = store.read(&key).await.unwrap().expect("there all the time").bytes;
            let opened = collect(object.body).await;
            assert_eq!(opened.len() as u64, object.size);
            for whole in [&opened[..], &read[..]] {
                let seed = u8::try_from((whole.len() - 100_000) / 1000).unwrap();
                assert!(*whole == bytes(seed)[..], "torn at version {seed}");
                assert!(seed >= last, "version {seed} after {last}");
                last = seed;
            }
        }
    };
    join(writing, reading).await;
}
