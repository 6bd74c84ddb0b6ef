//! The rule for what abandoned uploads leave.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter,
};
use hyper::StatusCode;

use super::on;
use crate::store::{
    doctor::Verdict,
    s3::{
        S3Settings, S3Store,
        testing::{BUCKET, Fault, Operation, Quirks},
    },
};

/// A rule of an operator, for the keys that start with this.
fn rule(prefix: &str, status: ExpirationStatus, abort: Option<i32>) -> LifecycleRule {
    let abort = abort.map(|days| AbortIncompleteMultipartUpload::builder().days_after_initiation(days).build());
    LifecycleRule::builder()
        .id("of the operator")
        .status(status)
        .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .expiration(LifecycleExpiration::builder().days(1000).build())
        .set_abort_incomplete_multipart_upload(abort)
        .build()
        .unwrap()
}

async fn put(store: &S3Store, rule: LifecycleRule) {
    let whole = BucketLifecycleConfiguration::builder().rules(rule).build().unwrap();
    let request = store.client.put_bucket_lifecycle_configuration().bucket(BUCKET).lifecycle_configuration(whole);
    request.send().await.unwrap();
}

async fn rules(store: &S3Store) -> Vec<LifecycleRule> {
    let answer = store.client.get_bucket_lifecycle_configuration().bucket(BUCKET).send().await;
    answer.map(|answer| answer.rules.unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn a_rule_is_added_once_when_it_is_asked_for_and_not_before() {
    let (_, server) = on(Quirks::S3).await;
    let store = server.store_with(S3Settings { prefix: "registry".into(), ..server.settings() }).await;
    assert_eq!(store.lifecycle(false).await.verdict, Verdict::Adapted);
    assert_eq!(rules(&store).await, []);
    let finding = store.lifecycle(true).await;
    assert_eq!((finding.verdict, finding.seen.as_str()), (Verdict::Ok, "a rule was added: dropped after 7 days"));
    let installed = rules(&store).await;
    let [rule] = installed.as_slice() else { panic!("{installed:?}") };
    assert_eq!(rule.filter().unwrap().prefix(), Some("registry/"), "the rest of the bucket is not ours");
    assert_eq!(store.lifecycle(true).await.seen, "dropped after 7 days");
    assert_eq!(rules(&store).await, installed);
}

#[tokio::test]
async fn rules_that_are_there_stay() {
    let (store, _server) = on(Quirks::S3).await;
    let there = rule("logs/", ExpirationStatus::Enabled, Some(3));
    put(&store, there.clone()).await;
    store.lifecycle(true).await;
    let rules = rules(&store).await;
    assert_eq!((rules.len(), &rules[0]), (2, &there));
}

#[tokio::test]
async fn only_a_rule_that_is_in_force_for_all_our_keys_counts() {
    use ExpirationStatus::{Disabled, Enabled};
    let (_, server) = on(Quirks::S3).await;
    let store = server.store_with(S3Settings { prefix: "registry".into(), ..server.settings() }).await;
    for (prefix, status, days, verdict) in [
        ("", Enabled, Some(3), Verdict::Ok),
        ("registry/", Enabled, Some(3), Verdict::Ok),
        ("reg", Enabled, Some(3), Verdict::Ok),
        ("registry/data/", Enabled, Some(3), Verdict::Adapted),
        ("logs/", Enabled, Some(3), Verdict::Adapted),
        ("", Disabled, Some(3), Verdict::Adapted),
        ("", Enabled, None, Verdict::Adapted),
    ] {
        put(&store, rule(prefix, status.clone(), days)).await;
        assert_eq!(store.lifecycle(false).await.verdict, verdict, "{prefix:?} {status:?} {days:?}");
    }
}

#[tokio::test]
async fn a_store_that_knows_no_rules_is_no_failure() {
    let (store, server) = on(Quirks::S3).await;
    let unknown = "<Error><Code>NotImplemented</Code><Message>no such thing</Message></Error>";
    server.fail(Operation::Other, &Fault::Refused(StatusCode::NOT_IMPLEMENTED, unknown), 1);
    let finding = store.lifecycle(true).await;
    assert_eq!(finding.verdict, Verdict::Adapted);
    assert!(finding.seen.contains("no such thing"), "{finding}");
}
