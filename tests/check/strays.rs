//! What nothing leads to.

use std::sync::Arc;

use bytes::Bytes;
use marina_distribution::{
    registry::{
        Registry, Settings,
        check::{Check, Share},
    },
    store::{Condition, Store},
};

use crate::fixture::{
    Damage::{Bury, Remove},
    Fixture, blob_key, create, damage, key, repository, told_by,
};

async fn strays(store: &Arc<dyn Store>) -> Vec<String> {
    let (lines, summary) = told_by(Check::new(Arc::clone(store)).deep(Share::ALL, None)).await;
    assert_eq!((summary.strays, summary.findings), (lines.len() as u64, 0), "{lines:#?}");
    lines
}

/// References in flight to a blob.
async fn forget(fixture: &Fixture, prefix: &str) {
    for entry in fixture.store.list(prefix, None, usize::MAX).await.unwrap() {
        fixture.store.delete(&entry.key).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_nothing_needs_is_a_stray_when_no_queue_leads_to_it() {
    let fixture = Fixture::in_memory().await;
    assert_eq!(strays(&fixture.store).await, Vec::<String>::new());
    forget(&fixture, "pending/").await;
    // All others are named by manifests.
    let reason = "is needed by no manifest, and no queue leads to it";
    assert_eq!(strays(&fixture.store).await, [format!("stray  {}  {reason}", blob_key(&fixture.large, "a"))]);
    let registry = Registry::open(Arc::clone(&fixture.store), Settings::default()).await.unwrap();
    registry.delete_manifest(&repository("a"), &fixture.signature).await.unwrap();
    registry.delete_manifest(&repository("a"), &fixture.image).await.unwrap();
    // What they named is led to by their deletes.
    assert_eq!(strays(&fixture.store).await.len(), 1);
    forget(&fixture, "dropped/").await;
    assert_eq!(strays(&fixture.store).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_record_without_holders_is_a_stray_when_no_queue_leads_to_it() {
    let fixture = Fixture::in_memory().await;
    damage(fixture.store.as_ref(), &Bury(blob_key(&fixture.large, "a"), 'g')).await;
    assert_eq!(strays(&fixture.store).await, Vec::<String>::new());
    forget(&fixture, "pending/").await;
    let reason = "is held by no repository, and no queue leads to it";
    assert_eq!(strays(&fixture.store).await, [format!("stray  {}  {reason}", blob_key(&fixture.large, "_"))]);
    let id = "0193a2bd-5d63-7f0b-8d6a-5d1f0f7b7a11";
    let entry = format!(r#"{{"at":1,"digests":["{}"]}}"#, fixture.large);
    create(fixture.store.as_ref(), &format!("gc/unheld/{id}"), &entry).await;
    assert_eq!(strays(&fixture.store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_no_record_names_are_strays_when_no_queue_leads_to_them() {
    let fixture = Fixture::in_memory().await;
    let attempt = "data/00/0b3a2bd5-4d63-4f0b-8d6a-5d1f0f7b7a00-0b3a2bd5-4d63-4f0b-8d6a-5d1f0f7b7a11";
    let session = format!("data/{}/{}", &fixture.open.to_string()[34..], fixture.open);
    for at in [attempt, &session] {
        fixture.store.put(&key(at), Bytes::from_static(b"stray"), Condition::Create).await.unwrap();
    }
    // The other is an open session's, which ends some day.
    let reason = "is named by no record, and no queue leads to it";
    let line = format!("stray  {attempt}  {reason}");
    assert_eq!(strays(&fixture.store).await, [line.as_str()]);
    forget(&fixture, "uploads/").await;
    assert_eq!(strays(&fixture.store).await.len(), 2);
    // A blob that lost its record is worse than a stray, and its bytes are none.
    damage(fixture.store.as_ref(), &Remove(blob_key(&fixture.layer, "_"))).await;
    forget(&fixture, "pending/").await;
    let (lines, summary) = told_by(Check::new(Arc::clone(&fixture.store)).deep(Share::ALL, None)).await;
    assert_eq!((summary.findings, summary.strays), (1, 3), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("stray") && line.contains(&fixture.layer.hex())));
}

#[tokio::test(start_paused = true)]
async fn of_what_cannot_be_read_nothing_is_held_to_be_a_stray() {
    let fixture = Fixture::in_memory().await;
    forget(&fixture, "pending/").await;
    let manifest = crate::fixture::manifest_key(&fixture.index);
    damage(fixture.store.as_ref(), &crate::fixture::Damage::Edit(manifest, "l".into(), "x".into())).await;
    let (_, summary) = told_by(Check::new(Arc::clone(&fixture.store)).deep(Share::ALL, None)).await;
    assert_eq!((summary.findings, summary.strays), (1, 0));
    let registry = Registry::open(Arc::clone(&fixture.store), Settings::default()).await.unwrap();
    let repair = Check::new(Arc::clone(&fixture.store)).repair(registry);
    assert!(repair.run(|_| {}).await.unwrap().findings > 0);
    let (lines, summary) = told_by(Check::new(Arc::clone(&fixture.store)).deep(Share::ALL, None)).await;
    assert_eq!(summary.strays, 0, "also not when it is in quarantine: {lines:#?}");
}
