//! What time it is at the store.
//!
//! A URL says from when it is valid, and a store refuses one that is not valid yet, or no more, by its own clock: ours may
//! be hours off. The SDK corrects by the same header the requests that it sends itself, and never a URL.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef},
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};
use tokio::time::Instant;

use super::S3Store;
use crate::store::doctor::{Finding, Verdict};

/// Less than this is no difference.
const MINUTE: Duration = Duration::from_mins(1);

/// The `Date` of the store's last answer, and what has passed since. No clock of this machine is read that could be set.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreClock(Arc<Mutex<Option<(SystemTime, Instant)>>>);

impl StoreClock {
    /// Up to a second behind, and never ahead. `None`: no answer has told it yet.
    pub(super) fn now(&self) -> Option<SystemTime> {
        let (date, heard) = (*self.last())?;
        date.checked_add(heard.elapsed())
    }

    fn last(&self) -> MutexGuard<'_, Option<(SystemTime, Instant)>> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for StoreClock {
    fn name(&self) -> &'static str {
        "StoreClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(date) = date.and_then(|date| SystemTime::try_from(date).ok()) {
            *self.last() = Some((date, Instant::now()));
        }
        Ok(())
    }
}

impl S3Store {
    /// How far the clock of this machine is off, if it says `ours` now.
    pub fn clock(&self, ours: SystemTime) -> Finding {
        let (verdict, seen, means) = match self.clock.now() {
            Some(theirs) => compare(ours, theirs),
            None => (
                Verdict::Adapted,
                "the store says no time".to_owned(),
                "see to it that the clock is right, or the store refuses what is signed by it",
            ),
        };
        Finding { probe: "clock", verdict, seen, means }
    }
}

fn compare(ours: SystemTime, theirs: SystemTime) -> (Verdict, String, &'static str) {
    let (off, which) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if off < MINUTE {
        let means = "uploads expire when they should";
        return (Verdict::Ok, "within a minute of the store's".to_owned(), means);
    }
    let off = humantime::format_duration(Duration::from_secs(off.as_secs()));
    let means =
        "what is signed is signed by the store's; uploads expire early where this one is ahead, and late where not";
    (Verdict::Adapted, format!("{off} {which} the store's"), means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_by_a_minute_is_told() {
        let theirs = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        for (ours, verdict, told) in [
            (theirs, Verdict::Ok, "within a minute of the store's"),
            (theirs + MINUTE - Duration::from_millis(1), Verdict::Ok, "within a minute of the store's"),
            (theirs + MINUTE, Verdict::Adapted, "1m ahead of the store's"),
            (theirs - Duration::from_millis(3_723_456), Verdict::Adapted, "1h 2m 3s behind the store's"),
        ] {
            let (found, seen, _) = compare(ours, theirs);
            assert_eq!((found, &*seen), (verdict, told));
        }
    }
}
