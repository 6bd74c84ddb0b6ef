//! How long the store is waited for.
//!
//! A store that hangs looks like one that has much to do. Whoever waits for it holds a client and its memory, and the
//! breaker learns nothing meanwhile: so a call waits for seconds, and longer only for what may rightly take longer.

use std::time::Duration;

use aws_sdk_s3::config::{Builder, timeout::TimeoutConfig};

use super::S3Settings;

/// The bytes per second at which a body is still worth waiting for, with others beside it.
const SLOWEST: usize = 256 << 10;
/// How many times as long as others an upload of thousands of parts may take to be completed.
const COMPLETING: u32 = 6;

/// For calls that carry little.
pub(super) fn usual(settings: &S3Settings) -> TimeoutConfig {
    attempts_of(settings, settings.answer_timeout)
}

/// For a call that carries this many bytes.
pub(super) fn carrying(settings: &S3Settings, bytes: usize) -> Builder {
    Builder::new().timeout_config(attempts_of(settings, settings.answer_timeout.saturating_add(transfer(bytes))))
}

pub(super) fn completing(settings: &S3Settings) -> Builder {
    Builder::new().timeout_config(attempts_of(settings, settings.answer_timeout * COMPLETING))
}

fn transfer(bytes: usize) -> Duration {
    Duration::from_secs((bytes / SLOWEST) as u64)
}

/// Retries fit into what is left of the time after an attempt that failed early, and a little more.
fn attempts_of(settings: &S3Settings, attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt.saturating_add(settings.answer_timeout))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_hangs_is_given_up_in_seconds_and_no_transfer_that_goes_on_is() {
        let settings = S3Settings::new("bucket");
        let usual = usual(&settings);
        assert!(usual.operation_timeout().unwrap() <= Duration::from_secs(10));
        assert!(usual.operation_attempt_timeout() < usual.operation_timeout(), "no time for a second attempt");
        assert_eq!(transfer(1000), Duration::ZERO);
        assert!(transfer(8 << 20) >= Duration::from_secs(30), "four parts at once over 8 Mbit/s");
        assert!(transfer(5 << 30) < Duration::from_hours(6));
    }
}
