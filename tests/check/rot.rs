//! What rots, is mended and is collected: nothing good goes with it, nothing is left of it, and the rest goes on.

use std::sync::{Arc, atomic::Ordering};

use marina_distribution::{
    oci::{Algorithm, Digest, Reference},
    registry::{
        Collector, Error, PageRequest, Registry, Settings,
        check::{Check, Share},
    },
    store::{
        Limits, Span, Store,
        memory::{MemoryStore, TINY_PARTS},
    },
};

use crate::{
    clock::Turned,
    fixture::{
        Damage::{Edit, Remove},
        INDEX, blob_key, body, create, damage, image, key, manifest_key, push, push_blob, read, repository, sha256,
        subject, tag,
    },
};

struct World {
    store: Arc<dyn Store>,
    clock: Arc<Turned>,
    registry: Arc<Registry>,
}

impl World {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits { min_part: 5000, part: 5000, ..TINY_PARTS }));
        let clock = Turned::new();
        let registry = Registry::open_with(Arc::clone(&store), settings, clock.clone()).await.unwrap();
        Self { store, clock, registry }
    }

    /// The two blobs of an image.
    async fn blobs(&self) -> (Digest, Digest) {
        let config = push_blob(&self.registry, "a", b"conf").await.unwrap();
        (config, push_blob(&self.registry, "a", b"layr").await.unwrap())
    }

    async fn days(&self, days: u64) {
        for _ in 0..days {
            self.clock.0.fetch_add(25 * 3600, Ordering::Relaxed);
            self.registry.settle().await;
            Collector::new(Arc::clone(&self.registry)).round().await.unwrap();
        }
    }

    async fn repair(&self) {
        let check = Check::new(Arc::clone(&self.store)).deep(Share::ALL, None).repair(Arc::clone(&self.registry));
        check.run(|_| ()).await.unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let entries = self.store.list("", None, 1000).await.unwrap();
        entries.into_iter().map(|entry| entry.key.to_string()).collect()
    }
}

/// An index with a field that is refused today, as a registry before that took it.
async fn index_of_old(world: &World) -> Digest {
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"blobs":[]}}"#);
    let digest = sha256(text.as_bytes());
    let head = format!(r#"{{"mediaType":"{INDEX}","size":{}}}"#, text.len());
    let register = format!("lAAAAAAAAAAAAAAAAAAAAAA\n{head}\n{{\"life\":\"x\"}}\n{text}");
    create(world.store.as_ref(), &manifest_key(&digest), &register).await;
    digest
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_would_not_be_taken_today_is_served_and_spared_and_keeps_no_other_waiting() {
    let world = World::new().await;
    let digest = index_of_old(&world).await;
    world.repair().await;
    world.registry.manifest(&repository("a"), &Reference::Digest(digest)).await.unwrap();
    push_blob(&world.registry, "a", b"garbage").await.unwrap();
    world.days(5).await;
    assert!(!world.keys().await.iter().any(|key| key.starts_with("data/")), "garbage waits for it");
    world.registry.manifest(&repository("a"), &Reference::Digest(digest)).await.unwrap();
    world.registry.delete_manifest(&repository("a"), &digest).await.unwrap();
    world.days(12).await;
    assert_eq!(world.keys().await, ["fleet/session-key"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_manifest_that_was_deleted_out_of_quarantine() {
    let world = World::new().await;
    let (config, layer) = world.blobs().await;
    let text = image(&config, &layer, "");
    let digest = push(&world.registry, "a", Reference::Digest(sha256(text.as_bytes())), &text).await.unwrap();
    world.days(3).await;
    damage(world.store.as_ref(), &Edit(manifest_key(&digest), "a/layer".into(), "b/layer".into())).await;
    world.repair().await;
    world.registry.delete_manifest(&repository("a"), &digest).await.unwrap();
    world.days(20).await;
    assert_eq!(world.keys().await, ["fleet/session-key"]);
    assert!(world.registry.catalog(&PageRequest::default()).await.unwrap().items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_say_its_bytes_any_more_goes_when_nothing_needs_it() {
    let world = World::new().await;
    let layer = push_blob(&world.registry, "a", b"layr").await.unwrap();
    let data = world.keys().await.into_iter().find(|key| key.starts_with("data/")).unwrap();
    damage(world.store.as_ref(), &Remove(data)).await;
    damage(world.store.as_ref(), &Edit(blob_key(&layer, "_"), "{".into(), "#".into())).await;
    world.repair().await;
    // Neither is a walk kept from anything by it.
    Collector::new(Arc::clone(&world.registry)).walk(&mut |_| {}).await.unwrap();
    world.registry.delete_blob(&repository("a"), &layer).await.unwrap();
    world.days(12).await;
    assert_eq!(world.keys().await, ["fleet/session-key"]);
}

#[tokio::test(start_paused = true)]
async fn a_walk_spares_bytes_that_only_a_holder_names() {
    let world = World::new().await;
    let (config, layer) = world.blobs().await;
    push(&world.registry, "a", tag("t"), &image(&config, &layer, "")).await.unwrap();
    world.days(3).await;
    let at = blob_key(&layer, "_");
    let text = read(world.store.as_ref(), &at).await;
    let data = text.split('"').find(|word| word.starts_with("data/")).unwrap().to_owned();
    let (rest, last) = data.split_at(data.len() - 1);
    let other = format!("{rest}{}", if last == "0" { '1' } else { '0' });
    damage(world.store.as_ref(), &Edit(at, data.clone(), other)).await;
    Collector::new(Arc::clone(&world.registry)).walk(&mut |_| {}).await.unwrap();
    assert!(world.store.head(&key(&data)).await.unwrap().is_some());
    world.repair().await;
    let blob = world.registry.stat_blob(&repository("a"), &layer).await.unwrap();
    world.registry.read_blob(&blob, Span::ALL).await.unwrap();
    assert!(read(world.store.as_ref(), &blob_key(&layer, "_")).await.contains(&data));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_keeps_nothing_else_from_being_put_back() {
    let world = World::new().await;
    let (config, layer) = world.blobs().await;
    let digest = push(&world.registry, "a", tag("t"), &image(&config, &layer, "")).await.unwrap();
    world.registry.delete_manifest(&repository("a"), &digest).await.unwrap();
    world.registry.settle().await;
    create(world.store.as_ref(), "dropped/a/ffff0000-0000-7000-8000-000000000000", "x").await;
    world.registry.restore_manifest(&repository("a"), &digest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_push_that_died_is_completed_also_where_what_it_lacked_came_with_another_size() {
    let world = World::with(Settings { allow_missing_references: true, ..Settings::default() }).await;
    let config = push_blob(&world.registry, "a", b"conf").await.unwrap();
    // Of five bytes, and the manifest says four.
    let (layer, of) = (sha256(b"layr5"), sha256(b"subject"));
    let text = image(&config, &layer, &subject(&of));
    let digest = push(&world.registry, "a", Reference::Digest(sha256(text.as_bytes())), &text).await.unwrap();
    world.registry.settle().await;
    let listed = |keys: Vec<String>| keys.into_iter().find(|key| key.starts_with("repos/a/_referrers/"));
    let entry = listed(world.keys().await).unwrap();
    damage(world.store.as_ref(), &Remove(entry.clone())).await;
    let pending = "pending/manifests/a/01900000-0000-7000-8000-000000000000";
    let text = format!(
        r#"{{"at":0,"repository":"a","digest":"{digest}","tags":[],"subject":"{of}","references":["{config}","{layer}"]}}"#
    );
    create(world.store.as_ref(), pending, &text).await;
    push_blob(&world.registry, "a", b"layr5").await.unwrap();
    world.days(1).await;
    let keys = world.keys().await;
    assert!(!keys.iter().any(|key| key == pending), "given up never");
    assert_eq!(listed(keys), Some(entry));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_says_fewer_bytes_than_it_has_is_refused() {
    let world = World::new().await;
    let id = world.registry.start_upload(&repository("a"), Algorithm::Sha256);
    world.registry.append(&repository("a"), id, body(b"0123456789")).await.unwrap();
    let at = world.keys().await.into_iter().find(|key| key.starts_with("uploads/")).unwrap();
    damage(world.store.as_ref(), &Edit(at, r#""offset":10"#.into(), r#""offset":5"#.into())).await;
    let other = Registry::open_with(world.store.clone(), Settings::default(), world.clock.clone()).await.unwrap();
    assert!(matches!(other.append(&repository("a"), id, body(b"abc")).await, Err(Error::Corrupt(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reference_in_flight_that_cannot_be_read_stops_collection_until_it_is_repaired_a_day_after_it_was_due() {
    let world = World::new().await;
    push_blob(&world.registry, "a", b"garbage").await.unwrap();
    let named = world.keys().await.into_iter().find(|key| key.starts_with("pending/")).unwrap();
    let (_, id) = named.split_once('.').unwrap();
    let at = format!("pending/manifests/a/{id}");
    create(world.store.as_ref(), &at, "x").await;
    world.repair().await;
    world.days(2).await;
    let keys = world.keys().await;
    assert!(keys.contains(&at) && keys.iter().any(|key| key.starts_with("data/")), "whoever wrote it may be at work");
    world.repair().await;
    world.days(8).await;
    assert_eq!(world.keys().await, ["fleet/session-key"]);
}
