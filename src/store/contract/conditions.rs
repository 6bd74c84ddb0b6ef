//! What conditional writes promise.

use futures_util::future::{join, join_all};

use super::{assert_absent, assert_is, create, key, pattern};
use crate::store::{Condition, Deleted, Key, Put, Store, Version};

/// How many race in the races.
const RACERS: u8 = 16;

pub(crate) async fn create_over_something_is_lost_and_changes_nothing(store: &dyn Store) {
    let key = key("a/b");
    let first = create(store, &key, "first").await;
    for bytes in ["second", "first", ""] {
        assert_eq!(store.put(&key, bytes.into(), Condition::Create).await.unwrap(), Put::Lost);
    }
    assert_is(store, &key, b"first").await;
    assert_eq!(store.read(&key).await.unwrap().unwrap().version, first);
}

pub(crate) async fn replace_over_the_version_that_is_there_takes_its_place(store: &dyn Store) {
    let key = key("a/b");
    let mut version = create(store, &key, "first").await;
    for bytes in ["second, which is longer", "3", "", "fifth"] {
        let replaced = store.put(&key, bytes.into(), Condition::Replace(version.clone())).await.unwrap();
        let Put::Stored(next) = replaced else { panic!("lost against nobody") };
        assert_ne!(next, version, "other bytes, another version");
        assert_is(store, &key, bytes.as_bytes()).await;
        assert_eq!(store.read(&key).await.unwrap().unwrap().version, next);
        version = next;
    }
}

pub(crate) async fn replace_over_another_version_is_lost_and_changes_nothing(store: &dyn Store) {
    let key = key("a/b");
    let first = create(store, &key, "first").await;
    let replaced = store.put(&key, "second".into(), Condition::Replace(first.clone())).await.unwrap();
    let Put::Stored(second) = replaced else { panic!("lost against nobody") };
    for stale in [first, Version("0".into())] {
        let late = store.put(&key, "late".into(), Condition::Replace(stale)).await.unwrap();
        assert_eq!(late, Put::Lost);
    }
    assert_is(store, &key, b"second").await;
    assert_eq!(store.read(&key).await.unwrap().unwrap().version, second);
}

pub(crate) async fn replace_of_what_is_absent_is_lost(store: &dyn Store) {
    let [key, sibling] = ["a/b", "a/c"].map(key);
    let version = create(store, &sibling, "1").await;
    assert_eq!(store.put(&key, "2".into(), Condition::Replace(version.clone())).await.unwrap(), Put::Lost);
    assert_absent(store, &key).await;
    store.delete(&sibling).await.unwrap();
    assert_eq!(store.put(&sibling, "2".into(), Condition::Replace(version)).await.unwrap(), Put::Lost);
    assert_absent(store, &sibling).await;
}

pub(crate) async fn of_racing_creators_one_wins_and_the_others_change_nothing(store: &dyn Store) {
    for round in 0..8 {
        race(store, &key(format!("new/folder-{round}/object")), &Condition::Create).await;
    }
}

pub(crate) async fn of_racing_replacers_one_wins_and_the_others_change_nothing(store: &dyn Store) {
    for round in 0..8 {
        let key = key(format!("object-{round}"));
        let version = create(store, &key, "to be replaced").await;
        race(store, &key, &Condition::Replace(version)).await;
    }
}

/// Of many who put under one condition, one wins, and what it put is there.
async fn race(store: &dyn Store, key: &Key, condition: &Condition) {
    let bytes = |racer: u8| pattern(1000 + u64::from(racer), racer);
    let racing = (0..RACERS).map(|racer| store.put(key, bytes(racer), condition.clone()));
    let ends: Vec<Put> = join_all(racing).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<(u8, &Version)> = (0..RACERS)
        .zip(&ends)
        .filter_map(|(racer, end)| match end {
            Put::Stored(version) => Some((racer, version)),
            Put::Lost => None,
        })
        .collect();
    let [(winner, version)] = winners[..] else { panic!("{} won", winners.len()) };
    assert_is(store, key, &bytes(winner)).await;
    assert_eq!(store.read(key).await.unwrap().unwrap().version, *version);
}

pub(crate) async fn of_racing_increments_none_is_lost(store: &dyn Store) {
    let (key, each) = (&key("counter"), 5);
    create(store, key, "0").await;
    let incrementing = (0..RACERS).map(|_| async move {
        let mut done = 0;
        while done < each {
            let there = store.read(key).await.unwrap().unwrap();
            let count: u32 = std::str::from_utf8(&there.bytes).unwrap().parse().unwrap();
            let next = (count + 1).to_string();
            if store.put(key, next.into(), Condition::Replace(there.version)).await.unwrap() != Put::Lost {
                done += 1;
            }
        }
    });
    join_all(incrementing).await;
    assert_is(store, key, (each * u32::from(RACERS)).to_string().as_bytes()).await;
}

pub(crate) async fn a_conditional_delete_honours_its_condition(store: &dyn Store) {
    if !store.limits().conditional_delete {
        return;
    }
    let key = key("a/b");
    let first = create(store, &key, "first").await;
    let replaced = store.put(&key, "second".into(), Condition::Replace(first.clone())).await.unwrap();
    let Put::Stored(second) = replaced else { panic!("lost against nobody") };
    assert_eq!(store.delete_if(&key, &first).await.unwrap(), Deleted::Lost);
    assert_is(store, &key, b"second").await;
    assert_eq!(store.delete_if(&key, &second).await.unwrap(), Deleted::Deleted);
    assert_absent(store, &key).await;
    assert_eq!(store.delete_if(&key, &second).await.unwrap(), Deleted::Lost);
    assert_eq!(store.put(&key, "third".into(), Condition::Replace(second)).await.unwrap(), Put::Lost);
    create(store, &key, "fourth").await;
    assert_is(store, &key, b"fourth").await;
}

pub(crate) async fn of_a_replace_racing_a_conditional_delete_one_wins(store: &dyn Store) {
    if !store.limits().conditional_delete {
        return;
    }
    for round in 0..16 {
        let key = key(format!("tombstones/{round}"));
        let version = create(store, &key, "condemned").await;
        let lifting = store.put(&key, "live".into(), Condition::Replace(version.clone()));
        let (lifted, deleted) = join(lifting, store.delete_if(&key, &version)).await;
        match (lifted.unwrap(), deleted.unwrap()) {
            (Put::Stored(_), Deleted::Lost) => assert_is(store, &key, b"live").await,
            (Put::Lost, Deleted::Deleted) => assert_absent(store, &key).await,
            both => panic!("{both:?}"),
        }
    }
}
