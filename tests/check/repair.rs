//! Mending: what can be told is whole again, what is damaged is out of the way, and the next push heals it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use marina_distribution::{
    oci::{Digest, Reference, Tag},
    registry::{
        Collector, Error, PageRequest, Registry, Settings,
        check::{Check, News, Share, Summary},
    },
    store::{
        Condition, Span, Store, Verb,
        faulty::{Call, Fault, Faulty},
        fs::FsStore,
    },
};

use crate::fixture::{
    Damage::{self, Bury, Edit, Remove},
    Fixture, blob_key, create, damage, image, key, manifest_key, push, push_blob, read, report, repository, sha256,
    subject, tag,
};

async fn open(store: &Arc<dyn Store>) -> Arc<Registry> {
    Registry::open(Arc::clone(store), Settings::default()).await.unwrap()
}

/// Repairs a store, and tells what was done; then checks it.
async fn repair(store: &Arc<dyn Store>) -> (Vec<String>, Summary) {
    repair_by(Check::new(Arc::clone(store)).deep(Share::ALL, None).repair(open(store).await)).await
}

async fn repair_by(check: Check) -> (Vec<String>, Summary) {
    let mut done = Vec::new();
    let summary = check
        .run(|news| match news {
            News::Mended(mend) => done.push(format!("{} {}", mend.key, mend.what)),
            News::Finding(_) | News::UpTo(..) => {}
        })
        .await
        .unwrap();
    (done, summary)
}

async fn check(store: &Arc<dyn Store>) -> Vec<String> {
    crate::fixture::told_by(Check::new(Arc::clone(store)).deep(Share::ALL, None)).await.0
}

/// Damages a copy, and expects that a repair leaves nothing to be found.
async fn is_mended(fixture: &Fixture, damages: &[Damage]) {
    let store = fixture.copy().await;
    for each in damages {
        damage(store.as_ref(), each).await;
    }
    let before = check(&store).await;
    assert!(!before.is_empty());
    let (done, summary) = repair(&store).await;
    assert_eq!((summary.findings, summary.strays), (0, 0), "{before:#?} {done:#?}");
    assert_eq!(check(&store).await, Vec::<String>::new(), "{before:#?} {done:#?}");
    assert!(!done.is_empty() && summary.mended > 0);
    serves(fixture, &store).await;
}

/// Everything that was pushed is there, byte for byte.
async fn serves(fixture: &Fixture, store: &Arc<dyn Store>) {
    let registry = open(store).await;
    let name = repository("a");
    for (name, digest) in [("a", fixture.config), ("a", fixture.layer), ("a", fixture.large), ("b-c/d", fixture.config)]
    {
        assert_eq!(get(&registry, name, &digest).await.map(|bytes| sha256(&bytes)).ok(), Some(digest));
    }
    for digest in [fixture.image, fixture.index, fixture.signature] {
        let found = registry.manifest(&name, &Reference::Digest(digest)).await.unwrap();
        assert_eq!(sha256(&found.1), digest);
    }
    let referrers = registry.referrers(&name, &fixture.image, &[], &PageRequest::default()).await.unwrap();
    assert_eq!(referrers.items.len(), 1);
    let latest = registry.manifest(&name, &tag("latest")).await.unwrap().0;
    assert_eq!(latest.digest, fixture.image);
}

async fn get(registry: &Registry, name: &str, digest: &Digest) -> Result<Vec<u8>, Error> {
    let blob = registry.find_blob(&repository(name), digest).await?;
    let mut stream = registry.read_blob(&blob, Span::ALL).await?.into_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

#[tokio::test(start_paused = true)]
async fn what_follows_from_something_else_is_written_anew() {
    let fixture = Fixture::in_memory().await;
    let record = blob_key(&fixture.config, "_");
    let edit = |at: &str, from: &str, to: &str| Edit(at.to_owned(), from.to_owned(), to.to_owned());
    // Records and holders from each other, and from the bytes.
    is_mended(&fixture, &[Remove(record.clone())]).await;
    is_mended(&fixture, &[Bury(record.clone(), 'g')]).await;
    is_mended(&fixture, &[edit(&record, "l", "x")]).await;
    is_mended(&fixture, &[edit(&record, "{\"size\":4", "{\"size\":5")]).await;
    is_mended(&fixture, &[edit(&record, "data/", "dada/")]).await;
    is_mended(&fixture, &[Remove(blob_key(&fixture.config, "a"))]).await;
    is_mended(&fixture, &[edit(&blob_key(&fixture.config, "a"), "{", "")]).await;
    is_mended(&fixture, &[edit(&blob_key(&fixture.config, "b!c.d"), "4", "5"), edit(&record, "{", "")]).await;
    // The catalog, the list of referrers, and the headers of manifests.
    is_mended(&fixture, &[Remove("catalog/a".to_owned()), edit("catalog/b!c.d", "l", "q")]).await;
    is_mended(&fixture, &[Remove(fixture.entry())]).await;
    is_mended(&fixture, &[edit(&fixture.entry(), "{", "")]).await;
    is_mended(&fixture, &[edit(&fixture.entry(), "a/config", "b/config")]).await;
    is_mended(&fixture, &[edit(&manifest_key(&fixture.image), "\"latest\"", "\"earliest\"")]).await;
    is_mended(&fixture, &[edit("repos/a/_tags/latest", "\"size\":", "\"size\":1")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stray_is_left_to_the_collector() {
    let fixture = Fixture::in_memory().await;
    for entry in fixture.store.list("pending/", None, usize::MAX).await.unwrap() {
        fixture.store.delete(&entry.key).await.unwrap();
    }
    let record = r#"{"size":1,"data":"data/00/0b3a2bd5-4d63-4f0b-8d6a-5d1f0f7b7a00"}"#;
    create(fixture.store.as_ref(), "data/00/0b3a2bd5-4d63-4f0b-8d6a-5d1f0f7b7a00", "x").await;
    create(fixture.store.as_ref(), &blob_key(&sha256(b"x"), "_"), &format!("lAAAAAAAAAAAAAAAAAAAAAA\n{record}")).await;
    let (done, summary) = repair(&fixture.store).await;
    assert_eq!((summary.findings, summary.strays, summary.mended, done.len()), (0, 0, 2, 2), "{done:?}");
    assert_eq!(check(&fixture.store).await, Vec::<String>::new());
    let done = Collector::new(open(&fixture.store).await).round().await.unwrap();
    assert_eq!((done.condemned, done.blobs), (1, 1));
}

/// Damages the bytes of a blob in some way: what a client gets before the repair, after it, and after he pushed it again.
async fn is_healed(fixture: &Fixture, done: &Damage) {
    let store = fixture.copy().await;
    damage(store.as_ref(), done).await;
    let registry = open(&store).await;
    let (_, summary) = repair(&store).await;
    assert!(summary.findings > 0);
    // Nobody is told that it is there, so the next push brings it.
    for name in ["a", "b-c/d"] {
        let name = repository(name);
        assert!(matches!(registry.stat_blob(&name, &fixture.config).await, Err(Error::BlobUnknown(_))));
        assert!(matches!(registry.find_blob(&name, &fixture.config).await, Err(Error::BlobUnknown(_))));
        assert!(!registry.mount(&repository("c"), &fixture.config, Some(&name)).await.unwrap());
    }
    // The rest goes on serving, and another repair changes nothing.
    assert_eq!(get(&registry, "a", &fixture.layer).await.unwrap(), b"layr");
    assert_eq!(repair(&store).await.0, Vec::<String>::new());
    assert_eq!(push_blob(&registry, "a", b"conf").await.unwrap(), fixture.config);
    registry.settle().await;
    assert_eq!(get(&registry, "a", &fixture.config).await.unwrap(), b"conf");
    // What another repository had is brought back without its client.
    let (done, summary) = repair(&store).await;
    assert_eq!(summary.findings, 0, "{done:#?}");
    assert_eq!(check(&store).await, Vec::<String>::new());
    serves(fixture, &store).await;
}

#[tokio::test(start_paused = true)]
async fn damaged_bytes_are_put_in_quarantine_until_they_are_pushed_again() {
    let fixture = Fixture::in_memory().await;
    let data = fixture.data(&fixture.config).await;
    is_healed(&fixture, &Edit(data.clone(), "conf".into(), "cong".into())).await;
    is_healed(&fixture, &Edit(data.clone(), "conf".into(), "con".into())).await;
    is_healed(&fixture, &Remove(data)).await;
}

#[tokio::test]
async fn on_disk_too() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FsStore::open(directory.path()).unwrap());
    let fixture = Fixture::new(Arc::clone(&store)).await;
    let file = directory.path().join(fixture.data(&fixture.layer).await);
    std::fs::write(&file, b"lazr").unwrap();
    let registry = open(&store).await;
    assert!(repair(&store).await.1.findings > 0);
    assert!(matches!(registry.stat_blob(&repository("a"), &fixture.layer).await, Err(Error::BlobUnknown(_))));
    assert_eq!(std::fs::read(&file).unwrap(), b"lazr", "what is damaged is kept");
    // Whoever has a copy of the file may put it back instead.
    std::fs::write(&file, b"layr").unwrap();
    assert_eq!(repair(&store).await.1.findings, 0);
    serves(&fixture, &store).await;
    assert_eq!(check(&store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn bytes_in_quarantine_go_once_the_blob_has_been_pushed_again_and_not_before() {
    let fixture = Fixture::in_memory().await;
    let data = fixture.data(&fixture.config).await;
    damage(fixture.store.as_ref(), &Edit(data.clone(), "conf".into(), "cong".into())).await;
    repair(&fixture.store).await;
    let years = collector_in_years(&fixture.store).await;
    for _ in 0..3 {
        years.round().await.unwrap();
    }
    years.walk(&mut |_| {}).await.unwrap();
    assert_eq!(read(fixture.store.as_ref(), &data).await, "cong");
    let registry = open(&fixture.store).await;
    push_blob(&registry, "a", b"conf").await.unwrap();
    registry.settle().await;
    for _ in 0..3 {
        years.round().await.unwrap();
    }
    assert_eq!(fixture.store.head(&key(&data)).await.unwrap(), None);
    assert_eq!(get(&registry, "a", &fixture.config).await.unwrap(), b"conf");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_manifest_or_tag_is_absent_until_it_is_pushed_again_and_keeps_what_it_named() {
    let fixture = Fixture::in_memory().await;
    let text = image(&fixture.config, &fixture.layer, &subject(&fixture.image));
    let at = manifest_key(&fixture.signature);
    for (from, to) in [("a/layer", "b/layer"), ("l", "x"), ("\"mediaType\":\"", "\"mediaType\":\"x")] {
        let store = fixture.copy().await;
        damage(store.as_ref(), &Edit(at.clone(), from.into(), to.into())).await;
        let registry = open(&store).await;
        let name = repository("a");
        assert!(repair(&store).await.1.findings > 0, "{from}");
        let signature = Reference::Digest(fixture.signature);
        assert!(matches!(registry.manifest(&name, &signature).await, Err(Error::ManifestUnknown)));
        assert!(matches!(registry.head_manifest(&name, &signature).await, Err(Error::ManifestUnknown)));
        push(&registry, "a", signature, &text).await.unwrap();
        registry.settle().await;
        assert_eq!(check(&store).await, Vec::<String>::new());
        serves(&fixture, &store).await;
    }
    // What the others name as well is not needed by it alone.
    let registry = open(&fixture.store).await;
    damage(fixture.store.as_ref(), &Edit(manifest_key(&fixture.image), "l".into(), "x".into())).await;
    damage(fixture.store.as_ref(), &Edit("repos/a/_tags/v1".into(), "l".into(), "x".into())).await;
    let (_, summary) = repair(&fixture.store).await;
    // The manifest, its tag, and the index that names it; the referrer's subject may be absent.
    assert_eq!(summary.findings, 4);
    for reference in ["latest", "v1"] {
        assert!(matches!(registry.manifest(&repository("a"), &tag(reference)).await, Err(Error::ManifestUnknown)));
    }
    registry.delete_manifest(&repository("a"), &fixture.signature).await.unwrap();
    let years = collector_in_years(&fixture.store).await;
    for _ in 0..3 {
        years.round().await.unwrap();
    }
    assert_eq!(get(&registry, "a", &fixture.layer).await.unwrap(), b"layr");
    push(&registry, "a", tag("v1"), &image(&fixture.config, &fixture.layer, "")).await.unwrap();
    registry.settle().await;
    let (_, summary) = repair(&fixture.store).await;
    assert_eq!(summary.findings, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_quarantine_can_be_given_up() {
    let fixture = Fixture::in_memory().await;
    let (registry, name) = (open(&fixture.store).await, repository("a"));
    let data = fixture.data(&fixture.large).await;
    damage(fixture.store.as_ref(), &Remove(data)).await;
    damage(fixture.store.as_ref(), &Edit(manifest_key(&fixture.index), "l".into(), "x".into())).await;
    repair(&fixture.store).await;
    registry.delete_blob(&name, &fixture.large).await.unwrap();
    registry.delete_manifest(&name, &fixture.index).await.unwrap();
    registry.delete_tag(&name, &Tag::parse("multi").unwrap()).await.unwrap();
    let years = collector_in_years(&fixture.store).await;
    for _ in 0..3 {
        years.round().await.unwrap();
    }
    assert_eq!(check(&fixture.store).await, Vec::<String>::new());
    assert!(!fixture.store.list(&blob_key(&fixture.large, "_"), None, 1).await.unwrap().iter().any(|e| e.size > 32));
}

#[tokio::test(start_paused = true)]
async fn what_only_a_client_can_bring_is_said_and_left() {
    let fixture = Fixture::in_memory().await;
    damage(fixture.store.as_ref(), &Remove(manifest_key(&fixture.index))).await;
    let tag = read(fixture.store.as_ref(), "repos/a/_tags/multi").await;
    let (done, summary) = repair(&fixture.store).await;
    assert_eq!((done, summary.findings), (vec![], 1));
    assert_eq!(read(fixture.store.as_ref(), "repos/a/_tags/multi").await, tag);
    // The same bytes under the same name: nothing was invented.
    let found = fixture.store.read(&key("fleet/session-key")).await.unwrap().unwrap();
    let short = Condition::Replace(found.version);
    fixture.store.put(&key("fleet/session-key"), Bytes::from_static(b"short"), short).await.unwrap();
    assert_eq!(check(&fixture.store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_mended_of_a_manifest_excuses_nothing_that_it_lost() {
    let fixture = Fixture::in_memory().await;
    damage(fixture.store.as_ref(), &Remove(fixture.entry())).await;
    damage(fixture.store.as_ref(), &Remove(fixture.data(&fixture.layer).await)).await;
    repair(&fixture.store).await;
    let lost = format!("names {}, which its repository does not hold", fixture.layer);
    let (lines, entry) = (check(&fixture.store).await, fixture.entry());
    assert_eq!(lines.iter().filter(|line| line.ends_with(&lost)).count(), 2, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("referrers")), "{entry} is back: {lines:#?}");
}

async fn collector_in_years(store: &Arc<dyn Store>) -> Collector {
    let clock = Arc::new(crate::live::DaysAhead);
    Collector::new(Registry::open_with(Arc::clone(store), Settings::default(), clock).await.unwrap())
}

/// What a shallow check sees: of the config the bytes are cut, of the layer the record is gone, and more.
async fn damaged(fixture: &Fixture) -> Arc<dyn Store> {
    let store = fixture.copy().await;
    for each in [
        Edit(fixture.data(&fixture.config).await, "conf".into(), "con".into()),
        Remove(blob_key(&fixture.layer, "_")),
        Edit(blob_key(&fixture.large, "a"), "l".into(), "x".into()),
        Edit(manifest_key(&fixture.signature), "l".into(), "x".into()),
        Remove("catalog/a".to_owned()),
    ] {
        damage(store.as_ref(), &each).await;
    }
    store
}

/// A repair of a damaged copy in which this goes wrong; the calls it made.
async fn troubled(
    fixture: &Fixture,
    trouble: impl Fn(usize) -> Fault + Send + Sync + 'static,
) -> (Arc<dyn Store>, Vec<Call>) {
    let store = damaged(fixture).await;
    let faulty = Arc::new(Faulty::new(Arc::clone(&store), move |call| trouble(call.index)));
    let registry = open(&store).await.beside(|_| faulty.clone());
    // It may fail: the next goes on.
    drop(Check::new(faulty.clone()).repair(registry).run(|_| {}).await);
    (store, faulty.calls())
}

#[tokio::test(start_paused = true)]
async fn wherever_a_repair_dies_or_loses_a_reply_another_finishes_it() {
    let fixture = Fixture::in_memory().await;
    let signature = image(&fixture.config, &fixture.layer, &subject(&fixture.image));
    // To die before a read is to die before the next write.
    let (_, calls) = troubled(&fixture, |_| Fault::None).await;
    let writes = calls.iter().filter(|call| matches!(call.verb, Verb::Put | Verb::Delete)).map(|call| call.index);
    let writes: Vec<_> = writes.collect();
    assert!(writes.len() > 8, "{calls:?}");
    for (at, dies) in writes.iter().flat_map(|&at| [(at, true), (at, false)]) {
        let (store, _) = troubled(&fixture, move |index| match index {
            _ if dies && index >= at => Fault::NotApplied,
            _ if index == at => Fault::ReplyLost,
            _ => Fault::None,
        })
        .await;
        let registry = open(&store).await;
        let repair = Check::new(Arc::clone(&store)).repair(Arc::clone(&registry));
        repair_by(repair.clone()).await;
        push_blob(&registry, "a", b"conf").await.unwrap();
        push(&registry, "a", Reference::Digest(fixture.signature), &signature).await.unwrap();
        registry.settle().await;
        repair_by(repair).await;
        assert_eq!(report(Arc::clone(&store)).await.0, Vec::<String>::new(), "call {at}, dies: {dies}");
        serves(&fixture, &store).await;
    }
}
