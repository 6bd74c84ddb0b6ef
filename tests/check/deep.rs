//! Bytes that are not what their digest says.

use std::{num::NonZeroU64, path::Path, sync::Arc};

use marina_distribution::{
    registry::check::{Check, News, Share},
    store::{Key, Store, fs::FsStore},
};

use crate::fixture::{Damage::Edit, Fixture, blob_key, damage, sha256, told_by};

fn deep(store: &Arc<dyn Store>) -> Check {
    Check::new(Arc::clone(store)).deep(Share::ALL, None)
}

#[tokio::test]
async fn a_flipped_bit_is_found_by_who_reads_the_bytes_and_only_by_him() {
    let fixture = Fixture::in_memory().await;
    let data = fixture.data(&fixture.layer).await;
    damage(fixture.store.as_ref(), &Edit(data.clone(), "layr".into(), "lazr".into())).await;
    let (lines, summary) = told_by(Check::new(Arc::clone(&fixture.store))).await;
    assert_eq!((lines, summary.hashed), (vec![], 0));
    let (lines, summary) = told_by(deep(&fixture.store)).await;
    let reason = format!("says that its bytes are at {data}, whose digest is {}", sha256(b"lazr"));
    assert_eq!(lines, [format!("I2  {}  {reason}", blob_key(&fixture.layer, "_"))]);
    assert_eq!((summary.hashed, summary.hashed_bytes), (3, 70_008));
    assert!(summary.to_string().contains("\n       3 of them hashed, of 70008 bytes\n"));
    // What is lost was not hashed.
    fixture.store.delete(&Key::parse(data).unwrap()).await.unwrap();
    let (_, summary) = told_by(deep(&fixture.store)).await;
    assert_eq!((summary.hashed, summary.hashed_bytes), (2, 70_004));
}

/// Flips a bit of a file, or cuts its last byte off.
fn harm(file: &Path, cut: bool) {
    let mut bytes = std::fs::read(file).unwrap();
    if cut {
        bytes.pop();
    } else {
        *bytes.last_mut().unwrap() ^= 1;
    }
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn on_disk_too_whether_the_bytes_came_whole_or_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(Arc::new(FsStore::open(directory.path()).unwrap())).await;
    assert_eq!(told_by(deep(&fixture.store)).await.0, Vec::<String>::new());
    for (digest, cut, reason) in [
        (fixture.config, true, "has 4 bytes, and it has 3"),
        (fixture.layer, false, "whose digest is sha256:"),
        (fixture.large, false, "whose digest is sha256:"),
    ] {
        harm(&directory.path().join(fixture.data(&digest).await), cut);
        let (lines, _) = told_by(deep(&fixture.store)).await;
        let of = blob_key(&digest, "_");
        assert!(lines.iter().any(|line| line.contains(&of) && line.contains(reason)), "{of} {reason}: {lines:#?}");
    }
}

#[tokio::test]
async fn shares_in_turn_read_every_blob_once() {
    let fixture = Fixture::in_memory().await;
    let mut hashed = 0;
    for share in ["1/4", "2/4", "3/4", "4/4"] {
        let check = Check::new(Arc::clone(&fixture.store)).deep(Share::parse(share).unwrap(), None);
        let (lines, summary) = told_by(check).await;
        assert_eq!((lines, summary.blobs), (vec![], 3));
        hashed += summary.hashed;
    }
    assert_eq!(hashed, 3);
}

#[tokio::test]
async fn a_check_goes_on_behind_the_key_that_an_earlier_one_came_to() {
    let fixture = Fixture::in_memory().await;
    let record = Key::parse(blob_key(&fixture.layer, "_")).unwrap();
    let check = Check::new(Arc::clone(&fixture.store)).deep(Share::ALL, NonZeroU64::new(1 << 30));
    let behind = check.after(record).await.unwrap().unwrap();
    let mut keys = Vec::new();
    let summary = behind.run(|news| {
        if let News::UpTo(key, _) = news {
            keys.push(key.clone());
        }
    });
    let summary = summary.await.unwrap();
    let records = [fixture.config, fixture.layer, fixture.large].map(|digest| blob_key(&digest, "_"));
    let later = records.iter().filter(|key| **key > blob_key(&fixture.layer, "_")).count();
    assert_eq!((summary.hashed, summary.manifests), (later as u64, 4));
    let last = fixture.store.list("", None, usize::MAX).await.unwrap().pop().unwrap().key;
    assert_eq!(keys.last(), Some(&last));
}
