use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use futures_util::TryStreamExt;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::{Body, contract::contract, memory::MemoryStore};

contract!(fixture(true));

/// As it is where files without a name do not work.
mod with_named_files {
    use super::*;

    contract!(fixture(false));
}

/// Where replacing a file moves its name to another place in the folder.
#[cfg(target_os = "linux")]
mod on_tmpfs {
    use super::*;

    contract!(fixture_in("/dev/shm", true));
}

fn fixture(unnamed: bool) -> (FsStore, TempDir) {
    fixture_in(std::env::temp_dir(), unnamed)
}

fn fixture_in(place: impl AsRef<Path>, unnamed: bool) -> (FsStore, TempDir) {
    let directory = TempDir::new_in(place).unwrap();
    let store = FsStore::open_with(directory.path(), unnamed).unwrap();
    assert_eq!(store.root.unnamed, unnamed);
    (store, directory)
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

async fn create(store: &FsStore, text: &str, bytes: &'static str) -> Version {
    match store.put(&key(text), bytes.into(), Condition::Create).await.unwrap() {
        Put::Stored(version) => version,
        Put::Lost => panic!("{text} is there already"),
    }
}

async fn content(store: &FsStore, text: &str) -> Option<Bytes> {
    store.read(&key(text)).await.unwrap().map(|there| there.bytes)
}

async fn put_part(store: &FsStore, upload: &Multipart, number: u32, bytes: &'static str, after: Option<&Part>) -> Part {
    match store.put_part(upload, number, bytes.into(), after).await.unwrap() {
        Placed::New(part) | Placed::Grown(part) => part,
    }
}

/// An object of two segments, "12345" and "678".
async fn of_two_segments(store: &FsStore, text: &str) {
    let upload = store.begin(&key(text)).await.unwrap();
    let parts = [put_part(store, &upload, 1, "12345", None).await, put_part(store, &upload, 2, "678", None).await];
    store.complete(&upload, &parts).await.unwrap();
}

/// Everything in a folder, by name.
fn ls(folder: impl Into<PathBuf>) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.into()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn every_folder_on_the_way_to_an_object_is_marked_durable() {
    let (store, directory) = fixture(true);
    // Somebody else made this one a moment ago, and has not synced it yet.
    fs::create_dir_all(directory.path().join("a/b")).unwrap();
    create(&store, "a/b/c/d", "1").await;
    for folder in ["a", "a/b", "a/b/c"] {
        let mode = fs::metadata(directory.path().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o1000, 0o1000, "{folder}: {mode:o}");
    }
}

#[tokio::test]
async fn an_emptied_folder_goes_and_one_at_the_top_stays() {
    let (store, directory) = fixture(true);
    create(&store, "uploads/session/0", "1").await;
    store.delete(&key("uploads/session/0")).await.unwrap();
    assert_eq!(ls(directory.path().join("uploads")), BTreeSet::new());
    create(&store, "uploads/session/0", "1").await;
}

#[tokio::test]
async fn nothing_is_left_of_what_was_replaced_completed_aborted_or_deleted() {
    for unnamed in [true, false] {
        let (store, directory) = fixture(unnamed);
        let version = create(&store, "a/one", "1").await;
        store.put(&key("a/one"), "2".into(), Condition::Replace(version)).await.unwrap();
        let upload = store.begin(&key("a/two")).await.unwrap();
        let parts = [put_part(&store, &upload, 1, "1", None).await];
        put_part(&store, &upload, 2, "dropped", None).await;
        store.complete(&upload, &parts).await.unwrap();
        of_two_segments(&store, "a/three").await;
        store.delete(&key("a/three")).await.unwrap();
        let upload = store.begin(&key("a/four")).await.unwrap();
        put_part(&store, &upload, 1, "1", None).await;
        store.abort(&upload).await.unwrap();
        assert_eq!(ls(directory.path()), [".locks", ".parts", "a"].map(String::from).into());
        assert_eq!(ls(directory.path().join("a")), ["one", "two"].map(String::from).into());
        assert_eq!(ls(directory.path().join(".parts")), BTreeSet::new());
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_looked_at_is_listed_and_keeps_no_others_from_it() {
    let (store, directory) = fixture(true);
    for name in ["a/file", "b/file"] {
        create(&store, name, "1").await;
    }
    of_two_segments(&store, "a/parts").await;
    let segments = directory.path().join("a/parts#");
    fs::remove_file(segments.join(ls(&segments).pop_first().unwrap())).unwrap();
    let listed = store.list("", None, 10).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| (entry.key.as_str(), entry.size)).collect();
    assert_eq!(listed, [("a/file", 1), ("a/parts", Entry::UNKNOWN), ("b/file", 1)]);
    assert_eq!(store.read(&key("a/parts")).await.unwrap_err().kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_no_empty_folder() {
    let (store, directory) = fixture(true);
    create(&store, "a/file", "1").await;
    for end in ["link", "of-another-disk"] {
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(end, &link).unwrap();
        assert!(store.list("", None, 10).await.is_err(), "{end}");
        assert_eq!(store.read(&key("a/file")).await.unwrap().unwrap().bytes, "1");
        fs::remove_file(link).unwrap();
    }
}

#[tokio::test]
async fn what_a_power_failure_left_under_both_names_is_dropped_all_the_same() {
    let (store, directory) = fixture(true);
    let upload = store.begin(&key("a")).await.unwrap();
    put_part(&store, &upload, 1, "1", None).await;
    // As if the power had gone after the new name was written, and before the old one was taken back.
    let gone = directory.path().join(".parts").join(format!("{}.gone", upload.id));
    fs::create_dir(&gone).unwrap();
    fs::write(gone.join("segment"), "1").unwrap();
    store.abort(&upload).await.unwrap();
    assert_eq!(ls(directory.path().join(".parts")), BTreeSet::new());
}

#[tokio::test]
async fn what_a_crash_left_under_the_scratch_name_is_never_written_into() {
    let (store, directory) = fixture(false);
    let version = create(&store, "a", "first").await;
    // As if it had been linked, and not unlinked.
    let scratch = directory.path().join(store.root.lock("a").unwrap().scratch);
    fs::hard_link(directory.path().join("a"), &scratch).unwrap();
    let before = store.open(&key("a"), Span::ALL).await.unwrap().unwrap();
    store.put(&key("a"), "second".into(), Condition::Replace(version)).await.unwrap();
    let chunks: Vec<Bytes> = before.body.into_stream().try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"first");
    assert_eq!(content(&store, "a").await.unwrap(), "second");
    assert!(!scratch.exists());
}

#[tokio::test]
async fn a_part_is_not_lengthened_where_other_bytes_already_follow_it() {
    for several in [false, true] {
        let (store, directory) = fixture(true);
        let upload = store.begin(&key("a")).await.unwrap();
        let first = put_part(&store, &upload, 1, "12345", None).await;
        // As a write leaves it that failed half way, or whose caller gave up.
        let segment = first.tag.split_once(':').unwrap().0;
        let segment = directory.path().join(".parts").join(&upload.id).join(segment);
        fs::write(&segment, "12345???").unwrap();
        let mut parts = vec![first];
        if several {
            let second = store.put_part(&upload, 2, "678".into(), parts.last()).await.unwrap();
            let Placed::New(second) = second else { panic!("lengthened: {second:?}") };
            parts.push(second);
        }
        store.complete(&upload, &parts).await.unwrap();
        assert_eq!(content(&store, "a").await.unwrap(), if several { "12345678" } else { "12345" });
    }
}

#[tokio::test]
async fn one_writer_that_goes_on_makes_one_file_and_no_byte_is_moved() {
    let (store, directory) = fixture(true);
    let upload = store.begin(&key("data/a")).await.unwrap();
    let first = put_part(&store, &upload, 1, "123", None).await;
    let segment = first.tag.split_once(':').unwrap().0;
    let inode = fs::metadata(directory.path().join(".parts").join(&upload.id).join(segment)).unwrap().ino();
    let both = put_part(&store, &upload, 2, "456", Some(&first)).await;
    store.complete(&upload, &[both]).await.unwrap();
    let published = fs::metadata(directory.path().join("data/a")).unwrap();
    assert_eq!((published.ino(), published.nlink(), published.len()), (inode, 1, 6));
    assert_eq!(published.permissions().mode() & 0o777, 0o444, "sealed");
}

#[tokio::test]
async fn a_sealed_segment_takes_no_more_even_while_its_upload_is_open() {
    let (store, directory) = fixture(true);
    let upload = store.begin(&key("a")).await.unwrap();
    let part = put_part(&store, &upload, 1, "123", None).await;
    let segment = part.tag.split_once(':').unwrap().0;
    let segment = directory.path().join(".parts").join(&upload.id).join(segment);
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o444)).unwrap();
    let late = store.put_part(&upload, 2, "456".into(), Some(&part)).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::NotFound);
    // A completion that stopped there is done again.
    store.complete(&upload, &[part]).await.unwrap();
    assert_eq!(content(&store, "a").await.unwrap(), "123");
}

#[tokio::test]
async fn bytes_that_a_power_failure_took_are_missed() {
    let (store, directory) = fixture(true);
    let upload = store.begin(&key("a")).await.unwrap();
    let part = put_part(&store, &upload, 1, "12345", None).await;
    let segment = part.tag.split_once(':').unwrap().0;
    fs::write(directory.path().join(".parts").join(&upload.id).join(segment), "123").unwrap();
    let next = store.put_part(&upload, 2, "678".into(), Some(&part)).await;
    assert_eq!(next.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.complete(&upload, &[part]).await.unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(content(&store, "a").await, None);
}

/// BLOB-6
#[tokio::test]
async fn segments_that_are_missing_or_short_are_told_and_not_skipped() {
    let (store, directory) = fixture(true);
    of_two_segments(&store, "a").await;
    let first = directory.path().join("a#/0000000000000000-5");
    fs::set_permissions(&first, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&first, "1234").unwrap();
    let object = store.open(&key("a"), Span::ALL).await.unwrap().unwrap();
    assert_eq!(object.size, 8);
    let error = object.body.into_stream().try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert_eq!(store.read(&key("a")).await.unwrap_err().kind, ErrorKind::Corrupt);
    fs::remove_file(first).unwrap();
    assert_eq!(store.head(&key("a")).await.unwrap_err().kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn ids_and_tags_that_are_not_of_our_making_lead_nowhere() {
    let (store, directory) = fixture(true);
    fs::create_dir(directory.path().join("victim")).unwrap();
    let foreign = Multipart { key: key("a"), id: "../victim".into() };
    let late = store.put_part(&foreign, 1, "1".into(), None).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::NotFound);
    store.abort(&foreign).await.unwrap();
    assert_eq!(ls(directory.path().join("victim")), BTreeSet::new());
    let upload = store.begin(&key("a")).await.unwrap();
    let part = Part { number: 1, size: 1, tag: "../../victim:1".into() };
    assert_eq!(store.complete(&upload, &[part]).await.unwrap_err().kind, ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_object_too_large_to_be_held_in_memory_can_only_be_opened() {
    let (store, directory) = fixture(true);
    let size = object::MAX_READ + 1;
    fs::File::create(directory.path().join("a")).unwrap().set_len(size).unwrap();
    assert_eq!(store.read(&key("a")).await.unwrap_err().kind, ErrorKind::Corrupt);
    let object = store.open(&key("a"), Span::first(3)).await.unwrap().unwrap();
    assert!(matches!(&object.body, Body::Files(files) if files.len() == 1));
    assert_eq!(object.size, size);
}

#[tokio::test]
async fn what_else_lies_around_is_invisible() {
    let (store, directory) = fixture(true);
    for foreign in ["lost+found", ".snapshot"] {
        fs::create_dir(directory.path().join(foreign)).unwrap();
        fs::write(directory.path().join(foreign).join("x"), "1").unwrap();
    }
    fs::write(directory.path().join("backup~"), "1").unwrap();
    create(&store, "a", "1").await;
    of_two_segments(&store, "b").await;
    let listed = store.list("", None, 10).await.unwrap();
    assert_eq!(listed, [Entry { key: key("a"), size: 1 }, Entry { key: key("b"), size: 8 }]);
}

#[test]
fn a_place_that_cannot_hold_a_store_is_refused_at_once() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FsStore::open(&file).unwrap_err();
    assert!(error.to_string().contains("open"), "{error}");
    FsStore::open(&directory.path().join("made/on/the/way")).unwrap();
}

#[test]
fn a_full_disk_and_what_is_the_matter_with_one_file_are_told_from_other_failures() {
    use rustix::io::Errno;
    for (errno, kind) in [
        (Errno::NOSPC, ErrorKind::Full),
        (Errno::DQUOT, ErrorKind::Full),
        (Errno::MFILE, ErrorKind::Unavailable),
        (Errno::NFILE, ErrorKind::Unavailable),
        (Errno::NOMEM, ErrorKind::Unavailable),
        (Errno::ROFS, ErrorKind::Unavailable),
        (Errno::IO, ErrorKind::Refused),
        (Errno::ACCESS, ErrorKind::Refused),
        (Errno::UCLEAN, ErrorKind::Refused),
        (Errno::LOOP, ErrorKind::Refused),
    ] {
        assert_eq!(failed(|| "put a".into())(errno.into()).kind, kind, "{errno}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn listings_are_those_of_the_store_in_memory(
        keys in prop::collection::btree_set("[a.0-]?[ab](/[ab][b.-]?){0,3}", 0..12),
        prefix in "[a0.-]?([ab]/?){0,3}",
        after in prop::option::of("[ab0](/?[ab.-]){0,4}"),
        limit in 1_usize..8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (store, directory) = fixture(true);
        let memory = MemoryStore::default();
        let is_folder = |text: &str| keys.iter().any(|other| other.starts_with(&format!("{text}/")));
        for key in keys.iter().filter(|text| !is_folder(text)).filter_map(|text| Key::parse(text.as_str())) {
            let path = directory.path().join(key.as_str());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, key.as_str()).unwrap();
            let bytes = Bytes::from(key.to_string());
            runtime.block_on(memory.put(&key, bytes, Condition::Create)).unwrap();
        }
        let after = after.and_then(Key::parse);
        let listed = runtime.block_on(store.list(&prefix, after.as_ref(), limit)).unwrap();
        prop_assert_eq!(listed, runtime.block_on(memory.list(&prefix, after.as_ref(), limit)).unwrap());
    }
}
