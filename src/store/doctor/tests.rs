use std::sync::Arc;

use super::*;
use crate::store::{
    Verb,
    faulty::{Fault, Faulty},
    fs::FsStore,
    memory::MemoryStore,
    metered::Metered,
    s3::testing::{Fault as Wrong, Operation, Quirks, Server},
};

const FOLDER: &str = "doctor/";

const S3: Brief =
    Brief { create: Answer::Honoured, replace: Answer::Honoured, delete: Answer::Honoured, in_byte_order: true };

async fn nothing(_: String) -> Result<Bytes> {
    Ok(Bytes::new())
}

/// What was found on a store of this kind, by a driver that has adapted itself.
async fn examined(quirks: Quirks) -> (Brief, Vec<Finding>) {
    let server = Server::start(quirks).await;
    let (store, brief) = server.unknown_store().await.adapted(FOLDER).await.unwrap();
    let findings = examine(&store, FOLDER, async |url| store.fetch(url).await).await.unwrap();
    assert_eq!(store.list("", None, 10).await.unwrap(), [], "{quirks:?}: something is left");
    (brief, findings)
}

fn verdict(findings: &[Finding], probe: &str) -> Verdict {
    findings.iter().find(|finding| finding.probe == probe).unwrap_or_else(|| panic!("no {probe}")).verdict
}

#[tokio::test]
async fn every_kind_of_store_is_told_from_the_others_and_adapted_to() {
    for (quirks, expected) in [
        (Quirks::S3, S3),
        (Quirks::MINIO, Brief { delete: Answer::Ignored, ..S3 }),
        (Quirks::SEAWEED, Brief { in_byte_order: false, ..S3 }),
    ] {
        let (brief, findings) = examined(quirks).await;
        assert_eq!(brief, expected, "{quirks:?}");
        assert_eq!(brief.danger(), None);
        let report = Report([&brief.findings()[..], &findings].concat());
        assert!(report.is_safe(), "{report}");
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{report}");
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out_and_what_would_be_lost_is_said() {
    let (brief, findings) = examined(Quirks::GARAGE).await;
    let ignored = Brief { create: Answer::Ignored, replace: Answer::Ignored, delete: Answer::Ignored, ..S3 };
    assert_eq!(brief, ignored);
    assert!(brief.danger().unwrap().contains("overwrite the tags"));
    for probe in ["racing creates", "racing replaces"] {
        assert_eq!(verdict(&findings, probe), Verdict::Unsafe, "{probe}");
    }
    assert_eq!(verdict(&findings, "completing over another"), Verdict::Adapted);
    let report = Report([&brief.findings()[..], &findings].concat());
    assert!(!report.is_safe());
    assert!(report.to_string().contains("NOT SAFE"), "{report}");
    for half in [Brief { create: Answer::Ignored, ..S3 }, Brief { replace: Answer::Ignored, ..S3 }] {
        assert!(half.danger().is_some(), "{half:?}");
        assert!(!Report(half.findings().into()).is_safe(), "{half:?}");
    }
}

#[tokio::test]
async fn our_own_stores_are_safe_and_left_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(MemoryStore::default()), Arc::new(FsStore::open(directory.path()).unwrap())];
    for store in stores {
        store.put(&Key::parse("doctor/of-another").unwrap(), "1".into(), Condition::Create).await.unwrap();
        assert_eq!(brief(store.as_ref(), FOLDER).await.unwrap(), S3);
        let report = Report(examine(store.as_ref(), FOLDER, nothing).await.unwrap());
        assert!(report.is_safe(), "{report}");
        let left = store.list("", None, 10).await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

#[tokio::test]
async fn the_short_form_costs_ten_calls() {
    let store = Metered::new(Arc::new(MemoryStore::default()));
    brief(&store, FOLDER).await.unwrap();
    assert_eq!(store.take().total(), 9);
}

/// In each of the calls; and whatever was written by then is gone.
#[tokio::test]
async fn a_store_that_cannot_be_reached_is_neither_safe_nor_unsafe() {
    for down_at in 0.. {
        let memory = Arc::new(MemoryStore::default());
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
        let store = Faulty::new(store, move |call| if call.index == down_at { Fault::NotApplied } else { Fault::None });
        let found = examine(&store, FOLDER, nothing).await;
        if store.calls().len() <= down_at {
            found.unwrap();
            break;
        }
        // A second completion may end as it likes.
        if let Err(error) = found {
            assert_eq!(error.kind, ErrorKind::Unavailable, "call {down_at}");
        }
        let verb = store.calls()[down_at].verb;
        if verb != Verb::Delete && verb != Verb::Abort {
            assert_eq!(memory.list("", None, 10).await.unwrap(), [], "call {down_at}");
        }
    }
}

#[tokio::test]
async fn what_was_written_without_an_answer_is_cleared_too() {
    for lost_at in 0..9 {
        let memory = Arc::new(MemoryStore::default());
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
        let store = Faulty::new(store, move |call| if call.index == lost_at { Fault::ReplyLost } else { Fault::None });
        brief(&store, FOLDER).await.ok();
        assert_eq!(memory.list("", None, 10).await.unwrap(), [], "call {lost_at}");
    }
}

#[tokio::test]
async fn damage_is_a_finding_and_not_an_end() {
    let server = Server::start(Quirks::S3).await;
    let store = server.store().await;
    // The first listing of the first probe that lists.
    let broken = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    server.fail(Operation::List, &Wrong::Refused(hyper::StatusCode::OK, broken), 1);
    let findings = examine(&store, FOLDER, async |url| store.fetch(url).await).await.unwrap();
    assert_eq!(verdict(&findings, "list after write"), Verdict::Unsafe);
    assert_eq!(verdict(&findings, "latency"), Verdict::Ok, "the rest is tried all the same");
}

#[tokio::test]
async fn clients_that_cannot_reach_the_store_are_not_sent_there() {
    let server = Server::start(Quirks::S3).await;
    let elsewhere = Some("http://127.0.0.1:1".to_owned());
    let settings = crate::store::s3::S3Settings { public_endpoint: elsewhere, ..server.settings() };
    let store = server.store_with(settings).await;
    let findings = examine(&store, FOLDER, async |url| store.fetch(url).await).await.unwrap();
    assert_eq!(verdict(&findings, "presigned URLs"), Verdict::Adapted);
}
