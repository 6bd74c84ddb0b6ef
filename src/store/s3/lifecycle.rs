//! The rule of the bucket by which the store drops what unfinished uploads leave behind.

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    types::{
        AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleRule,
        LifecycleRuleFilter,
    },
};

use super::{S3Store, error::failed};
use crate::store::{
    Error, ErrorKind, Result,
    doctor::{Finding, Verdict, causes},
};

/// The name of the rule that we install.
const RULE: &str = "marina-distribution: drop the parts of abandoned uploads";
/// After how many days. Sessions live a day after their last chunk, and may have many.
const DAYS: i32 = 7;

impl S3Store {
    /// Whether the bucket has such a rule; if not, and it is asked for, one is added to those that are there.
    pub async fn lifecycle(&self, install: bool) -> Finding {
        let (verdict, seen, means) = match self.look_at_lifecycle(install).await {
            Ok(Rule::Days(days)) => {
                (Verdict::Ok, format!("dropped after {days} days"), "abandoned uploads cost nothing in the long run")
            }
            Ok(Rule::Installed) => {
                (Verdict::Ok, format!("a rule was added: dropped after {DAYS} days"), "abandoned uploads cost nothing")
            }
            Ok(Rule::None) => (
                Verdict::Adapted,
                "no rule".to_owned(),
                "parts whose upload was lost before it was noted down stay: `doctor --install-lifecycle` adds a rule",
            ),
            Err(error) => {
                let seen = format!("cannot be told: {}", causes(&error));
                (Verdict::Adapted, seen, "see to it that the store drops the parts of abandoned uploads by itself")
            }
        };
        Finding { probe: "abandoned uploads", verdict, seen, means }
    }

    async fn look_at_lifecycle(&self, install: bool) -> Result<Rule> {
        let bucket = &self.settings.bucket;
        let mut rules = match self.client.get_bucket_lifecycle_configuration().bucket(bucket).send().await {
            Ok(answer) => answer.rules.unwrap_or_default(),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Vec::new(),
            Err(error) => return Err(failed(error, || format!("lifecycle of {bucket}"))),
        };
        if let Some(days) = rules.iter().filter_map(|rule| self.days(rule)).min() {
            return Ok(Rule::Days(days));
        }
        if !install {
            return Ok(Rule::None);
        }
        let unbuilt = |error| Error::new(ErrorKind::Corrupt, "a rule").with_source(error);
        let rule = LifecycleRule::builder()
            .id(RULE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(&self.folder).build())
            .abort_incomplete_multipart_upload(
                AbortIncompleteMultipartUpload::builder().days_after_initiation(DAYS).build(),
            );
        rules.push(rule.build().map_err(unbuilt)?);
        let whole = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().map_err(unbuilt)?;
        let put = self.client.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(whole);
        put.send().await.map_err(|error| failed(error, || format!("lifecycle of {bucket}")))?;
        Ok(Rule::Installed)
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
    Installed,
}
