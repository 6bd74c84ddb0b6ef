//! What becomes of calls that a store fails, in all the ways that stores have.

use std::time::Duration;

use futures_util::StreamExt;
use hyper::StatusCode;
use tokio::net::TcpListener;

use super::{key, on};
use crate::store::{
    Condition, Deleted, ErrorKind, Multipart, Part, Placed, Put, Span, Store,
    s3::{
        Credentials, S3Settings, S3Store,
        testing::{Fault, Operation, Quirks, Server},
    },
};

const CONFLICT: Fault = Fault::Refused(StatusCode::CONFLICT, "<Error><Code>ConditionalRequestConflict</Code></Error>");
/// How long a store may be silent, where it is.
const MOMENT: Duration = Duration::from_secs(2);
/// A gateway gave up on an answer.
const GATEWAY: Fault = Fault::DoneBut(StatusCode::GATEWAY_TIMEOUT, "<html>");
const ERROR_INSIDE: &str = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>no</Message></Error>";

async fn create(store: &S3Store, name: &str, bytes: &'static str) -> Put {
    store.put(&key(name), bytes.into(), Condition::Create).await.unwrap()
}

async fn upload(store: &S3Store) -> (Multipart, Vec<Part>) {
    let upload = store.begin(&key("data")).await.unwrap();
    let Placed::New(part) = store.put_part(&upload, 1, "12345".into(), None).await.unwrap() else { panic!("grown") };
    (upload, vec![part])
}

#[tokio::test]
async fn what_the_store_puts_off_is_asked_again_a_few_times() {
    let (store, server) = on(Quirks::S3).await;
    server.fail(Operation::Put, &Fault::SLOW_DOWN, 3);
    assert!(matches!(create(&store, "a", "1").await, Put::Stored(_)));
    assert_eq!(server.take_calls()[&Operation::Put], 4);
    server.fail(Operation::Get, &Fault::SLOW_DOWN, 4);
    assert_eq!(store.read(&key("a")).await.unwrap_err().kind, ErrorKind::Throttled);
    assert_eq!(server.take_calls()[&Operation::Get], 4);
    assert_eq!(store.read(&key("a")).await.unwrap().unwrap().bytes, "1");
}

#[tokio::test]
async fn every_verb_that_the_store_puts_off_says_so() {
    use Operation::{Abort, Begin, Complete, Delete, Get, Head, List, Part};
    let (store, server) = on(Quirks::S3).await;
    let Put::Stored(version) = create(&store, "a", "1").await else { panic!("lost") };
    let (upload, parts) = upload(&store).await;
    for operation in [Get, Head, Operation::Put, Delete, List, Begin, Part, Complete, Abort] {
        server.fail(operation, &Fault::SLOW_DOWN, 4 * 2);
    }
    let a = key("a");
    let errors = [
        store.read(&a).await.unwrap_err(),
        store.open(&a, Span::ALL).await.unwrap_err(),
        store.head(&a).await.unwrap_err(),
        store.put(&a, "2".into(), Condition::Create).await.unwrap_err(),
        store.put(&a, "2".into(), Condition::Replace(version.clone())).await.unwrap_err(),
        store.delete(&a).await.unwrap_err(),
        store.delete_if(&a, &version).await.unwrap_err(),
        store.list("", None, 1).await.unwrap_err(),
        store.begin(&a).await.unwrap_err(),
        store.put_part(&upload, 2, "2".into(), None).await.unwrap_err(),
        store.complete(&upload, &parts).await.unwrap_err(),
        store.abort(&upload).await.unwrap_err(),
    ];
    for error in errors {
        // The answer to a HEAD has no body that would say why.
        let expected = if error.context.starts_with("head") { ErrorKind::Unavailable } else { ErrorKind::Throttled };
        assert_eq!(error.kind, expected, "{error}");
        assert!(error.source.is_some(), "{error}: nothing for the log");
    }
}

#[tokio::test]
async fn what_is_too_much_and_what_is_refused_are_told_from_a_store_that_cannot_now() {
    let (store, server) = on(Quirks::S3).await;
    for (status, body, kind) in [
        (StatusCode::TOO_MANY_REQUESTS, "", ErrorKind::Throttled),
        (StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>SlowDownRead</Code></Error>", ErrorKind::Throttled),
        (StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>ServiceUnavailable</Code></Error>", ErrorKind::Unavailable),
        (StatusCode::SERVICE_UNAVAILABLE, "", ErrorKind::Unavailable),
        (StatusCode::BAD_GATEWAY, "<html>", ErrorKind::Unavailable),
        (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>", ErrorKind::Refused),
        (StatusCode::FORBIDDEN, "<Error><Code>InvalidObjectState</Code></Error>", ErrorKind::Refused),
        (StatusCode::FORBIDDEN, "<Error><Code>RequestTimeTooSkewed</Code></Error>", ErrorKind::Unavailable),
        (StatusCode::BAD_REQUEST, "<Error><Code>KMS.DisabledException</Code></Error>", ErrorKind::Refused),
        (StatusCode::BAD_REQUEST, "<Error><Code>RequestTimeout</Code></Error>", ErrorKind::Unavailable),
        (StatusCode::REQUEST_TIMEOUT, "", ErrorKind::Unavailable),
        (StatusCode::CONFLICT, "", ErrorKind::Unavailable),
    ] {
        server.fail(Operation::Get, &Fault::Refused(status, body), 4);
        assert_eq!(store.read(&key("a")).await.unwrap_err().kind, kind, "{status} {body}");
        while store.read(&key("a")).await.is_err() {}
    }
}

/// A proxy between us and the store has lost its route, or the bucket is gone.
#[tokio::test]
async fn a_404_that_does_not_speak_of_the_object_says_nothing_of_it() {
    use Operation::{Delete, Get, Head};
    let (store, server) = on(Quirks::S3).await;
    let Put::Stored(version) = create(&store, "a", "1").await else { panic!("lost") };
    let a = key("a");
    for body in ["", "<html>404 page not found", "<Error><Code>NoSuchBucket</Code></Error>"] {
        let lost = |operation| server.fail(operation, &Fault::Refused(StatusCode::NOT_FOUND, body), 1);
        [Get, Get, Get, Head, Operation::Put, Delete, Delete].into_iter().for_each(lost);
        let errors = [
            store.read(&a).await.unwrap_err(),
            store.open(&a, Span::ALL).await.unwrap_err(),
            store.head(&a).await.unwrap_err(),
            store.put(&a, "2".into(), Condition::Replace(version.clone())).await.unwrap_err(),
            store.delete(&a).await.unwrap_err(),
            store.delete_if(&a, &version).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::Unavailable, "{body:?}: {error}");
        }
        server.fail(Head, &Fault::Refused(StatusCode::NOT_FOUND, body), 1);
        assert_eq!(store.head(&a).await.unwrap(), Some(1), "{body:?}: a GET tells");
    }
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_leaves_no_doubt() {
    let (store, server) = on(Quirks::S3).await;
    server.fail(Operation::Put, &CONFLICT, 2);
    assert!(matches!(create(&store, "a", "1").await, Put::Stored(_)));
    server.fail(Operation::Put, &CONFLICT, 2);
    assert_eq!(create(&store, "a", "2").await, Put::Lost, "a conflict did nothing, so the loss is certain");
    server.fail(Operation::Put, &CONFLICT, 4);
    let error = store.put(&key("b"), "1".into(), Condition::Create).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(store.head(&key("b")).await.unwrap(), None);
}

/// The retry finds the object of the attempt before: that is no loss.
#[tokio::test]
async fn a_put_that_may_have_lost_against_itself_is_an_error_and_never_lost() {
    for fault in [Fault::Unanswered, GATEWAY] {
        let (store, server) = on(Quirks::S3).await;
        server.fail(Operation::Put, &fault, 1);
        let error = store.put(&key("a"), "1".into(), Condition::Create).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{fault:?}");
        let there = store.read(&key("a")).await.unwrap().unwrap();
        assert_eq!(there.bytes, "1", "reading back settles it");

        server.fail(Operation::Put, &fault, 1);
        let error = store.put(&key("a"), "2".into(), Condition::Replace(there.version)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{fault:?}");
        let there = store.read(&key("a")).await.unwrap().unwrap();
        assert_eq!(there.bytes, "2");

        server.fail(Operation::Delete, &fault, 1);
        let error = store.delete_if(&key("a"), &there.version).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{fault:?}");
        assert_eq!(store.head(&key("a")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_may_be_repeated_survives_a_lost_answer() {
    let (store, server) = on(Quirks::S3).await;
    create(&store, "a", "1").await;
    for operation in [Operation::Delete, Operation::Begin, Operation::Part, Operation::Abort, Operation::List] {
        server.fail(operation, &Fault::Unanswered, 1);
    }
    store.delete(&key("a")).await.unwrap();
    assert_eq!(store.list("", None, 10).await.unwrap(), []);
    let (upload, _) = upload(&store).await;
    store.abort(&upload).await.unwrap();
}

/// In whatever way the store says no to the retry: who reads back finds the object whole.
#[tokio::test]
async fn a_complete_whose_answer_was_lost_is_done_or_not_found() {
    for second_complete in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        for fault in [Fault::Unanswered, GATEWAY] {
            let (store, server) = on(Quirks { second_complete, ..Quirks::S3 }).await;
            let (upload, parts) = upload(&store).await;
            server.fail(Operation::Complete, &fault, 1);
            let done = store.complete(&upload, &parts).await;
            assert!(done.as_ref().err().is_none_or(|error| error.kind == ErrorKind::NotFound), "{done:?}");
            assert_eq!(store.head(&upload.key).await.unwrap(), Some(5));
        }
    }
}

#[tokio::test]
async fn an_error_in_an_answer_of_200_is_an_error() {
    let (store, server) = on(Quirks::S3).await;
    let (upload, parts) = upload(&store).await;
    server.fail(Operation::Complete, &Fault::Refused(StatusCode::OK, ERROR_INSIDE), 4);
    let error = store.complete(&upload, &parts).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert_eq!(store.head(&upload.key).await.unwrap(), None);
    server.fail(Operation::Complete, &Fault::Refused(StatusCode::OK, ""), 1);
    let error = store.complete(&upload, &parts).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "nothing in it is no success either: {error}");
    store.complete(&upload, &parts).await.unwrap();
    assert_eq!(store.head(&upload.key).await.unwrap(), Some(5));
}

#[tokio::test]
async fn a_part_that_is_not_there_is_an_error_that_makes_callers_read_back() {
    let (store, _server) = on(Quirks::S3).await;
    let (upload, mut parts) = upload(&store).await;
    parts[0].tag = "\"00000000000000000000000000000000\"".into();
    assert_eq!(store.complete(&upload, &parts).await.unwrap_err().kind, ErrorKind::Refused);
}

#[tokio::test]
async fn an_object_is_never_completed_over_another() {
    let (store, server) = on(Quirks::S3).await;
    let (upload, parts) = upload(&store).await;
    create(&store, "data", "of somebody else").await;
    assert_eq!(store.complete(&upload, &parts).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.read(&key("data")).await.unwrap().unwrap().bytes, "of somebody else");
    assert_eq!(server.header(Operation::Complete, "if-none-match").as_deref(), Some("*"));
}

#[tokio::test]
async fn an_answer_without_its_etag_is_an_error() {
    let (store, server) = on(Quirks::S3).await;
    let upload = store.begin(&key("data")).await.unwrap();
    for operation in [Operation::Put, Operation::Get, Operation::Part] {
        server.fail(operation, &Fault::NoETag, 1);
    }
    let put = store.put(&key("a"), "1".into(), Condition::Create).await;
    assert_eq!(put.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(store.read(&key("a")).await.unwrap_err().kind, ErrorKind::Unavailable);
    let part = store.put_part(&upload, 1, "1".into(), None).await;
    assert_eq!(part.unwrap_err().kind, ErrorKind::Unavailable);
}

/// BLOB-6
#[tokio::test]
async fn an_answer_that_breaks_off_or_stalls_is_an_error_and_never_a_clean_end() {
    let (_, server) = on(Quirks::S3).await;
    let store = server.store_with(S3Settings { silence: MOMENT, ..server.settings() }).await;
    create(&store, "a", "0123456789").await;
    for fault in [Fault::Torn, Fault::Stalled] {
        server.fail(Operation::Get, &fault, 1);
        assert_eq!(store.read(&key("a")).await.unwrap_err().kind, ErrorKind::Unavailable, "{fault:?}");
        server.fail(Operation::Get, &fault, 1);
        let object = store.open(&key("a"), Span::ALL).await.unwrap().unwrap();
        let ends: Vec<_> = object.body.into_stream().collect().await;
        let (last, chunks) = ends.split_last().unwrap();
        assert_eq!(last.as_ref().unwrap_err().kind, ErrorKind::Unavailable, "{fault:?}");
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.as_ref().unwrap().to_vec()).collect();
        assert_eq!(bytes, b"01234", "{fault:?}");
    }
}

/// A pull at a client's own pace is no stall of the store.
#[tokio::test]
async fn a_reader_may_take_longer_than_the_store_may() {
    let (_, server) = on(Quirks::S3).await;
    let store = server.store_with(S3Settings { silence: MOMENT, ..server.settings() }).await;
    let bytes = vec![7; 1 << 20];
    store.put(&key("a"), bytes.clone().into(), Condition::Create).await.unwrap();
    let mut stream = store.open(&key("a"), Span::ALL).await.unwrap().unwrap().body.into_stream();
    let mut read = stream.next().await.unwrap().unwrap().to_vec();
    assert!(read.len() < bytes.len(), "all at once");
    tokio::time::sleep(MOMENT * 2).await;
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    assert!(read == bytes);
}

#[tokio::test]
async fn a_listing_that_cannot_be_whole_is_an_error() {
    let (store, server) = on(Quirks::S3).await;
    for list in [
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>b</Key><Size>1</Size></Contents>\
         <Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>",
    ] {
        server.fail(Operation::List, &Fault::Refused(StatusCode::OK, list), 1);
        assert_eq!(store.list("", None, 10).await.unwrap_err().kind, ErrorKind::Corrupt, "{list}");
    }
}

#[tokio::test]
async fn a_store_without_room_is_full() {
    let (store, server) = on(Quirks::S3).await;
    let full = "<Error><Code>XMinioStorageFull</Code></Error>";
    server.fail(Operation::Put, &Fault::Refused(StatusCode::INSUFFICIENT_STORAGE, full), 1);
    let error = store.put(&key("a"), "1".into(), Condition::Create).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Full);
}

/// Else a bucket that somebody renamed would be an empty registry.
#[tokio::test]
async fn without_its_bucket_nothing_is_known_to_be_absent() {
    let (_, server) = on(Quirks::S3).await;
    let store = server.store_with(S3Settings { bucket: "elsewhere".into(), ..server.settings() }).await;
    assert_eq!(store.read(&key("a")).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(store.open(&key("a"), Span::ALL).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(store.list("", None, 1).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(store.delete(&key("a")).await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_shown_to_nobody() {
    let (_, server) = on(Quirks::S3).await;
    let credentials = Credentials::Static {
        access_key_id: "key-id".into(),
        secret_access_key: "not-the-secret".into(),
        session_token: Some("not-the-token".into()),
    };
    let store = server.store_with(S3Settings { credentials, ..server.settings() }).await;
    let error = store.read(&key("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    let shown = format!("{store:?} {error:?} {error}");
    assert!(!shown.contains("not-the"), "{shown}");
}

#[tokio::test]
async fn a_store_that_is_not_there_or_says_nothing_is_unavailable() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_, server) = on(Quirks::S3).await;
    for address in [silent.local_addr().unwrap(), closed] {
        let store = server
            .store_with(S3Settings {
                endpoint: Some(format!("http://{address}")),
                answer_timeout: MOMENT,
                max_attempts: 2,
                ..server.settings()
            })
            .await;
        assert_eq!(store.head(&key("a")).await.unwrap_err().kind, ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_conditional_delete_is_refused_where_the_condition_would_be_ignored() {
    let (store, server) = on(Quirks::MINIO).await;
    let Put::Stored(version) = create(&store, "a", "1").await else { panic!("lost") };
    store.delete_if(&key("a"), &version).await.unwrap_err();
    assert_eq!(server.take_calls().get(&Operation::Delete), None);
    let trusting: S3Store = server.store_with(S3Settings { conditional_delete: true, ..server.settings() }).await;
    let other = crate::store::Version("0".into());
    let deleted = trusting.delete_if(&key("a"), &other).await.unwrap();
    assert_eq!(deleted, Deleted::Deleted, "the server ignores it indeed");
}

#[tokio::test]
async fn a_store_that_goes_away_is_unavailable() {
    let server = Server::start(Quirks::S3).await;
    let store = server.store().await;
    store.head(&key("a")).await.unwrap();
    drop(server);
    assert_eq!(store.head(&key("a")).await.unwrap_err().kind, ErrorKind::Unavailable);
}
