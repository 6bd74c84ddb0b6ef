//! Objects that the store refuses: named, and no reason to end.

use std::sync::Arc;

use marina_distribution::{
    registry::{
        Registry, Settings,
        check::{Check, News, Share},
    },
    store::{
        ErrorKind, Store, Verb,
        faulty::{Call, Fault, Faulty},
    },
};

use crate::fixture::{
    Damage::{Edit, Remove},
    Fixture, blob_key, create, damage, read, report, told_by,
};

/// The same store, but for the reads of one key.
fn without(store: &Arc<dyn Store>, bad: &str) -> Arc<Faulty> {
    let bad = bad.to_owned();
    let is_read = |call: &Call| matches!(call.verb, Verb::Read | Verb::Open | Verb::Head);
    let plan = move |call: &Call| if call.key == bad && is_read(call) { Fault::Refused } else { Fault::None };
    Arc::new(Faulty::new(store.clone(), plan))
}

fn deep(store: Arc<dyn Store>) -> Check {
    Check::new(store).deep(Share::ALL, None)
}

async fn keys(store: &dyn Store) -> Vec<String> {
    store.list("", None, usize::MAX).await.unwrap().iter().map(|entry| entry.key.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn whatever_object_is_refused_it_alone_is_named_and_the_rest_is_checked() {
    let fixture = Fixture::in_memory().await;
    let store = fixture.copy().await;
    let all = keys(store.as_ref()).await;
    create(store.as_ref(), "zzz", "").await;
    for bad in all {
        for check in [Check::new(without(&store, &bad)), deep(without(&store, &bad))] {
            let (lines, summary) = told_by(check).await;
            assert_eq!((lines.len(), summary.findings), (2, 2), "{bad}: {lines:?}");
            let is_named = |line: &String| line.starts_with("refused  ") && line.contains(&bad);
            assert!(lines.iter().any(is_named), "{bad}: {lines:?}");
            assert!(lines.iter().any(|line| line == "key  zzz  is not a key of this registry"), "{bad}: {lines:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_is_judged_by_all_that_it_relies_on_but_for_what_is_refused() {
    let fixture = Fixture::in_memory().await;
    let store = fixture.copy().await;
    damage(store.as_ref(), &Remove(blob_key(&fixture.layer, "a"))).await;
    for bad in ["catalog/a".to_owned(), blob_key(&fixture.config, "a")] {
        let (lines, _) = report(without(&store, &bad)).await;
        let missed = lines.iter().filter(|line| line.starts_with("I1  ")).count();
        assert_eq!((missed, lines.len()), (2, 3), "{bad}: {lines:?}");
    }
}

/// How a check of a store that goes wrong like this ends, and how much it says before.
async fn ends(store: Arc<dyn Store>) -> (ErrorKind, usize) {
    let mut lines = 0;
    let ended = deep(store).run(|news| lines += usize::from(matches!(news, News::Finding(_)))).await;
    (ended.unwrap_err().kind, lines)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_any_more_ends_the_check_at_once_and_no_object_is_blamed() {
    let fixture = Fixture::in_memory().await;
    for at in [0, 1, 10, 50] {
        let dies = move |call: &Call| if call.index >= at { Fault::NotApplied } else { Fault::None };
        let store = Arc::new(Faulty::new(fixture.copy().await, dies));
        assert_eq!(ends(store.clone()).await, (ErrorKind::Unavailable, 0));
        assert!(store.calls().len() < at + 50, "after {at}: {} calls", store.calls().len());
    }
    let refuses = |call: &Call| if call.key.is_empty() { Fault::Refused } else { Fault::None };
    assert_eq!(ends(Arc::new(Faulty::new(fixture.copy().await, refuses))).await, (ErrorKind::Refused, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_is_refused_is_not_taken_away_as_one_is_that_is_damaged() {
    let fixture = Fixture::in_memory().await;
    let store = fixture.copy().await;
    let key = "pending/manifests/a/01900000-0000-7000-8000-000000000001";
    create(store.as_ref(), key, "no entry").await;
    for (store, is_kept) in [(without(&store, key) as Arc<dyn Store>, true), (Arc::clone(&store), false)] {
        let registry = Registry::open(Arc::clone(&store), Settings::default()).await.unwrap();
        let summary = Check::new(Arc::clone(&store)).repair(registry).run(|_| {}).await.unwrap();
        assert_eq!(summary.findings == 1, is_kept);
        assert_eq!(keys(store.as_ref()).await.iter().any(|there| there == key), is_kept);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_taken_for_damaged() {
    let fixture = Fixture::in_memory().await;
    let store = fixture.copy().await;
    let (holder, data) = (blob_key(&fixture.layer, "a"), fixture.data(&fixture.layer).await);
    damage(store.as_ref(), &Edit(holder.clone(), "l".into(), "x".into())).await;
    let before = read(store.as_ref(), &holder).await;
    for bad in [data, blob_key(&fixture.layer, "_")] {
        let faulty = without(&store, &bad);
        let registry = Registry::open(faulty.clone(), Settings::default()).await.unwrap();
        let mut mended = Vec::new();
        let repair = deep(faulty).repair(registry);
        repair
            .run(|news| {
                if let News::Mended(mend) = news {
                    mended.push(mend.clone());
                }
            })
            .await
            .unwrap();
        assert!(mended.iter().all(|mend| mend.is_whole), "{bad}: {mended:?}");
        assert_eq!(read(store.as_ref(), &holder).await, before, "{bad}");
    }
    let registry = Registry::open(Arc::clone(&store), Settings::default()).await.unwrap();
    let summary = deep(Arc::clone(&store)).repair(registry).run(|_| {}).await.unwrap();
    assert_eq!((summary.findings, summary.mended), (0, 1));
    assert_eq!(report(store).await.0, Vec::<String>::new());
}
