//! The rule for what abandoned uploads leave.

use std::time::Duration;

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

const DAY: Duration = Duration::from_hours(24);

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
    assert_eq!(store.lifecycle(false, DAY).await.verdict, Verdict::Adapted);
    assert_eq!(rules(&store).await, []);
    let finding = store.lifecycle(true, DAY).await;
    assert_eq!((finding.verdict, finding.seen.as_str()), (Verdict::Ok, "a rule was added: dropped after 7 days"));
    let installed = rules(&store).await;
    let [rule] = installed.as_slice() else { panic!("{installed:?}") };
    assert_eq!(rule.filter().unwrap().prefix(), Some("registry/"), "the rest of the bucket is not ours");
    assert_eq!(store.lifecycle(true, DAY).await.seen, "dropped after 7 days");
    assert_eq!(rules(&store).await, installed);
}

#[tokio::test]
async fn rules_that_are_there_stay() {
    let (store, _server) = on(Quirks::S3).await;
    let there = rule("logs/", ExpirationStatus::Enabled, Some(3));
    put(&store, there.clone()).await;
    store.lifecycle(true, DAY).await;
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
        ("", Enabled, Some(2), Verdict::Ok),
        ("", Enabled, Some(1), Verdict::Adapted),
        ("registry/data/", Enabled, Some(3), Verdict::Adapted),
        ("logs/", Enabled, Some(3), Verdict::Adapted),
        ("", Disabled, Some(3), Verdict::Adapted),
        ("", Enabled, None, Verdict::Adapted),
    ] {
        put(&store, rule(prefix, status.clone(), days)).await;
        assert_eq!(store.lifecycle(false, DAY).await.verdict, verdict, "{prefix:?} {status:?} {days:?}");
    }
}

#[tokio::test]
async fn a_rule_that_is_added_leaves_an_upload_a_week_or_a_day_more_than_its_expiry() {
    for (expiry, days) in
        [(Duration::from_secs(1), 7), (6 * DAY, 7), (6 * DAY + Duration::from_secs(1), 8), (90 * DAY, 91)]
    {
        let (store, _server) = on(Quirks::S3).await;
        store.lifecycle(true, expiry).await;
        let finding = store.lifecycle(false, expiry).await;
        assert_eq!((finding.verdict, finding.seen), (Verdict::Ok, format!("dropped after {days} days")), "{expiry:?}");
    }
}

#[tokio::test]
async fn a_store_that_knows_no_rules_is_no_failure() {
    let (store, server) = on(Quirks::S3).await;
    let unknown = "<Error><Code>NotImplemented</Code><Message>no such thing</Message></Error>";
    // MinIO has rules, of other kinds.
    let invalid = "<Error><Code>InvalidArgument</Code><Message>not well-formed</Message></Error>";
    for (well, status, refusal) in [(0, StatusCode::NOT_IMPLEMENTED, unknown), (1, StatusCode::BAD_REQUEST, invalid)] {
        server.fail_later(Operation::Other, well, &Fault::Refused(status, refusal));
        let finding = store.lifecycle(true, DAY).await;
        assert_eq!((finding.verdict, finding.seen.as_str()), (Verdict::Adapted, "the store takes no such rule"));
    }
}

#[tokio::test]
async fn a_store_that_does_not_let_us_see_its_rules_is_no_failure() {
    let (store, server) = on(Quirks::S3).await;
    let denied = "<Error><Code>AccessDenied</Code><Message>not for you</Message></Error>";
    server.fail(Operation::Other, &Fault::Refused(StatusCode::FORBIDDEN, denied), 1);
    let finding = store.lifecycle(true, DAY).await;
    assert_eq!(finding.verdict, Verdict::Adapted);
    assert!(finding.seen.contains("not for you"), "{finding}");
}
