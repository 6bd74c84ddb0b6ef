//! The command that carries out the rules of retention once.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use marina_distribution::{
    config::Config,
    registry::{Decision, Registry, Retainer, Rule},
    store::overlay::Overlay,
};

use super::{in_the_background, open_existing_store, open_over};

/// A line for each tag and manifest of which a rule speaks, and a summary.
pub(super) async fn once(config: Config, dry_run: bool) -> Result<ExitCode, Box<dyn Error>> {
    let mut store = open_existing_store(&config).await?;
    if dry_run {
        // The very same walk, over a store that keeps what is written to itself.
        store = Arc::new(Overlay::new(store));
    }
    let retainer = retainer(&config, open_over(&config, store).await?.as_ref());
    let mut out = io::stdout();
    let mut told = Ok(());
    let mut tell = |decision: &Decision| {
        told = std::mem::replace(&mut told, Ok(())).and_then(|()| writeln!(out, "{decision}"));
    };
    let done = retainer.walk_telling(&mut tell).await?;
    told?;
    let mut out = io::stdout();
    writeln!(out, "{done}")?;
    if dry_run {
        writeln!(out, "Nothing was changed.")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn retainer(config: &Config, registry: &Registry) -> Retainer {
    let rules = config.retention.iter().map(|rule| Rule {
        repositories: rule.repositories.0.clone(),
        tags: rule.tags.clone().map(|tags| tags.0),
        keep_last: rule.keep_last,
        keep_younger: rule.keep_younger.map(|age| age.0),
        keep_semver_majors: rule.keep_semver_majors,
        untagged_older: rule.untagged_older.map(|age| age.0),
        orphaned_referrers: rule.orphaned_referrers,
    });
    Retainer::new(in_the_background(config, registry), rules.collect())
}
