//! The command line.

use std::{ffi::OsString, num::NonZeroU64, path::Path, time::SystemTime};

use bytesize::ByteSize;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{
    Effective, Error, Kind, Origin, SETTINGS, Setting,
    sources::{self, File, Given, Layer, Sources},
};

const AFTER_HELP: &str = "\
Every setting is a flag, a variable or a key of the file named by --config, in this order:
--listen ADDR, MARINA_LISTEN=ADDR, listen = \"ADDR\".

Without a command, the server is started.";

const DEEP: &str = "deep";
const RATE: &str = "rate";
const SAMPLE: &str = "sample";
const AFTER: &str = "after";
const REPAIR: &str = "repair";
const JSON: &str = "json";
const INSTALL_LIFECYCLE: &str = "install_lifecycle";
const ONCE: &str = "once";
const DRY_RUN: &str = "dry_run";
const FULL: &str = "full";
const SUBJECT: &str = "subject";
const AT: &str = "at";
const LIVE: &str = "live";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the registry.
    Serve,
    /// Verify what is stored.
    Check(Checking),
    /// Find out what the store can do.
    Doctor { install_lifecycle: bool },
    /// Take what nothing needs any more, once. `dry_run`: only say what would be taken. `full`: look for it everywhere.
    Gc { dry_run: bool, full: bool },
    /// Carry out the rules of retention, once. `dry_run`: only say what would go.
    Retain { dry_run: bool },
    /// Say why something is there, or when it goes.
    Explain { subject: String },
    /// Say what a tag was, and since when.
    History { tag: String },
    /// Make a tag what it was.
    RestoreTag { what: String, at: Option<SystemTime> },
    /// Put a manifest back that was deleted.
    Restore { manifest: String },
    /// Ask the running server whether it is ready, or only whether it runs.
    Health { live: bool },
    /// Print the configuration.
    Config,
}

/// How a check goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checking {
    /// Hash the bytes of blobs, or of a share of them, at so many bytes a second.
    pub deep: bool,
    pub sample: Option<String>,
    pub rate: Option<NonZeroU64>,
    /// Go on behind this key.
    pub after: Option<String>,
    /// Mend what can be mended.
    pub repair: bool,
    /// Print lines of JSON.
    pub json: bool,
}

/// What the operator asked for: one action, and the whole configuration.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub action: Action,
    pub effective: Effective,
}

impl Invocation {
    /// Reads arguments, the first of which is the name of the program, and variables, and the file if one is named.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let matches = command().try_get_matches_from(&arguments).map_err(|error| told_to_join(&arguments, error))?;
        let (words, matches) = words(&matches);
        let subject = || matches.get_one::<String>(SUBJECT).cloned().unwrap_or_default();
        let action = match words.as_slice() {
            ["check"] => Action::Check(Checking::of(matches)),
            ["doctor"] => Action::Doctor { install_lifecycle: matches.get_flag(INSTALL_LIFECYCLE) },
            ["gc"] => Action::Gc { dry_run: matches.get_flag(DRY_RUN), full: matches.get_flag(FULL) },
            ["retain"] => Action::Retain { dry_run: matches.get_flag(DRY_RUN) },
            ["explain"] => Action::Explain { subject: subject() },
            ["tags", "history"] => Action::History { tag: subject() },
            ["tags", "restore"] => Action::RestoreTag { what: subject(), at: matches.get_one(AT).copied() },
            ["restore"] => Action::Restore { manifest: subject() },
            ["health"] => Action::Health { live: matches.get_flag(LIVE) },
            ["config"] => Action::Config,
            _ => Action::Serve,
        };
        let flags = flags(matches);
        let (environment, named) = sources::environment(variables)?;
        let file = match matches.get_one::<OsString>("config").or(named.as_ref()) {
            Some(path) => sources::file(Path::new(path))?,
            None => File::default(),
        };
        let layers = vec![flags, environment, file.layer];
        let effective = Effective::read(&Sources { layers, retention: file.retention })?;
        Ok(Self { action, effective })
    }
}

/// `--deletes false` is a switch and then a command that is none: better said than that there is no such command.
fn told_to_join(arguments: &[OsString], error: clap::Error) -> Error {
    let switches = SETTINGS.iter().filter(|setting| setting.kind == Kind::Boolean);
    let mut names = switches.map(|setting| kebab(setting.name));
    let spaced = arguments.windows(2).find_map(|pair| match pair {
        [flag, word] if word == "true" || word == "false" => {
            let name = flag.to_str()?.strip_prefix("--")?;
            names.any(|switch| switch == name).then(|| (name, word.display()))
        }
        _ => None,
    });
    match spaced {
        Some((name, word)) => {
            let message = format!("expected --{name}={word}, found a space");
            Error::Value { origin: Origin::Flag(name.to_owned()), message }
        }
        None => error.into(),
    }
}

impl Checking {
    fn of(matches: &ArgMatches) -> Self {
        Self {
            deep: matches.get_flag(DEEP),
            sample: matches.get_one(SAMPLE).cloned(),
            rate: matches.get_one(RATE).copied(),
            after: matches.get_one(AFTER).cloned(),
            repair: matches.get_flag(REPAIR),
            json: matches.get_flag(JSON),
        }
    }
}

/// The words of a command, and what was given to it.
fn words(matches: &ArgMatches) -> (Vec<&str>, &ArgMatches) {
    let (mut words, mut matches) = (Vec::new(), matches);
    while let Some((word, below)) = matches.subcommand() {
        words.push(word);
        matches = below;
    }
    (words, matches)
}

fn command() -> Command {
    let about = [
        ("serve", "Run the registry (the default)"),
        ("check", "Verify what is stored: exits with 0 if all is well, 1 if not, 2 if it could not tell"),
        ("doctor", "Find out what the store can do: exits with 0 if it is safe, 1 if not, 2 if it cannot be reached"),
        ("gc", "Take what nothing needs any more, once; a server that runs does so all the time"),
        ("retain", "Delete what the rules of retention do not keep, once; a server that runs does so now and then"),
        (
            "explain",
            "Say who refers to something and what keeps it: exits with 0 if something does, 1 if not, 2 if it failed",
        ),
        ("tags", "Say what a tag was, or make it that again"),
        ("restore", "Put a manifest back that was deleted, with what it names, its referrers and its tags"),
        ("health", "Ask the server that runs at --listen whether it is ready: exits with 0 if so, else 1"),
        ("config", "Print the configuration as a file, and where each value came from"),
    ];
    Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("An OCI Distribution registry")
        .after_help(AFTER_HELP)
        .disable_help_subcommand(true)
        .subcommands(about.map(|(name, about)| Command::new(name).about(about)))
        .mut_subcommand("check", |check| check.args(ways_to_check()))
        .mut_subcommand("doctor", |doctor| doctor.arg(install_lifecycle()))
        .mut_subcommand("gc", |gc| gc.args(ways_to_collect()))
        .mut_subcommand("retain", |retain| retain.args(ways_to_retain()))
        .mut_subcommand("explain", |explain| {
            let help = "What: DIGEST, NAME:TAG or NAME@DIGEST";
            explain.arg(Arg::new(SUBJECT).value_name("WHAT").required(true).help(help))
        })
        .mut_subcommand("health", |health| {
            health
                .arg(switch(LIVE, "Ask whether it runs, whatever its store does: for who restarts what is not healthy"))
        })
        .mut_subcommand("tags", |tags| tags.subcommand_required(true).subcommands(what_to_do_with_tags()))
        .mut_subcommand("restore", |restore| {
            restore.arg(Arg::new(SUBJECT).value_name("MANIFEST").required(true).help("Which: NAME@DIGEST"))
        })
        .next_help_heading("Settings")
        .args(SETTINGS.iter().copied().map(flag))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(OsString))
                .global(true)
                .help("TOML file with settings [variable: MARINA_CONFIG] [default: none]"),
        )
}

fn install_lifecycle() -> Arg {
    Arg::new(INSTALL_LIFECYCLE)
        .long(kebab(INSTALL_LIFECYCLE))
        .action(ArgAction::SetTrue)
        .help("Add a rule to the bucket that drops what abandoned uploads leave, if there is none")
}

fn ways_to_check() -> [Arg; 6] {
    let option = |name, value_name, help| Arg::new(name).long(name).value_name(value_name).help(help);
    let rate = |text: &str| {
        let rate = text.parse::<ByteSize>().ok().and_then(|rate| NonZeroU64::new(rate.as_u64()));
        rate.ok_or("expected a number of bytes such as 50MiB")
    };
    let flag = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    [
        flag(DEEP, "Also read and hash the bytes of blobs, and find what nothing leads to"),
        flag(
            REPAIR,
            "Mend what can be mended, put what is damaged in quarantine until it is pushed again, say what was done",
        ),
        option(RATE, "SIZE", "Read at most so many bytes a second").value_parser(rate).requires(DEEP),
        option(
            SAMPLE,
            "SHARE",
            "Read a share of the blobs only: 10%, always the same, or each of 1/10 to 10/10 in turn",
        )
        .requires(DEEP),
        option(AFTER, "KEY", "Go on where an earlier check was stopped"),
        flag(JSON, "Print one line of JSON for each finding, each thing done, and the summary"),
    ]
}

fn what_to_do_with_tags() -> [Command; 2] {
    let of = |help| Arg::new(SUBJECT).value_name("TAG").required(true).help(help);
    [
        Command::new("history")
            .about("Say what a tag was, since when and by whom, the latest change first")
            .arg(of("Which: NAME:TAG")),
        Command::new("restore")
            .about(
                "Make a tag what it was before, or --at a time, or what a digest says, and put that back if it is gone",
            )
            .arg(of("Which: NAME:TAG or NAME:TAG@DIGEST"))
            .arg(at()),
    ]
}

fn at() -> Arg {
    Arg::new(AT)
        .long(AT)
        .value_name("TIME")
        .value_parser(|text: &str| {
            humantime::parse_rfc3339_weak(text).map_err(|_| "expected a time such as 2026-01-31T12:00:00Z, in UTC")
        })
        .help("What a tag was then, such as 2026-01-31T12:00:00Z")
}

fn ways_to_retain() -> [Arg; 2] {
    [
        switch(ONCE, "Walk through all repositories (the default)"),
        switch(DRY_RUN, "Change nothing, and say what a walk would delete and keep, and by which rule"),
    ]
}

fn ways_to_collect() -> [Arg; 3] {
    [
        switch(ONCE, "Make one round (the default)"),
        switch(DRY_RUN, "Change nothing, and say what a round would do and why, and what is kept until when"),
        switch(FULL, "First walk through the whole store, to find what no queue leads to; safe while it is in use"),
    ]
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(kebab(name)).action(ArgAction::SetTrue).help(help)
}

fn flag(setting: &'static Setting) -> Arg {
    let flag = Arg::new(setting.name)
        .long(kebab(setting.name))
        .value_name(setting.value_name)
        .global(true)
        .aliases(sources::older_names(setting).map(kebab))
        .help(format!("{} [default: {}]", setting.help, or_none(setting.default)));
    match setting.kind {
        Kind::Boolean => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Text | Kind::Integer => flag,
    }
}

fn flags(matches: &ArgMatches) -> Layer {
    let given = |setting: &'static Setting| {
        let text = matches.get_one::<String>(setting.name)?.clone();
        Some((setting.name, Given { text, origin: Origin::Flag(kebab(setting.name)) }))
    };
    SETTINGS.iter().copied().filter_map(given).collect()
}

fn or_none(default: &'static str) -> &'static str {
    if default.is_empty() { "none" } else { default }
}

fn kebab(name: &str) -> String {
    name.replace('_', "-")
}
