//! `check` says what is wrong with a store, at the key where it is wrong, and nothing else: not of a store that is being
//! worked on, nor of one where somebody died half way.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../clock/mod.rs"]
mod clock;
mod deep;
mod fixture;
mod live;
mod refused;
mod repair;
mod rot;
mod strays;

use std::sync::Arc;

use marina_distribution::{
    oci::{Digest, Tag},
    registry::{
        Registry, Settings,
        check::{Invariant, Summary},
    },
    store::{fs::FsStore, memory::MemoryStore},
};

use self::fixture::{
    Damage::{self, Bury, Create, Edit, Remove},
    Fixture, IMAGE, INDEX, blob_key, create, damage, image, manifest_key, push, push_blob, read, report, repository,
    sha256, tag,
};

/// Damages a copy, and expects one line for each of these, in this order.
async fn expect(fixture: &Fixture, damages: &[Damage], expected: &[(Invariant, &str, String)]) {
    let store = fixture.copy().await;
    for each in damages {
        damage(store.as_ref(), each).await;
    }
    let line = |(invariant, at, reason): &(Invariant, &str, String)| format!("{invariant}  {at}  {reason}");
    assert_eq!(report(store).await.0, expected.iter().map(line).collect::<Vec<_>>());
}

/// Damages a copy in one place, and expects one line of that place.
async fn expect_at(fixture: &Fixture, done: Damage, invariant: Invariant, reason: impl Into<String>) {
    let (Remove(at) | Create(at, _) | Edit(at, ..) | Bury(at, _)) = &done;
    let at = at.clone();
    expect(fixture, &[done], &[(invariant, &at, reason.into())]).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_registry_made_is_clean_and_counted() {
    let fixture = Fixture::in_memory().await;
    let (lines, summary) = report(Arc::clone(&fixture.store)).await;
    assert_eq!(lines, Vec::<String>::new());
    let expected = Summary {
        repositories: 2,
        manifests: 4,
        tags: 4,
        blobs: 3,
        bytes: 70_008,
        hashed: 0,
        hashed_bytes: 0,
        open_uploads: 1,
        // One for each blob that was brought or mounted: they stay for the grace period.
        pending: 4,
        dropped: 0,
        findings: 0,
        strays: 0,
        mended: 0,
    };
    assert_eq!(summary, expected);
    assert_eq!(
        summary.to_string().lines().map(str::trim).collect::<Vec<_>>(),
        [
            "2 repositories",
            "4 manifests",
            "4 tags",
            "3 blobs of 70008 bytes",
            "1 open uploads",
            "4 references in flight",
            "0 references dropped",
            "0 findings",
        ]
    );
}

#[tokio::test]
async fn a_store_on_disk_is_clean_until_a_file_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(Arc::new(FsStore::open(directory.path()).unwrap())).await;
    assert_eq!(report(Arc::clone(&fixture.store)).await.0, Vec::<String>::new());
    let data = fixture.data(&fixture.layer).await;
    std::fs::remove_file(directory.path().join(&data)).unwrap();
    let reason = format!("says that its bytes are at {data}, and nothing is there");
    let line = format!("I2  {}  {reason}", blob_key(&fixture.layer, "_"));
    assert_eq!(report(Arc::clone(&fixture.store)).await.0, [line]);
}

#[tokio::test(start_paused = true)]
async fn what_clients_deleted_is_not_missed() {
    let fixture = Fixture::in_memory().await;
    let registry = Registry::open(Arc::clone(&fixture.store), Settings::default()).await.unwrap();
    let name = repository("a");
    registry.delete_blob(&name, &fixture.layer).await.unwrap();
    registry.delete_manifest(&name, &fixture.image).await.unwrap();
    registry.delete_manifest(&name, &fixture.signature).await.unwrap();
    registry.delete_tag(&name, &Tag::parse("multi").unwrap()).await.unwrap();
    let (lines, summary) = report(Arc::clone(&fixture.store)).await;
    assert_eq!(lines, Vec::<String>::new());
    assert_eq!((summary.manifests, summary.tags, summary.dropped), (2, 1, 4));
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_not_ours_are_named() {
    let fixture = Fixture::in_memory().await;
    for at in ["stray", "data/00/x", "repos/a/_tags/x/y", "blobs/sha256/00/x/_", "catalog/A", "pending/x"] {
        let done = Create(at.into(), "x".into());
        expect_at(&fixture, done, Invariant::Key, "is not a key of this registry").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_named_once_whatever_relies_on_it() {
    let fixture = Fixture::in_memory().await;
    let session = format!("uploads/{}/", fixture.open);
    let first = |prefix: &str| {
        let (store, prefix) = (Arc::clone(&fixture.store), prefix.to_owned());
        async move { store.list(&prefix, None, 1).await.unwrap().remove(0).key.to_string() }
    };
    for at in [
        blob_key(&fixture.config, "_"),
        blob_key(&fixture.config, "a"),
        manifest_key(&fixture.image),
        fixture.entry(),
        "repos/a/_tags/latest".into(),
        "catalog/a".into(),
        "catalog/b!c.d".into(),
    ] {
        let edit = |from: &str, to: &str| Edit(at.clone(), from.into(), to.into());
        expect_at(&fixture, edit("l", ""), Invariant::Object, "has no nonce").await;
        expect_at(&fixture, edit("l", "x"), Invariant::Object, "is in no known state").await;
        expect_at(&fixture, edit("l", "g"), Invariant::Object, "is gone and has a value").await;
        expect_at(&fixture, edit("{", ""), Invariant::Object, "has no readable value").await;
    }
    for prefix in ["pending/sha256/", "pending/"] {
        let done = Edit(first(prefix).await, "{".into(), String::new());
        expect_at(&fixture, done, Invariant::Object, "is no readable entry").await;
    }
    let done = Edit(first(&session).await, "{".into(), String::new());
    expect_at(&fixture, done, Invariant::Object, "is no readable record of a journal").await;
    let id = "0b3a2bd5-4d63-4f0b-8d6a-5d1f0f7b7a11";
    for at in [format!("dropped/a/{id}"), format!("pending/manifests/a/{id}")] {
        expect_at(&fixture, Create(at, "x".into()), Invariant::Object, "is no readable entry").await;
    }
    let done = Create(format!("uploads/{}/!end", fixture.open), "l".into());
    expect_at(&fixture, done, Invariant::Object, "has no nonce").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_of_something_else_than_its_key_says_is_named() {
    let fixture = Fixture::in_memory().await;
    let pending = fixture.store.list("pending/sha256/", None, 1).await.unwrap().remove(0).key.to_string();
    let digest = read(fixture.store.as_ref(), &pending).await;
    let digest = digest.split('"').find(|text| text.starts_with("sha256:")).unwrap().to_owned();
    let reason = "is of something else than its key says";
    expect_at(&fixture, Edit(pending, digest, sha256(b"").to_string()), Invariant::Object, reason).await;
    let done = Edit("catalog/a".into(), r#""a""#.into(), r#""b""#.into());
    expect_at(&fixture, done, Invariant::Object, "names another repository than its key").await;
    let at = manifest_key(&fixture.index);
    let text = read(fixture.store.as_ref(), &at).await.replacen(r#""schemaVersion":2"#, r#""schemaVersion":3"#, 1);
    let reason = format!("has bytes whose digest is {}", sha256(text.splitn(4, '\n').last().unwrap().as_bytes()));
    let done = Edit(at.clone(), r#""schemaVersion":2"#.into(), r#""schemaVersion":3"#.into());
    expect_at(&fixture, done, Invariant::Object, reason).await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_outside_the_catalog_is_named() {
    let fixture = Fixture::in_memory().await;
    let text = image(&fixture.config, &fixture.layer, "");
    let at = format!("repos/b-c/d/_manifests/sha256/{}", sha256(text.as_bytes()).hex());
    let reason = "is in a repository that is not in the catalog".to_owned();
    for done in [Remove("catalog/b!c.d".into()), Bury("catalog/b!c.d".into(), 'g')] {
        expect(&fixture, &[done], &[(Invariant::Catalog, &at, reason.clone())]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn i1_content_that_a_manifest_names_and_nobody_deleted_is_missed() {
    let fixture = Fixture::in_memory().await;
    let holder = blob_key(&fixture.layer, "a");
    let reason = format!("names {}, which its repository does not hold", fixture.layer);
    let mut named = [manifest_key(&fixture.image), manifest_key(&fixture.signature)];
    named.sort();
    let expected = [&named[0], &named[1]].map(|at| (Invariant::I1, at.as_str(), reason.clone()));
    for done in [Remove(holder.clone()), Bury(holder.clone(), 'g')] {
        expect(&fixture, &[done], &expected).await;
    }
    expect(&fixture, &[Bury(holder, 'd')], &[]).await;

    let child = manifest_key(&fixture.image);
    let tags = || ["latest", "v1"].map(|tag| Remove(format!("repos/a/_tags/{tag}")));
    let reason = format!("names {}, which its repository does not hold", fixture.image);
    let index = manifest_key(&fixture.index);
    for done in [Remove(child.clone()), Bury(child.clone(), 'g')] {
        let [one, two] = tags();
        expect(&fixture, &[one, two, done], &[(Invariant::I1, &index, reason.clone())]).await;
    }
    let [one, two] = tags();
    expect(&fixture, &[one, two, Bury(child, 'd')], &[]).await;
}

#[tokio::test(start_paused = true)]
async fn i2_a_holder_has_its_record_and_a_record_its_bytes() {
    let fixture = Fixture::in_memory().await;
    let (record, holder) = (blob_key(&fixture.large, "_"), blob_key(&fixture.large, "a"));
    for done in [Remove(record.clone()), Bury(record.clone(), 'g'), Bury(record.clone(), 'd')] {
        expect(&fixture, &[done], &[(Invariant::I2, &holder, "holds a blob that has no record".into())]).await;
    }
    let reason = "says another size or place than the record";
    expect_at(&fixture, Edit(holder.clone(), ":70000".into(), ":70001".into()), Invariant::I2, reason).await;
    let (data, other) = (fixture.data(&fixture.large).await, fixture.data(&fixture.config).await);
    expect_at(&fixture, Edit(holder.clone(), data.clone(), other), Invariant::I2, reason).await;

    let longer = [&record, &holder].map(|at| Edit(at.clone(), ":70000".into(), ":70001".into()));
    let reason = format!("says that {data} has 70001 bytes, and it has 70000");
    expect(&fixture, &longer, &[(Invariant::I2, &record, reason)]).await;
    let reason = format!("says that its bytes are at {data}, and nothing is there");
    expect(&fixture, &[Remove(data.clone())], &[(Invariant::I2, &record, reason)]).await;
    for place in ["repos/a/_tags/latest", "no key"] {
        let moved = [&record, &holder].map(|at| Edit(at.clone(), data.clone(), place.into()));
        let reason = "names no place where bytes could be".to_owned();
        expect(&fixture, &moved, &[(Invariant::I2, &record, reason)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn i3_a_tag_has_its_manifest_which_names_the_tag() {
    let fixture = Fixture::in_memory().await;
    let manifest = manifest_key(&fixture.index);
    let reason = format!("points to {}, which is not there", fixture.index);
    for done in [Remove(manifest.clone()), Bury(manifest.clone(), 'g'), Bury(manifest.clone(), 'd')] {
        expect(&fixture, &[done], &[(Invariant::I3, "repos/a/_tags/multi", reason.clone())]).await;
    }
    let reason = format!("points to {}, whose header does not name the tag", fixture.index);
    let unnamed = Edit(manifest.clone(), r#""tags":["multi"]"#.into(), r#""tags":["other"]"#.into());
    expect(&fixture, &[unnamed], &[(Invariant::I3, "repos/a/_tags/multi", reason)]).await;
    let more = Edit(manifest, r#""tags":["multi"]"#.into(), r#""moreTags":true"#.into());
    expect(&fixture, &[more], &[]).await;
    let reason = format!("says another type or size of {} than that does", fixture.index);
    for (from, to) in [(r#""size":"#, r#""size":1"#), (INDEX, IMAGE)] {
        let done = Edit("repos/a/_tags/multi".into(), from.into(), to.into());
        expect_at(&fixture, done, Invariant::I3, reason.clone()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_referrer_entry_has_its_manifest_and_the_manifest_its_entry() {
    let fixture = Fixture::in_memory().await;
    let (entry, manifest) = (fixture.entry(), manifest_key(&fixture.signature));
    for done in [Remove(manifest.clone()), Bury(manifest.clone(), 'g'), Bury(manifest.clone(), 'd')] {
        expect(&fixture, &[done], &[(Invariant::I4, &entry, "lists a manifest that is not there".into())]).await;
    }
    let reason = "describes its manifest otherwise than it is";
    for (from, to) in [(r#""size":"#, r#""size":1"#), (IMAGE, INDEX), ("a/config", "a/other")] {
        expect_at(&fixture, Edit(entry.clone(), from.into(), to.into()), Invariant::I4, reason).await;
    }
    let reason = format!("is not among the referrers of {}", fixture.image);
    for done in [Remove(entry.clone()), Bury(entry.clone(), 'g')] {
        expect(&fixture, &[done], &[(Invariant::I4, &manifest, reason.clone())]).await;
    }
    // A delete takes the entry first: this is one that stopped there.
    expect(&fixture, &[Bury(entry.clone(), 'd')], &[]).await;

    let silent = Edit(manifest.clone(), format!(r#","subject":"{}"}}"#, fixture.image), "}".into());
    let mut expected = [
        (Invariant::I4, manifest.as_str(), format!("has the subject {}, which its header does not say", fixture.image)),
        (Invariant::I4, entry.as_str(), "lists a manifest whose header says another subject".to_owned()),
    ];
    expected.sort_by_key(|(_, at, _)| *at);
    expect(&fixture, &[silent], &expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_push_that_stopped_after_its_manifest_is_no_finding_while_its_reference_stands() {
    let fixture = Fixture::in_memory().await;
    let pending = |digest: &Digest| {
        let at = "pending/manifests/a/0b3a2bd5-4d63-4f0b-8d6a-5d1f0f7b7a11";
        let subject = fixture.image;
        let json = format!(
            r#"{{"at":1,"repository":"a","digest":"{digest}","tags":[],"subject":"{subject}","references":[]}}"#
        );
        Create(at.to_owned(), json)
    };
    expect(&fixture, &[Remove(fixture.entry()), pending(&fixture.signature)], &[]).await;
    let reason = format!("is not among the referrers of {}", fixture.image);
    let at = manifest_key(&fixture.signature);
    let done = [Remove(fixture.entry()), pending(&fixture.index)];
    expect(&fixture, &done, &[(Invariant::I4, &at, reason)]).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_a_page_of_keys_is_checked_to_the_end() {
    let store = Arc::new(MemoryStore::default());
    let registry = Registry::open(store.clone(), Settings::default()).await.unwrap();
    let text = image(&sha256(b"conf"), &sha256(b"layr"), "");
    push_blob(&registry, "a", b"conf").await.unwrap();
    push_blob(&registry, "a", b"layr").await.unwrap();
    for n in 0..1100 {
        push(&registry, "a", tag(&format!("t{n:04}")), &text).await.unwrap();
    }
    registry.settle().await;
    create(store.as_ref(), "zzz", "").await;
    let (lines, summary) = report(store).await;
    assert_eq!(lines, ["key  zzz  is not a key of this registry"]);
    assert_eq!(summary.tags, 1100);
}
