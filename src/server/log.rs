//! Log lines, on the standard error stream.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// Starts logging, once for the whole process.
pub fn start(filter: &Targets, format: LogFormat) {
    let terminal = io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal);
    let lines = if human { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    registry().with(lines.with_filter(without_noise(filter))).init();
}

/// The SDK warns of each place in which it finds no credentials, at length, and again with each try. That there are none
/// is said by the store.
fn without_noise(filter: &Targets) -> Targets {
    let quiet = Targets::new().with_target("aws_config", LevelFilter::ERROR).with_targets(filter.iter());
    filter.default_level().into_iter().fold(quiet, Targets::with_default)
}
