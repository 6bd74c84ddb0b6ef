//! The commands that say what a tag was, and put back what was deleted.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

use marina_distribution::{
    config::Config,
    oci::{Digest, Repository, Tag},
    registry::{self, Change, Clock, PageRequest, Registry, Restored, SystemClock, Version, on_behalf_of},
};

use super::{open_over, stores};

/// One line a change.
pub(super) async fn history(config: Config, tag: String) -> Result<ExitCode, Box<dyn Error>> {
    let (name, tag) = tag.split_once(':').ok_or("expected NAME:TAG")?;
    let (repository, tag) = (Repository::parse(name)?, Tag::parse(tag).ok_or("expected NAME:TAG")?);
    let registry = open_over(&config, stores::open_existing(&config).await?).await?;
    let mut out = io::stdout();
    let mut page = PageRequest::default();
    loop {
        let listed = registry.history(&repository, &tag, &page).await?;
        for change in &listed.items {
            writeln!(out, "{}", line(change))?;
        }
        match listed.items.last() {
            Some(change) if listed.more => page.last = Some(change.id.to_string()),
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Makes a tag what it was.
pub(super) async fn restore_tag(
    config: Config,
    what: String,
    at: Option<SystemTime>,
) -> Result<ExitCode, Box<dyn Error>> {
    let (name, digest) = what.rsplit_once('@').map_or((what.as_str(), None), |(name, digest)| (name, Some(digest)));
    let (name, tag) = name.split_once(':').ok_or("expected NAME:TAG or NAME:TAG@DIGEST")?;
    let (repository, tag) = (Repository::parse(name)?, Tag::parse(tag).ok_or("expected NAME:TAG or NAME:TAG@DIGEST")?);
    let version = match (digest.map(parse).transpose()?, at) {
        (None, None) => Version::Before,
        (None, Some(at)) if at > SystemClock.now() => return Err("--at: that time is yet to come".into()),
        (None, Some(at)) => Version::At(at),
        (Some(digest), None) => Version::Digest(digest),
        (Some(_), Some(_)) => return Err("expected a digest or --at, and not both".into()),
    };
    let registry = open_over(&config, stores::open_existing(&config).await?).await?;
    restored(&registry, &repository, registry.restore_tag(&repository, &tag, version)).await
}

/// Puts a manifest back that was deleted, with its tags.
pub(super) async fn restore_manifest(config: Config, manifest: String) -> Result<ExitCode, Box<dyn Error>> {
    let expected = "expected NAME@DIGEST; for a tag there is `tags restore`";
    let (name, digest) = manifest.rsplit_once('@').filter(|(name, _)| !name.contains(':')).ok_or(expected)?;
    let (repository, digest) = (Repository::parse(name)?, parse(digest)?);
    let registry = open_over(&config, stores::open_existing(&config).await?).await?;
    restored(&registry, &repository, registry.restore_manifest(&repository, &digest)).await
}

fn parse(digest: &str) -> Result<Digest, String> {
    Digest::parse(digest).map_err(|error| format!("{digest}: {error}"))
}

/// Says what was not there and is now.
async fn restored(
    registry: &Registry,
    repository: &Repository,
    restoring: impl Future<Output = registry::Result<Restored>>,
) -> Result<ExitCode, Box<dyn Error>> {
    let Restored { digest, manifests, tags } = on_behalf_of(Some("restore".into()), restoring).await?;
    registry.settle().await;
    let mut out = io::stdout();
    for tag in tags {
        writeln!(out, "{repository}:{tag} points to {digest}")?;
    }
    if manifests > 0 {
        writeln!(out, "{manifests} manifests put back")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(change: &Change) -> String {
    let at = humantime::format_rfc3339_millis(change.at());
    let what = match (&change.from, &change.to) {
        (None, Some(to)) => format!("set to {}", to.digest),
        (Some(from), Some(to)) => format!("moved from {} to {}", from.digest, to.digest),
        (Some(from), None) => format!("deleted, was {}", from.digest),
        (None, None) => "unchanged".to_owned(),
    };
    let by = change.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    format!("{at} {what}{by}")
}
