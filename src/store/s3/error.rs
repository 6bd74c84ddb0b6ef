//! What the store's answers mean.

use std::{
    fmt,
    iter::successors,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{FinalizerInterceptorContextRef, InterceptorContext},
        retry::{ClassifyRetry, RetryAction},
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
};

use super::S3Store;
use crate::store::{Error, ErrorKind, Result};

/// An answer that says no, as far as it tells why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal<'a> {
    /// Zero: no answer came.
    status: u16,
    code: &'a str,
}

impl<'a> Refusal<'a> {
    pub(super) fn of<E: ProvideErrorMetadata>(error: &'a SdkError<E>) -> Self {
        let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
        Self { status, code: error.code().unwrap_or_default() }
    }

    /// The store says that there is no such object. A 404 alone does not: it may be of a proxy without a route, or for want
    /// of the bucket, and then nothing is known of any object.
    pub(super) fn is_absent(self) -> bool {
        self.status == 404 && self.code == "NoSuchKey"
    }

    /// The answer to a HEAD has no body, and so no code.
    pub(super) fn is_unexplained(self) -> bool {
        self.status == 404
    }

    pub(super) fn is_no_upload(self) -> bool {
        self.code == "NoSuchUpload"
    }

    pub(super) fn is_unmet_condition(self) -> bool {
        self.status == 412
    }

    pub(super) fn is_beyond_the_end(self) -> bool {
        self.status == 416
    }

    fn kind(self) -> ErrorKind {
        match (self.status, self.code) {
            (_, "NoSuchUpload") => ErrorKind::NotFound,
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded") => ErrorKind::Full,
            (429, _) | (_, "SlowDown" | "SlowDownRead" | "SlowDownWrite" | "TooManyRequests") => ErrorKind::Throttled,
            (_, "Throttling" | "ThrottlingException" | "RequestThrottled" | "RequestLimitExceeded") => {
                ErrorKind::Throttled
            }
            // The way to the store, or the time: nothing is said of the object.
            (404 | 408 | 409 | 412 | 425, _)
            | (_, "RequestTimeout" | "RequestTimeTooSkewed" | "BadDigest" | "IncompleteBody") => ErrorKind::Unavailable,
            // Missing rights, or a key of KMS, or an object in an archive: an operator may mend it, a client cannot.
            (400..=499, _) => ErrorKind::Refused,
            _ => ErrorKind::Unavailable,
        }
    }
}

impl S3Store {
    /// The store's error in our kinds. It says what the store answered, or why no answer came, and never what was sent:
    /// no credentials.
    pub(super) fn failed<E>(&self, error: SdkError<E>, context: impl FnOnce() -> String) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let refusal = Refusal::of(&error);
        let failed = Error::new(refusal.kind(), context());
        if refusal.status != 0 {
            let (status, code) = (refusal.status, refusal.code.to_owned());
            return failed.with_source(Answer { status, code, message: error.message().map(str::to_owned) });
        }
        let mut causes = successors(Some(&error as &dyn std::error::Error), |error| error.source());
        if causes.any(<dyn std::error::Error>::is::<CredentialsError>) {
            return failed.with_source(NoCredentials(error.into()));
        }
        failed.with_source(NoAnswer { place: self.place().to_owned(), source: error.into() })
    }

    pub(super) fn place(&self) -> &str {
        self.settings.endpoint.as_deref().unwrap_or("AWS")
    }
}

/// What the store said, without the rest of what the SDK knows of it.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Empty where none was given, as in the answer to a HEAD.
    code: String,
    message: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), &self.message) {
            ("", _) => write!(f, "status {}, and no reason given", self.status),
            (code, None) => f.write_str(code),
            (code, Some(message)) => write!(f, "{code}: {message}"),
        }
    }
}

impl std::error::Error for Answer {}

#[derive(Debug, thiserror::Error)]
#[error("no answer from {place}")]
struct NoAnswer {
    place: String,
    source: BoxError,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "no credentials: set s3_access_key_id and s3_secret_access_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
     or give the host or the service account a role"
)]
struct NoCredentials(#[source] BoxError);

/// Whether an earlier attempt at a request may have taken effect although no answer said so.
///
/// If it may, then an unmet condition proves nothing: perhaps it is our own write that is in the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// The value of a lost race, if it is certain.
    pub(super) fn settle<T>(&self, lost: T, context: impl FnOnce() -> String) -> Result<T> {
        if self.0.load(Relaxed) {
            let context = format!("{}: lost, or done by an attempt that was never answered", context());
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        Ok(lost)
    }
}

impl Intercept for Doubt {
    fn name(&self) -> &'static str {
        "Doubt"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        // A 4xx did nothing. Anything else may have, the last attempt aside, of which the answer is at hand.
        if !context.response().is_some_and(|answer| answer.status().is_client_error()) {
            self.0.store(true, Relaxed);
        }
        Ok(())
    }
}

/// Two conditional writes met and the store let neither through: the SDK would give up, and S3 says to try again.
#[derive(Debug)]
pub(super) struct RetryConflicts;

impl ClassifyRetry for RetryConflicts {
    fn name(&self) -> &'static str {
        "RetryConflicts"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response() {
            Some(answer) if answer.status().as_u16() == 409 => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }
}
