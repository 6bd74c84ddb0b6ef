//! The rule of the bucket by which the store drops what unfinished uploads leave behind.

use std::time::Duration;

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{
        AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleRule,
        LifecycleRuleFilter,
    },
};

use super::S3Store;
use crate::store::{
    Causes, Error, ErrorKind, Result,
    doctor::{Finding, Verdict},
};

/// The name of the rule that we install.
const RULE: &str = "marina-distribution: drop the parts of abandoned uploads";
/// After how many days at the least: of an upload with many chunks the last one may come days after the first.
const WEEK: i32 = 7;
const DAY: Duration = Duration::from_hours(24);
/// How a store says that it does not know such rules.
const UNTAKEN: [&str; 3] = ["NotImplemented", "MalformedXML", "InvalidArgument"];

impl S3Store {
    /// Whether the bucket has such a rule; if not, and it is asked for, one is added to those that are there. Uploads are
    /// kept for `upload_expiry` after their last chunk, and the days of a rule count from before their first.
    pub async fn lifecycle(&self, install: bool, upload_expiry: Duration) -> Finding {
        let least = whole_days(upload_expiry).saturating_add(1);
        let (verdict, seen, means) = match self.look_at_lifecycle(install.then_some(least.max(WEEK))).await {
            Ok(Rule::Days(days)) if days < least => (
                Verdict::Adapted,
                format!("dropped after {days} days, and kept for {least}"),
                "uploads that go on for longer are cut off and have to start again",
            ),
            Ok(Rule::Days(days)) => {
                (Verdict::Ok, format!("dropped after {days} days"), "abandoned uploads cost nothing in the long run")
            }
            Ok(Rule::Installed(days)) => {
                (Verdict::Ok, format!("a rule was added: dropped after {days} days"), "abandoned uploads cost nothing")
            }
            Ok(Rule::None) => (
                Verdict::Adapted,
                "no rule".to_owned(),
                "parts whose upload was lost before it was noted down stay: `doctor --install-lifecycle` adds a rule",
            ),
            Ok(Rule::Untaken) => (
                Verdict::Adapted,
                "the store takes no such rule".to_owned(),
                "see to it that the store drops abandoned uploads by itself: MinIO does, a day after they were begun",
            ),
            Err(error) => {
                let seen = format!("cannot be told: {}", Causes(&error));
                (Verdict::Adapted, seen, "see to it that the store drops the parts of abandoned uploads by itself")
            }
        };
        Finding { probe: "abandoned uploads", verdict, seen, means }
    }

    async fn look_at_lifecycle(&self, install: Option<i32>) -> Result<Rule> {
        let bucket = &self.settings.bucket;
        let mut rules = match self.client.get_bucket_lifecycle_configuration().bucket(bucket).send().await {
            Ok(answer) => answer.rules.unwrap_or_default(),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Vec::new(),
            Err(error) if error.code().is_some_and(|code| UNTAKEN.contains(&code)) => return Ok(Rule::Untaken),
            Err(error) => return Err(self.failed(error, || format!("lifecycle of {bucket}"))),
        };
        if let Some(days) = rules.iter().filter_map(|rule| self.days(rule)).min() {
            return Ok(Rule::Days(days));
        }
        let Some(days) = install else { return Ok(Rule::None) };
        let unbuilt = |error| Error::new(ErrorKind::Corrupt, "a rule").with_source(error);
        let rule = LifecycleRule::builder()
            .id(RULE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(&self.folder).build())
            .abort_incomplete_multipart_upload(
                AbortIncompleteMultipartUpload::builder().days_after_initiation(days).build(),
            );
        rules.push(rule.build().map_err(unbuilt)?);
        let whole = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().map_err(unbuilt)?;
        let put = self.client.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(whole);
        match put.send().await {
            Ok(_) => Ok(Rule::Installed(days)),
            Err(error) if error.code().is_some_and(|code| UNTAKEN.contains(&code)) => Ok(Rule::Untaken),
            Err(error) => Err(self.failed(error, || format!("lifecycle of {bucket}"))),
        }
    }

    /// After how many days a rule drops our parts.
    fn days(&self, rule: &LifecycleRule) -> Option<i32> {
        let days = rule.abort_incomplete_multipart_upload.as_ref()?.days_after_initiation;
        let filter = rule.filter.as_ref();
        // One that is for some objects only, by tag or by size, is not for ours.
        let is_for_all = filter.is_none_or(|it| {
            it.tag.is_none()
                && it.object_size_greater_than.is_none()
                && it.object_size_less_than.is_none()
                && it.and.is_none()
        });
        #[expect(deprecated, reason = "old rules have their prefix there")]
        let prefix = filter.and_then(|it| it.prefix.as_deref()).or(rule.prefix.as_deref()).unwrap_or_default();
        let is_ours = rule.status == ExpirationStatus::Enabled && is_for_all && self.folder.starts_with(prefix);
        days.filter(|_| is_ours)
    }
}

enum Rule {
    None,
    Days(i32),
    Installed(i32),
    Untaken,
}

/// In days, rounded up.
fn whole_days(time: Duration) -> i32 {
    i32::try_from(time.as_secs().div_ceil(DAY.as_secs())).unwrap_or(i32::MAX)
}
