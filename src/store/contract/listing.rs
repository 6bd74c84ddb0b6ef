//! What listings promise.

use std::collections::BTreeSet;

use futures_util::future::join;

use super::{create, key};
use crate::store::{Condition, Key, Put, Store};

/// Creates these keys, in this order. The object at a key has the size of the key.
async fn fill(store: &dyn Store, keys: &[&str]) {
    for text in keys {
        create(store, &key(*text), text.as_bytes().to_vec()).await;
    }
}

/// One page, as text; that the sizes are right goes without saying.
async fn page(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(key);
    let entries = store.list(prefix, after.as_ref(), limit).await.unwrap();
    assert!(entries.iter().all(|entry| entry.size == entry.key.as_str().len() as u64), "wrong sizes: {entries:?}");
    entries.into_iter().map(|entry| entry.key.to_string()).collect()
}

pub(crate) async fn a_listing_is_in_the_byte_order_of_whole_keys(store: &dyn Store) {
    fill(store, &["a0", "b", "a/b", "a.b/c", "B", "a/b-/c", "a-b", "a/b0", "a.b/-", "a!", "a_", "a/B"]).await;
    let expected = ["B", "a!", "a-b", "a.b/-", "a.b/c", "a/B", "a/b", "a/b-/c", "a/b0", "a0", "a_", "b"];
    assert_eq!(page(store, "", None, 100).await, expected);
}

pub(crate) async fn a_prefix_is_text_and_not_a_folder(store: &dyn Store) {
    fill(store, &["ab/c", "ab/cd/e", "ab/d", "abc", "b/a", "abc-/x"]).await;
    for (prefix, expected) in [
        ("ab/c", &["ab/c", "ab/cd/e"][..]),
        ("ab/", &["ab/c", "ab/cd/e", "ab/d"]),
        ("ab", &["ab/c", "ab/cd/e", "ab/d", "abc", "abc-/x"]),
        ("abc", &["abc", "abc-/x"]),
        ("ab/cd", &["ab/cd/e"]),
        ("ab/cd/", &["ab/cd/e"]),
        ("b/a", &["b/a"]),
        ("b/a/", &[]),
        ("c/", &[]),
        ("/", &[]),
        ("ab//", &[]),
        ("../", &[]),
        ("./", &[]),
    ] {
        assert_eq!(page(store, prefix, None, 100).await, expected, "{prefix:?}");
    }
}

pub(crate) async fn pages_visit_every_key_once(store: &dyn Store) {
    let all = ["a-b", "a/1/x", "a/1/y", "a/2", "a/2-/z", "a/3/x", "a0", "b/b/b/b", "c"];
    fill(store, &all).await;
    for prefix in ["", "a", "a/", "a/1/", "b"] {
        let expected: Vec<&str> = all.into_iter().filter(|text| text.starts_with(prefix)).collect();
        for limit in 1..=all.len() + 1 {
            let mut visited: Vec<String> = Vec::new();
            loop {
                let next = page(store, prefix, visited.last().map(String::as_str), limit).await;
                assert!(next.len() <= limit);
                let is_last = next.len() < limit;
                visited.extend(next);
                if is_last {
                    break;
                }
            }
            assert_eq!(visited, expected, "{prefix:?} in pages of {limit}");
        }
    }
}

pub(crate) async fn a_page_starts_after_any_key_even_an_absent_one(store: &dyn Store) {
    fill(store, &["b/a", "b/c/d", "b/e", "d"]).await;
    for (prefix, after, expected) in [
        ("", "a", &["b/a", "b/c/d", "b/e", "d"][..]),
        ("", "b", &["b/a", "b/c/d", "b/e", "d"]),
        ("", "b/a", &["b/c/d", "b/e", "d"]),
        ("", "b/b", &["b/c/d", "b/e", "d"]),
        ("", "b/c", &["b/c/d", "b/e", "d"]),
        ("", "b/c/d", &["b/e", "d"]),
        ("", "b/c/d/e", &["b/e", "d"]),
        ("", "b/c0", &["b/e", "d"]),
        ("", "b0", &["d"]),
        ("", "c/x/y", &["d"]),
        ("", "d", &[]),
        ("", "e", &[]),
        ("b/", "a", &["b/a", "b/c/d", "b/e"]),
        ("b/", "b/c/d", &["b/e"]),
        ("b/", "c", &[]),
        ("b/c", "b/c/a", &["b/c/d"]),
    ] {
        assert_eq!(page(store, prefix, Some(after), 100).await, expected, "{prefix:?} after {after}");
    }
}

pub(crate) async fn a_listing_has_every_key_that_was_there_throughout(store: &dyn Store) {
    const THERE: usize = 40;
    let there = |index: usize| key(format!("tags/t{index:03}"));
    let mut versions = Vec::new();
    for index in 0..THERE {
        versions.push(create(store, &there(index), "0").await);
    }
    let writing = async {
        for (index, version) in versions.into_iter().enumerate() {
            let replaced = store.put(&there(index), "11".into(), Condition::Replace(version)).await.unwrap();
            assert_ne!(replaced, Put::Lost);
            let [passing, staying] = ["gone", "new"].map(|what| key(format!("tags/t{index:03}-{what}")));
            create(store, &passing, "1").await;
            create(store, &staying, "1").await;
            store.delete(&passing).await.unwrap();
        }
    };
    let listing = async {
        loop {
            let mut seen: Vec<Key> = Vec::new();
            loop {
                let page = store.list("tags/", seen.last(), 7).await.unwrap();
                seen.extend(page.iter().map(|entry| entry.key.clone()));
                if page.len() < 7 {
                    break;
                }
            }
            assert!(seen.is_sorted(), "{seen:?}");
            let distinct: BTreeSet<&Key> = seen.iter().collect();
            assert_eq!(distinct.len(), seen.len(), "seen twice");
            assert!((0..THERE).all(|index| distinct.contains(&there(index))), "missed one: {seen:?}");
            if distinct.contains(&key(format!("tags/t{:03}-new", THERE - 1))) {
                break;
            }
        }
    };
    join(writing, listing).await;
}
