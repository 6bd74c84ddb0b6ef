//! How the value of a setting is written.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use tracing_subscriber::filter::Targets;

/// Longer than anything that one would configure, and short enough that no clock overflows.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// What stands in a file: the form of a value in TOML. In flags and variables all are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
}

/// A type that a setting can have.
pub(super) trait Value: Sized {
    const KIND: Kind = Kind::Text;

    /// The error says what was expected.
    fn parse(text: &str) -> Result<Self, String>;
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:5000 or [::]:5000".to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(Self::from(text)) }
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected true or false".to_owned())
    }
}

impl Value for NonZeroU32 {
    const KIND: Kind = Kind::Integer;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("expected a number from 1 to {}", u32::MAX))
    }
}

/// Longer than zero, at most a year.
impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .ok()
            .filter(|time| !time.is_zero() && *time <= LONGEST)
            .ok_or_else(|| "expected a time longer than zero and up to a year, such as 30s or 24h".to_owned())
    }
}

impl Value for ByteSize {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|size: &Self| size.as_u64() > 0)
            .ok_or_else(|| "expected a size larger than zero, such as 512KiB or 32MiB".to_owned())
    }
}

impl Value for Targets {
    fn parse(text: &str) -> Result<Self, String> {
        Self::from_str(text).map_err(|_| "expected a level, or levels by module such as info,hyper=debug".to_owned())
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    Human,
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("expected auto, human or json".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_carry_units_and_are_never_zero() {
        assert_eq!(ByteSize::parse("32MiB"), Ok(ByteSize::mib(32)));
        assert_eq!(ByteSize::parse("1000"), Ok(ByteSize::b(1000)));
        assert_eq!(Duration::parse("1h 30m"), Ok(Duration::from_mins(90)));
        for wrong in ["", "0", "0s", "-1s", "30", "2 years", "soon"] {
            assert!(Duration::parse(wrong).is_err(), "{wrong:?} was taken for a time");
        }
        for wrong in ["", "0", "0MiB", "-1MiB", "much"] {
            assert!(ByteSize::parse(wrong).is_err(), "{wrong:?} was taken for a size");
        }
    }

    #[test]
    fn an_empty_value_is_no_value_of_any_setting_but_the_filter() {
        assert!(SocketAddr::parse("").is_err());
        assert!(PathBuf::parse("").is_err());
        assert!(bool::parse("").is_err());
        assert!(NonZeroU32::parse("").is_err());
        assert!(LogFormat::parse("").is_err());
    }
}
