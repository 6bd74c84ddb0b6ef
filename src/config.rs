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
mod tests {
    use std::{ffi::OsString, fs};

    use super::*;

    /// The effective configuration of a command line and an environment, or the text of the error.
    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Effective, String> {
        let arguments = ["marina-distribution"].iter().chain(arguments).map(OsString::from);
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Invocation::read(arguments, variables).map(|invocation| invocation.effective).map_err(|error| error.to_string())
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marina.toml");
        fs::write(&path, text).unwrap();
        (dir, path.to_str().unwrap().to_owned())
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        let config = read(&[], &[]).unwrap().config;
        assert_eq!(config.listen.to_string(), "127.0.0.1:5000");
        assert_eq!(config.store, StoreLocation::Directory("./registry-data".into()));
        assert_eq!(config.s3_endpoint.0, None);
        assert!(!config.allow_missing_references);
        assert_eq!(config.upload_expiry, Duration::from_hours(24));
        assert_eq!(config.memory, ByteSize::mib(32));
        assert_eq!(config.log_format, LogFormat::Auto);
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let (_dir, path) = file("drain = \"3s\"");
        let drain =
            |arguments: &[&str], variables: &[(&str, &str)]| read(arguments, variables).unwrap().config.drain.as_secs();
        assert_eq!(drain(&[], &[]), 30);
        assert_eq!(drain(&["--config", &path], &[]), 3);
        assert_eq!(drain(&["--config", &path], &[("MARINA_DRAIN", "2s")]), 2);
        assert_eq!(drain(&["--config", &path, "--drain", "1s"], &[("MARINA_DRAIN", "2s")]), 1);
    }

    #[test]
    fn the_flag_that_names_the_file_beats_the_variable() {
        let (_one, one) = file("drain = \"1s\"");
        let (_two, two) = file("drain = \"2s\"");
        let drain = |arguments: &[&str]| read(arguments, &[("MARINA_CONFIG", &two)]).unwrap().config.drain.as_secs();
        assert_eq!(drain(&[]), 2);
        assert_eq!(drain(&["--config", &one]), 1);
    }

    #[test]
    fn a_store_is_a_directory_or_a_bucket_with_or_without_a_prefix() {
        let store = |arguments: &[&str]| read(arguments, &[]).unwrap().config.store;
        let bucket =
            |bucket: &str, prefix: &str| StoreLocation::Bucket { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(store(&["--store", "/var/registry"]), StoreLocation::Directory("/var/registry".into()));
        assert_eq!(store(&["--store", "s3://images"]), bucket("images", ""));
        assert_eq!(store(&["--store", "s3://images/a/b/"]), bucket("images", "a/b"));
        for wrong in ["", "s3://", "s3:///a", "http://images", "gs://images"] {
            assert!(read(&["--store", wrong], &[]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_older_name_of_the_store_is_the_same_setting_in_every_source() {
        let (_dir, path) = file("data_dir = \"a\"");
        let store = |arguments: &[&str], variables: &[(&str, &str)]| {
            read(arguments, variables).unwrap().config.store.to_string()
        };
        assert_eq!(store(&["--config", &path], &[]), "a");
        assert_eq!(store(&["--config", &path], &[("MARINA_DATA_DIR", "b")]), "b");
        assert_eq!(store(&["--data-dir", "c"], &[("MARINA_DATA_DIR", "b")]), "c");
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for arguments in [&["--drain", "1s"][..], &["--drain", "1s", "serve"], &["serve", "--drain", "1s"]] {
            assert_eq!(read(arguments, &[]).unwrap().config.drain.as_secs(), 1, "{arguments:?}");
        }
    }

    #[test]
    fn putting_back_can_be_turned_off_and_no_other_time_can_be_zero() {
        assert_eq!(read(&["--undelete", "0s"], &[]).unwrap().config.undelete, OrZero(Duration::ZERO));
        assert_eq!(read(&["--undelete", "2s"], &[]).unwrap().config.undelete, OrZero(Duration::from_secs(2)));
        assert!(read(&["--undelete", "soon"], &[]).is_err());
        assert!(read(&["--grace", "0s"], &[]).is_err());
    }

    #[test]
    fn a_switch_can_be_turned_off_again() {
        let on = [("MARINA_ALLOW_MISSING_REFERENCES", "true")];
        assert!(read(&["--allow-missing-references"], &[]).unwrap().config.allow_missing_references);
        assert!(read(&[], &on).unwrap().config.allow_missing_references);
        assert!(!read(&["--allow-missing-references=false"], &on).unwrap().config.allow_missing_references);
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_name() {
        let (_dir, path) = file("# a comment\nlissten = \"127.0.0.1:1\"\n");
        assert_eq!(
            read(&["--config", &path], &[]).unwrap_err(),
            format!("{path}:2: there is no setting lissten; did you mean listen?")
        );
        assert_eq!(
            read(&[], &[("MARINA_DATADIR", "x")]).unwrap_err(),
            "MARINA_DATADIR: there is no setting datadir; did you mean MARINA_DATA_DIR?"
        );
        assert_eq!(
            read(&[], &[("MARINA_CONFG", "x")]).unwrap_err(),
            "MARINA_CONFG: there is no setting confg; did you mean MARINA_CONFIG?"
        );
        assert_eq!(read(&[], &[("MARINA_ZZZZZZ", "x")]).unwrap_err(), "MARINA_ZZZZZZ: there is no setting zzzzzz");
    }

    #[test]
    fn the_variables_by_which_kubernetes_describes_services_are_ignored() {
        let links = ["MARINA_SERVICE_HOST", "MARINA_PORT", "MARINA_PORT_5000_TCP_ADDR", "MARINA_UI_SERVICE_PORT_HTTP"];
        for link in links {
            assert!(read(&[], &[(link, "tcp://10.0.0.1:5000")]).is_ok(), "{link}");
        }
        let clash = |setting: &&&Setting| format!("_{}_", setting.name).contains("_port_");
        assert!(SETTINGS.iter().find(clash).is_none(), "a setting named like a service link would be ignored");
    }

    #[test]
    fn a_wrong_value_says_where_it_stands() {
        let (_dir, path) = file("drain = \"1s\"\nmax_connections = \"many\"\n");
        assert_eq!(read(&["--config", &path], &[]).unwrap_err(), format!("{path}:2: expected 10000, found a string"));
        let (_dir, path) = file("\n\nlisten = \"nowhere\"\n");
        assert!(read(&["--config", &path], &[]).unwrap_err().starts_with(&format!("{path}:3: expected an address")));
        assert!(read(&[], &[("MARINA_DRAIN", "soon")]).unwrap_err().starts_with("MARINA_DRAIN: expected a time"));
        assert!(read(&["--drain", "soon"], &[]).unwrap_err().starts_with("--drain: expected a time"));
    }

    #[test]
    fn a_file_that_is_no_toml_says_which_line() {
        let (_dir, path) = file("drain = \"1s\"\n= 3\n");
        assert!(read(&["--config", &path], &[]).unwrap_err().starts_with(&format!("{path}:2: ")));
    }

    #[test]
    fn a_text_without_quotes_is_told_that_it_needs_them() {
        let (_dir, path) = file("\nlisten = 127.0.0.1:5000\n");
        let why = read(&["--config", &path], &[]).unwrap_err();
        assert!(why.starts_with(&format!("{path}:2: ")), "{why}");
        assert!(why.ends_with("; texts are quoted: listen = \"127.0.0.1:5000\""), "{why}");
        let (_dir, path) = file("listen = \"127.0.0.1:5000\nx");
        assert!(!read(&["--config", &path], &[]).unwrap_err().contains("quoted: "));
    }

    #[test]
    fn a_switch_that_is_followed_by_a_word_is_told_how_it_is_written() {
        for word in ["true", "false"] {
            let why = read(&["serve", "--deletes", word], &[]).unwrap_err();
            assert_eq!(why, format!("--deletes: expected --deletes={word}, found a space"));
        }
    }

    #[test]
    fn what_is_displayed_reads_back_as_the_same_configuration() {
        let odd =
            ["--data-dir", "a \"quoted\" # dir", "--memory", "1234567", "--max-connections", "7", "--log", "warn"];
        let given = read(&odd, &[("MARINA_ALLOW_MISSING_REFERENCES", "true")]).unwrap();
        let (_dir, path) = file(&given.to_string());
        assert_eq!(read(&["--config", &path], &[]).unwrap().config, given.config);
    }

    #[test]
    fn a_command_logs_what_went_wrong_unless_it_is_told_what_to_log() {
        let level =
            |variables: &[(&str, &str)]| read(&["gc"], variables).unwrap().log_beside_a_result().default_level();
        assert_eq!(level(&[]), Some(LevelFilter::WARN));
        assert_eq!(level(&[("MARINA_LOG", "info")]), Some(LevelFilter::INFO));
    }

    #[test]
    fn what_is_displayed_says_where_each_value_came_from() {
        let (_dir, path) = file("\nmemory = \"1MiB\"");
        let shown = read(&["--config", &path, "--drain", "1s"], &[("MARINA_LOG", "warn")]).unwrap().to_string();
        assert!(shown.contains(&format!("memory = \"1MiB\"  # {path}:2\n")), "{shown}");
        assert!(shown.contains("drain = \"1s\"  # --drain\n"), "{shown}");
        assert!(shown.contains("log = \"warn\"  # MARINA_LOG\n"), "{shown}");
        assert!(shown.contains("listen = \"127.0.0.1:5000\"  # default\n"), "{shown}");
    }
}
