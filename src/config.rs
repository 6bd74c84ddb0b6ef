//! Flags, then environment, then file, then defaults: read once into one typed [`Config`].
//!
//! Every setting is declared once, in the table below. The table gives its flag (`--data-dir`), its variable
//! (`MARINA_DATA_DIR`), its key in the file (`data_dir`), its help, its type and its default. What no setting answers to
//! is refused, with the nearest name: a misspelt setting that is silently ignored is worse than none. Rules of retention
//! are tables of the file.

use std::{fmt, io, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use tracing_subscriber::filter::{LevelFilter, Targets};

mod command;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod retention;
mod sources;
mod value;

pub use command::{Action, Checking, Invocation};
use retention::GivenRule;
pub use retention::{Age, Patterns, RetentionRule};
use sources::{Given, Sources};
pub use value::LogFormat;
pub use value::{Automatic, Encryption, Endpoint, Networks, OrZero, PartSize, StoreLocation, UrlLife};
use value::{Kind, Optional, Value};

/// One row of the table of settings.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    value_name: &'static str,
    help: &'static str,
    kind: Kind,
    default: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty, $value_name:literal, $default:literal;)+) => {
        /// What the operator decided. The limits that nobody needs to change are constants where they are used.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = $help])+ pub $name: $type,)+
            /// What to keep; without any rule, everything.
            pub retention: Vec<RetentionRule>,
        }

        #[expect(non_upper_case_globals, reason = "a row is named like its setting")]
        mod row {
            use super::*;

            $(pub(super) static $name: Setting = Setting {
                name: stringify!($name),
                value_name: $value_name,
                help: concat!($($help),+).trim_ascii(),
                kind: <$type as Value>::KIND,
                default: $default,
            };)+
        }

        static SETTINGS: &[&Setting] = &[$(&row::$name),+];

        impl Config {
            fn read(sources: &Sources) -> Result<Self, Error> {
                let retention = sources.retention.iter().map(|given| given.rule.clone()).collect();
                Ok(Self { $($name: sources.read(&row::$name)?,)+ retention })
            }
        }
    };
}

settings! {
    /// Address and port to listen on
    listen: SocketAddr, "ADDR", "127.0.0.1:5000";
    /// Where the registry is kept: a directory, or `s3://BUCKET[/PREFIX]`; --data-dir is the older name
    store: StoreLocation, "LOCATION", "./registry-data";
    /// URL of an S3 store that is not AWS
    s3_endpoint: Optional<Endpoint>, "URL", "";
    /// Region of the bucket; empty: as the environment or the instance says, or us-east-1 at an endpoint
    s3_region: Optional<String>, "REGION", "";
    /// Name the bucket in the path of URLs and not in the host: true, false or auto, which is true at an endpoint
    s3_path_style: Automatic, "WHEN", "auto";
    /// URL under which clients reach the S3 store; empty: the same
    s3_public_endpoint: Optional<Endpoint>, "URL", "";
    /// PEM file of authorities that may sign the certificate of the S3 store, beside those that the system trusts
    s3_ca_file: Optional<PathBuf>, "FILE", "";
    /// Access key; empty: the usual chain of environment, profile, web identity, container and instance
    s3_access_key_id: Optional<String>, "ID", "";
    /// File that holds the secret of the access key
    s3_secret_access_key_file: Optional<PathBuf>, "FILE", "";
    /// How the S3 store encrypts: bucket (as the bucket says), s3, kms or kms:KEY
    s3_encryption: Encryption, "HOW", "bucket";
    /// Storage class of the bytes of blobs; empty: the standard one
    s3_storage_class: Optional<String>, "CLASS", "";
    /// Size of the parts of an upload to S3; 10,000 of them hold the largest blob
    s3_part_size: PartSize, "SIZE", "8MiB";
    /// Clients that are sent to the S3 store for the bytes of blobs: none, or a list of networks such as 10.0.0.0/8, all for
    /// every network, and !10.1.0.0/16 for an exception; the smallest one that a client is in decides
    redirect: Networks, "NETWORKS", "none";
    /// Answers with fewer bytes of a blob are never redirected
    redirect_min_size: ByteSize, "SIZE", "1MiB";
    /// How long the URL of a redirect is valid, from 1m to 7 days; a download that has begun goes on
    redirect_ttl: UrlLife, "TIME", "20m";
    /// Proxies whose X-Forwarded-For says who the client is; networks, as for redirect
    trusted_proxies: Networks, "NETWORKS", "none";
    /// Run on a store that ignores conditional writes. Only one process may then use it: a second one, or a request that
    /// the store carries out late, would overwrite tags, manifests and blobs that were acknowledged, and nobody would know
    single_writer: bool, "BOOL", "false";
    /// Accept manifests that name blobs or manifests which the repository does not hold
    allow_missing_references: bool, "BOOL", "false";
    /// Let clients delete tags, manifests and blobs
    deletes: bool, "BOOL", "true";
    /// How long an unfinished upload is kept after its last chunk
    upload_expiry: Duration, "TIME", "24h";
    /// Collect what nothing needs any more, and retain by rules, in the background; with false only `gc` and `retain` do
    gc: bool, "BOOL", "true";
    /// How often the fleet looks for something to collect
    gc_interval: Duration, "TIME", "15m";
    /// How many calls a second the collector may make to the store, and so many a walk of retention
    gc_rate: NonZeroU32, "COUNT", "200";
    /// How long what was pushed is kept although nothing refers to it, and how long it then rests before it is taken
    grace: Duration, "TIME", "24h";
    /// How long a deleted manifest can be put back, with all that it names; 0s turns it off
    undelete: OrZero, "TIME", "7days";
    /// How often the fleet walks through what rules of retention are for; without rules it never does
    retention_interval: Duration, "TIME", "24h";
    /// Memory for the bodies of uploads in flight, all of them together
    memory: ByteSize, "SIZE", "32MiB";
    /// How long a client may stay silent, or leave what it is sent unread; a slow one is never cut
    idle_timeout: Duration, "TIME", "60s";
    /// How long requests in flight may take to finish when the server is asked to stop
    drain: Duration, "TIME", "30s";
    /// Most connections at one time; further ones wait
    max_connections: NonZeroU32, "COUNT", "10000";
    /// What to log: a level, or levels by module such as info,hyper=debug; not given, commands beside serve log from warn on
    log: Targets, "FILTER", "info";
    /// How to log: auto, human or json; auto is human on a terminal and json otherwise
    log_format: LogFormat, "FORMAT", "auto";
}

/// A [`Config`] that remembers where each value came from. Displayed, it is a configuration file.
#[derive(Clone, Debug)]
pub struct Effective {
    pub config: Config,
    given: Vec<(&'static Setting, Given)>,
    retention: Vec<GivenRule>,
}

impl Effective {
    fn read(sources: &Sources) -> Result<Self, Error> {
        let given = SETTINGS.iter().map(|setting| (*setting, sources.given(setting))).collect();
        Ok(Self { config: Config::read(sources)?, given, retention: sources.retention.clone() })
    }

    /// What a command logs that has a result to print: what went wrong, unless it was said what to log.
    pub fn log_beside_a_result(&self) -> Targets {
        let is_default =
            |(setting, given): &(&Setting, Given)| setting.name == row::log.name && given.origin == Origin::Default;
        if self.given.iter().any(is_default) {
            Targets::new().with_default(LevelFilter::WARN)
        } else {
            self.config.log.clone()
        }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (setting, given) in &self.given {
            let value = match setting.kind {
                Kind::Text => toml::Value::from(given.text.as_str()).to_string(),
                Kind::Integer | Kind::Boolean => given.text.clone(),
            };
            writeln!(f, "{} = {value}  # {}", setting.name, given.origin)?;
        }
        self.retention.iter().try_for_each(|given| given.fmt(f))
    }
}

/// Why there is no configuration. Each says where to look: a flag, a variable, or a line of a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What clap says about the command line, help and version included.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("cannot read the configuration file {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{origin}: {message}")]
    Syntax { origin: Origin, message: String },
    #[error("{origin}: there is no setting {name}{}", suggestion(nearest.as_deref()))]
    Unknown { origin: Origin, name: String, nearest: Option<String> },
    #[error("{origin}: {message}")]
    Value { origin: Origin, message: String },
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Variable(String),
    File { path: PathBuf, line: usize },
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(variable) => f.write_str(variable),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
