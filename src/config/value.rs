//! How the value of a setting is written.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
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

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// A setting that need not be given; empty: it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optional<T>(pub Option<T>);

impl<T: Value> Value for Optional<T> {
    const KIND: Kind = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(None)) } else { T::parse(text).map(|value| Self(Some(value))) }
    }
}

/// Where a registry is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    Directory(PathBuf),
    /// The prefix is without slashes at its ends; empty: the whole bucket.
    Bucket {
        bucket: String,
        prefix: String,
    },
}

impl Value for StoreLocation {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected a directory or s3://BUCKET[/PREFIX]";
        let Some(location) = text.strip_prefix("s3://") else {
            return if text.is_empty() || text.contains("://") {
                Err(expected.to_owned())
            } else {
                Ok(Self::Directory(text.into()))
            };
        };
        let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
        if bucket.is_empty() {
            return Err(expected.to_owned());
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Yes, no, or as it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Automatic {
    Auto,
    Is(bool),
}

impl Automatic {
    pub fn or(self, fitting: bool) -> bool {
        match self {
            Self::Auto => fitting,
            Self::Is(decided) => decided,
        }
    }
}

impl Value for Automatic {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Is(true)),
            "false" => Ok(Self::Is(false)),
            _ => Err("expected true, false or auto".to_owned()),
        }
    }
}

/// How an S3 store encrypts what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    Bucket,
    S3,
    Kms(Option<String>),
}

impl Value for Encryption {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "bucket" => Ok(Self::Bucket),
            None if text == "s3" => Ok(Self::S3),
            None if text == "kms" => Ok(Self::Kms(None)),
            Some(("kms", key)) if !key.is_empty() => Ok(Self::Kms(Some(key.to_owned()))),
            _ => Err("expected bucket, s3, kms or kms:KEY".to_owned()),
        }
    }
}

/// Networks that are meant (`true`), and exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(pub Vec<(IpNet, bool)>);

impl Value for Networks {
    fn parse(text: &str) -> Result<Self, String> {
        let mut networks = Vec::new();
        for word in text.split(',').map(str::trim).filter(|_| text != "none") {
            let (network, meant) = word.strip_prefix('!').map_or((word, true), |exception| (exception, false));
            let network: Option<IpNet> = network.parse().ok().or_else(|| Some(network.parse::<IpAddr>().ok()?.into()));
            match network {
                Some(network) => networks.push((network, meant)),
                None if word == "all" => {
                    networks.extend([(Ipv4Net::default().into(), true), (Ipv6Net::default().into(), true)]);
                }
                None => return Err("expected none, or networks such as 10.0.0.0/8,!10.1.0.0/16 or all".to_owned()),
            }
        }
        Ok(Self(networks))
    }
}

/// How long a URL is valid: long enough to be used, and as long as S3 lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlLife(pub Duration);

impl Value for UrlLife {
    fn parse(text: &str) -> Result<Self, String> {
        let life = Duration::parse(text).ok();
        let life = life.filter(|life| (Duration::from_mins(1)..=Duration::from_hours(7 * 24)).contains(life));
        life.map(Self).ok_or_else(|| "expected a time from 1m to 7days".to_owned())
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

/// A time that may be none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrZero(pub Duration);

impl Value for OrZero {
    fn parse(text: &str) -> Result<Self, String> {
        if humantime::parse_duration(text).is_ok_and(|time| time.is_zero()) {
            return Ok(Self(Duration::ZERO));
        }
        Duration::parse(text).map(Self).map_err(|_| "expected a time of up to a year, such as 0s or 7d".to_owned())
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

/// The size of a part, as S3 takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize(pub ByteSize);

impl Value for PartSize {
    fn parse(text: &str) -> Result<Self, String> {
        let size = ByteSize::parse(text).ok().filter(|size| (ByteSize::mib(5)..=ByteSize::gib(5)).contains(size));
        size.map(Self).ok_or_else(|| "expected a size from 5MiB to 5GiB".to_owned())
    }
}

/// Where a store is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(pub String);

impl Value for Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = host.filter(|host| !host.is_empty());
        host.map(|_| Self(text.to_owned())).ok_or_else(|| "expected a URL such as https://s3.example.org".to_owned())
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
    fn networks_are_none_or_all_or_a_list_with_exceptions() {
        let network = |text: &str, meant: bool| (text.parse().unwrap(), meant);
        let all = [network("0.0.0.0/0", true), network("::/0", true)];
        let list = [network("10.0.0.0/8", true), network("10.1.0.1/32", false), network("fd00::/8", true)];
        assert_eq!(Networks::parse("none"), Ok(Networks(vec![])));
        assert_eq!(Networks::parse("all"), Ok(Networks(all.to_vec())));
        assert_eq!(Networks::parse("10.0.0.0/8, !10.1.0.1,fd00::/8"), Ok(Networks(list.to_vec())));
        for wrong in ["", "10.0.0.0/33", "10.0.0.0/8,", "none,all", "!all", "here", "10.0.0.0/8 10.1.0.0/16"] {
            assert!(Networks::parse(wrong).is_err(), "{wrong:?} was taken for networks");
        }
    }

    // REDIR-2
    #[test]
    fn a_url_lives_for_a_minute_at_least_and_no_longer_than_s3_lets_it() {
        assert_eq!(UrlLife::parse("7 days"), Ok(UrlLife(Duration::from_hours(7 * 24))));
        for wrong in ["59s", "7 days 1s", ""] {
            assert!(UrlLife::parse(wrong).is_err(), "{wrong:?} was taken for the life of a URL");
        }
    }

    #[test]
    fn a_part_is_as_large_as_s3_takes_it_and_an_endpoint_says_how_it_is_spoken_to() {
        assert_eq!(PartSize::parse("5MiB"), Ok(PartSize(ByteSize::mib(5))));
        for wrong in ["4MiB", "5MB", "6GiB", ""] {
            assert!(PartSize::parse(wrong).is_err(), "{wrong:?} was taken for the size of a part");
        }
        assert_eq!(Endpoint::parse("http://minio:9000"), Ok(Endpoint("http://minio:9000".to_owned())));
        for wrong in ["minio:9000", "s3.example.org", "https://", "ftp://x", ""] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong:?} was taken for an endpoint");
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
