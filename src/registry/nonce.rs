//! Names and contents that have never been before.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// 128 random bits that make a register's content new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Nonce([u8; 16]);

impl Nonce {
    /// The length of its text.
    pub(crate) const LENGTH: usize = 22;

    pub(crate) fn fresh() -> Self {
        Self(random())
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        BASE64URL_NOPAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl TryFrom<String> for Nonce {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text.as_bytes()).ok_or("not a nonce")
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

/// An id that has never been used before.
pub(crate) fn fresh_id() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// An id that has never been used before and that begins with a time, in seconds since the epoch: ids of one kind sort by
/// it, and a list tells the time without a read.
pub(crate) fn timed_id(seconds: u64) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(seconds.saturating_mul(1000), &random()).into_uuid()
}

/// The time that [`timed_id`] was given.
pub(crate) fn time_of(id: Uuid) -> u64 {
    id.get_timestamp().map_or(0, |time| time.to_unix().0)
}

/// An id that has never been used before and that begins with a time counted down, in milliseconds since the epoch: a list
/// begins with the latest.
pub(crate) fn latest_first_id(milliseconds: u64) -> Uuid {
    let countdown = LAST_MILLISECOND.saturating_sub(milliseconds);
    uuid::Builder::from_unix_timestamp_millis(countdown, &random()).into_uuid()
}

/// The time that [`latest_first_id`] was given.
pub(crate) fn milliseconds_of(id: Uuid) -> u64 {
    let (seconds, nanoseconds) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
    LAST_MILLISECOND.saturating_sub(seconds * 1000 + u64::from(nanoseconds) / 1_000_000)
}

/// The last that an id has room for: in the year 10889.
const LAST_MILLISECOND: u64 = (1 << 48) - 1;

/// Random bytes from the operating system. On Linux that cannot fail once the system has booted; where it does, no
/// promise of this registry can be kept, so it stops.
#[expect(clippy::expect_used, reason = "without randomness names would be reused, and data lost")]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has no randomness");
    bytes
}
