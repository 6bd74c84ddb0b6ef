//! What is asked of the store, and how.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{key, on};
use crate::store::{
    Condition, Entry, Put, Span, Store,
    doctor::Verdict,
    s3::{
        Encryption, ListOrder, S3Settings, StorageClass,
        testing::{Fault, Operation, Quirks},
    },
};

#[tokio::test]
async fn every_verb_is_one_request() {
    use Operation::{Abort, Begin, Delete, Get, Head, List, Part, Put as PutObject};
    let (store, server) = on(Quirks::S3).await;
    let [a, data] = ["a", "data"].map(key);
    let Put::Stored(version) = store.put(&a, "0123456789".into(), Condition::Create).await.unwrap() else {
        panic!("lost")
    };
    store.put(&a, "late".into(), Condition::Create).await.unwrap();
    store.read(&a).await.unwrap();
    store.open(&a, Span::new(2, 3)).await.unwrap();
    store.head(&a).await.unwrap();
    store.list("", None, 1000).await.unwrap();
    let upload = store.begin(&data).await.unwrap();
    store.put_part(&upload, 1, "1".into(), None).await.unwrap();
    store.sync_parts(&upload, &[]).await.unwrap();
    store.abort(&upload).await.unwrap();
    store.delete(&data).await.unwrap();
    store.delete_if(&a, &version).await.unwrap();
    store.presign(&a, Duration::from_mins(1)).await.unwrap();
    let expected = [(Get, 2), (Head, 1), (PutObject, 2), (Delete, 2), (List, 1), (Begin, 1), (Part, 1), (Abort, 1)];
    assert_eq!(server.take_calls(), expected.into());
}

#[tokio::test]
async fn a_listing_asks_for_as_many_pages_as_it_needs() {
    for quirks in [Quirks::S3, Quirks::SEAWEED] {
        let (store, server) = on(quirks).await;
        for tag in 0..1003 {
            store.put(&key(&format!("tags/v1.{tag:04}")), "1".into(), Condition::Create).await.unwrap();
        }
        server.take_calls();
        // By path, what is under `v1/` would come between `v1` and all of these: it has to be looked for.
        let by_path = u64::from(quirks.list_order == ListOrder::Paths);
        for (after, limit, listed, pages) in [
            (None, 10, 10, 1),
            (None, 1000, 1000, 1),
            (None, 5000, 1003, 2),
            (Some("tags/v1.0990"), 10, 10, 1 + by_path),
            (Some("tags/v1.1001"), 10, 1, 1 + by_path),
        ] {
            let keys = store.list("tags/", after.map(key).as_ref(), limit).await.unwrap();
            assert_eq!((keys.len(), server.take_calls()), (listed, [(Operation::List, pages)].into()), "{after:?}");
        }
    }
}

#[tokio::test]
async fn a_text_that_no_key_starts_with_is_not_asked_for() {
    let (store, server) = on(Quirks::S3).await;
    for prefix in ["../", "/", "a//", "a b"] {
        assert_eq!(store.list(prefix, None, 10).await.unwrap(), []);
    }
    assert_eq!(store.list("b/", Some(&key("c")), 10).await.unwrap(), []);
    assert_eq!(store.list("", None, 0).await.unwrap(), []);
    assert_eq!(server.take_calls(), [].into());
}

#[tokio::test]
async fn stores_under_two_prefixes_of_one_bucket_do_not_meet() {
    let (whole, server) = on(Quirks::S3).await;
    let under = async |prefix: &str| server.store_with(S3Settings { prefix: prefix.into(), ..server.settings() }).await;
    let (one, other) = (under("/a/registry/").await, under("a/registry-2").await);
    for (store, bytes) in [(&one, "1"), (&other, "22")] {
        store.put(&key("x/y"), bytes.into(), Condition::Create).await.unwrap();
        assert_eq!(store.read(&key("x/y")).await.unwrap().unwrap().bytes, bytes);
        let there = Entry { key: key("x/y"), size: bytes.len() as u64 };
        assert_eq!(store.list("", None, 10).await.unwrap(), [there]);
    }
    let all: Vec<_> = whole.list("", None, 10).await.unwrap().into_iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!(all, ["a/registry-2/x/y", "a/registry/x/y"]);
}

#[tokio::test]
async fn bodies_are_sent_plainly_with_their_length_and_no_checksum_after_them() {
    let (store, server) = on(Quirks::S3).await;
    let upload = store.begin(&key("data")).await.unwrap();
    store.put_part(&upload, 1, "12345".into(), None).await.unwrap();
    store.put(&key("a"), "12345".into(), Condition::Create).await.unwrap();
    for operation in [Operation::Part, Operation::Put] {
        let header = |name| server.header(operation, name);
        assert_eq!(header("content-length").as_deref(), Some("5"));
        for absent in ["content-encoding", "transfer-encoding", "x-amz-trailer", "x-amz-checksum-crc32"] {
            assert_eq!(header(absent), None, "{absent}");
        }
        // Without TLS the hash of the bytes is signed.
        assert_eq!(header("x-amz-content-sha256").unwrap().len(), 64);
    }
}

#[tokio::test]
async fn the_storage_class_is_that_of_the_key_and_encryption_that_of_all() {
    let (_, server) = on(Quirks::S3).await;
    for (encryption, algorithm, key_id) in [
        (Encryption::BucketDefault, None, None),
        (Encryption::Store, Some("AES256"), None),
        (Encryption::Kms(Some("the-key".into())), Some("aws:kms"), Some("the-key")),
    ] {
        let storage_class = Some(StorageClass { keys: "data/".into(), class: "STANDARD_IA".into() });
        let store = server.store_with(S3Settings { encryption, storage_class, ..server.settings() }).await;
        for (name, class) in [("data/x", Some("STANDARD_IA")), ("tags/data/x", None)] {
            store.begin(&key(name)).await.unwrap();
            store.put(&key(name), "1".into(), Condition::Create).await.unwrap();
            for operation in [Operation::Begin, Operation::Put] {
                let header = |name| server.header(operation, name);
                assert_eq!(header("x-amz-storage-class").as_deref(), class, "{name}");
                assert_eq!(header("x-amz-server-side-encryption").as_deref(), algorithm);
                assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id").as_deref(), key_id);
            }
        }
    }
}

#[tokio::test]
async fn a_presigned_url_opens_the_object_to_anybody() {
    let (store, server) = on(Quirks::S3).await;
    store.put(&key("data/x"), "12345".into(), Condition::Create).await.unwrap();
    let url = store.presign(&key("data/x"), Duration::from_mins(1)).await.unwrap().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.get(url.parse().unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "12345");
    let tampered = url.replace("data/x", "data/y");
    assert_eq!(client.get(tampered.parse().unwrap()).await.unwrap().status(), 403);

    let public_endpoint = Some("https://blobs.example.com".into());
    let store = server.store_with(S3Settings { public_endpoint, ..server.settings() }).await;
    let url = store.presign(&key("data/x"), Duration::from_mins(1)).await.unwrap().unwrap();
    assert!(url.starts_with("https://blobs.example.com/bucket/data/x?"), "{url}");
}

// REDIR-1
#[tokio::test]
async fn a_url_is_valid_by_the_clock_of_the_store_and_not_by_ours() {
    for (date, signed) in
        [("Mon, 01 Jan 2001 12:00:00 GMT", "20010101T12"), ("Fri, 01 Jan 2100 12:00:00 GMT", "21000101T12")]
    {
        let (store, server) = on(Quirks::S3).await;
        store.put(&key("data/x"), "1".into(), Condition::Create).await.unwrap();
        server.fail(Operation::Head, &Fault::Dated(date), 1);
        store.head(&key("data/x")).await.unwrap();
        let url = store.presign(&key("data/x"), Duration::from_mins(1)).await.unwrap().unwrap();
        assert!(url.contains(&format!("X-Amz-Date={signed}")), "{url}");
    }
}

#[tokio::test]
async fn how_far_our_clock_is_off_is_told_by_the_answers_of_the_store() {
    let (store, server) = on(Quirks::S3).await;
    let ours = SystemTime::UNIX_EPOCH;
    assert_eq!(store.clock(ours).seen, "the store says no time");
    server.store_with(server.settings()).await.put(&key("x"), "1".into(), Condition::Create).await.unwrap();
    server.fail(Operation::Head, &Fault::Dated("Thu, 01 Jan 1970 02:00:30 GMT"), 1);
    store.head(&key("x")).await.unwrap();
    let finding = store.clock(ours);
    assert_eq!(finding.verdict, Verdict::Adapted);
    assert!(finding.seen.starts_with("2h ") && finding.seen.ends_with(" behind the store's"), "{finding:?}");
}
