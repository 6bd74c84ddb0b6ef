//! Retention: the command that carries out the rules once, and what does so again and again beside the requests.

use std::{
    convert::Infallible,
    error::Error,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use marina_distribution::{
    config::Config,
    registry::{Decision, Registry, Retained, Retainer, Rule},
    store::{Causes, overlay::Overlay},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{in_the_background, open_over, stores};

/// A line for each tag and manifest of which a rule speaks, and a summary.
pub(super) async fn once(config: Config, dry_run: bool) -> Result<ExitCode, Box<dyn Error>> {
    let mut store = stores::open_existing(&config).await?;
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

/// Looks now and then whether the fleet has to walk: more often than it has to, so that a replica comes to it that never
/// runs for as long as the interval.
pub(super) async fn for_ever(config: &Config, registry: &Registry) -> Infallible {
    if config.retention.is_empty() {
        return std::future::pending().await;
    }
    let look = config.retention_interval.min(config.gc_interval);
    let mut looks = tokio::time::interval_at(Instant::now() + look, look);
    loop {
        looks.tick().await;
        // Anew each time: what a walk remembers of manifests is not kept for a day.
        match retainer(config, registry).turn(config.retention_interval).await {
            Ok(None | Some(Retained { tags: 0, manifests: 0, .. })) => {}
            Ok(Some(done)) => info!(%done, "retained"),
            Err(error) => warn!(error = %Causes(&error), "the next walk goes on"),
        }
    }
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
