//! Retention: rules say what to keep, and what they do not keep goes, as if a client had deleted it.
//!
//! This is the one part of the registry that walks: through the catalog, the tags of each repository that a rule is for,
//! and its manifests, where a rule speaks of those. So it seldom runs, on a lease and at a pace of its own. It judges what
//! it has read ([`judge`]: a pure function) and carries that out where nothing has changed since.
//!
//! A **tag** is deleted over exactly what was judged.
//!
//! A **manifest** is retired as the collector retires a holder: condemned; then looked for, among references in flight
//! first, and then among what they turn into; then deleted over what was condemned. A push that names it as a child either
//! has announced itself before the look, which finds it, or comes to it after it was condemned, and lifts it: then the
//! delete loses. Tags that may point to it are named in its header, and read before it goes; a push that adds one writes the
//! manifest anew. So no push is left without a child, and no tag without a manifest.
//!
//! Condemned, a manifest is in every respect there: HEAD and GET find it. It does not rest, so that whoever asked for one
//! that nothing has needed for long may find it gone when he pushes an index of it, as after any delete; he is told.
//!
//! Whoever stops anywhere leaves at most condemned manifests behind, which the next walk comes upon.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    PARALLEL, PageRequest, Registry, Result,
    gc::Collector,
    history, layout,
    left::go_on,
    manifest::StoredManifest,
    pages::Pages,
    register::{Seen, State},
    tag::TagTarget,
};
use crate::{
    oci::{AnyDigest, Digest, Link, Manifest, Repository, Tag},
    store::Store,
};

mod judge;
mod report;
mod retire;
mod rule;

use judge::{Deleted, KnownManifest, KnownTag, Snapshot, Verdict, judge};
pub use report::Decision;
use report::{Report, Spared, Thing};
pub use rule::Rule;

/// By whom, in the history of tags.
const BY: &str = "retention";
/// How many manifests are read side by side: each may have megabytes.
const READS: usize = 4;

/// Carries out rules.
#[derive(Debug)]
pub struct Retainer {
    registry: Arc<Registry>,
    collector: Collector,
    rules: Vec<Rule>,
}

/// What one walk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Repositories that a rule is for.
    pub repositories: u64,
    /// Tags and manifests deleted.
    pub tags: u64,
    pub manifests: u64,
    /// Both, where a rule keeps them.
    pub kept: u64,
    /// Both, where somebody was at work on what a rule deletes, or needs it.
    pub spared: u64,
}

/// A tag or a manifest as it was read, and what was judged.
struct ReadTag {
    tag: Tag,
    target: TagTarget,
    seen: Seen<TagTarget>,
}

struct ReadManifest {
    known: KnownManifest,
    size: u64,
    is_condemned: bool,
}

impl Retainer {
    pub fn new(registry: Arc<Registry>, rules: Vec<Rule>) -> Self {
        Self { collector: Collector::new(Arc::clone(&registry)), registry, rules }
    }

    /// One walk, if no other replica has begun one within the interval.
    pub async fn turn(&self, interval: Duration) -> Result<Option<Retained>> {
        let is_ours = self.collector.take_lease(&layout::retention_lease(), interval).await?;
        if is_ours { self.walk().await.map(Some) } else { Ok(None) }
    }

    /// Through all repositories. If it fails, the next one goes on.
    pub async fn walk(&self) -> Result<Retained> {
        self.walk_telling(&mut |_| {}).await
    }

    /// A walk that says what it decides, where a rule has a say.
    pub async fn walk_telling(&self, observer: &mut (dyn FnMut(&Decision) + Send)) -> Result<Retained> {
        let mut report = Report::new(observer);
        let walking = async {
            let mut page = PageRequest::default();
            loop {
                let listed = self.registry.catalog(&page).await?;
                for repository in listed.items.iter().filter(|name| self.rules.iter().any(|rule| rule.is_for(name))) {
                    go_on(self.retain(repository, &mut report).await, repository)?;
                }
                page.last = listed.items.last().map(ToString::to_string).filter(|_| listed.more);
                if page.last.is_none() {
                    return Ok(report.done);
                }
            }
        };
        history::on_behalf_of(Some(BY.into()), walking).await
    }

    async fn retain(&self, repository: &Repository, report: &mut Report<'_>) -> Result<()> {
        report.done.repositories += 1;
        let tags = self.read_tags(repository).await?;
        let with_manifests = self.rules.iter().any(|rule| rule.is_for(repository) && rule.speaks_of_manifests());
        let manifests = if with_manifests { self.read_manifests(repository).await? } else { Vec::new() };
        let snapshot = Snapshot {
            repository: repository.clone(),
            tags: tags.iter().map(ReadTag::known).collect(),
            manifests: manifests.iter().map(|read| read.known.clone()).collect(),
            now: self.registry.now(),
            grace: self.registry.settings.grace.as_secs(),
        };
        let judgement = judge(&self.rules, &snapshot);
        for (read, verdict) in tags.into_iter().zip(judgement.tags) {
            let spared = match &verdict {
                Verdict::Deleted { why, .. } => self.delete_tag(repository, &read, why).await?,
                Verdict::Free | Verdict::Kept { .. } => None,
            };
            let thing = Thing::Tag { tag: read.tag, digest: read.target.digest, size: read.target.size };
            report.tell(repository, thing, verdict, spared);
        }
        let (doomed, others): (Vec<_>, Vec<_>) = manifests
            .into_iter()
            .zip(judgement.manifests)
            .partition(|(_, verdict)| matches!(verdict, Verdict::Deleted { .. }));
        for (read, verdict) in others {
            if read.is_condemned {
                // By a walk that stopped, or by rules that were others.
                self.registry.lift_manifest(repository, &read.known.digest).await?;
            }
            report.tell(repository, read.thing(), verdict, None);
        }
        self.retire(repository, doomed, report).await
    }

    /// Deletes a tag, unless it has changed since it was read, or what it stands for has come back.
    async fn delete_tag(&self, repository: &Repository, read: &ReadTag, why: &Deleted) -> Result<Option<Spared>> {
        if let Deleted::Orphaned { subject } = why
            && self.is_there(repository, subject).await?
        {
            return Ok(Some(Spared::Needed));
        }
        let (deadline, digest) = (self.registry.deadline(), &read.target.digest);
        let written = self.registry.delete_tag_as_seen(repository, &read.tag, &read.seen, digest, &deadline).await?;
        Ok((!written.is_done()).then_some(Spared::Changed))
    }

    async fn read_tags(&self, repository: &Repository) -> Result<Vec<ReadTag>> {
        let names = self.registry.tags_after(repository, None, usize::MAX).await?;
        let reads = names.into_iter().map(|tag| async move {
            let seen = layout::tag(repository, &tag).read(self.store()).await?;
            Ok(seen.live().cloned().map(|target| ReadTag { tag, target, seen }))
        });
        let reads = stream::iter(reads).buffered(PARALLEL);
        reads.try_filter_map(|read| async { Ok(read) }).try_collect().await
    }

    async fn read_manifests(&self, repository: &Repository) -> Result<Vec<ReadManifest>> {
        let mut manifests = Vec::new();
        let mut pages = Pages::new(&layout::manifests(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            let digests = keys.iter().filter_map(|key| match layout::parse(key) {
                Some(layout::Named::Manifest(_, digest)) => Some(digest),
                _ => None,
            });
            let reads: Vec<_> = digests.map(|digest| self.read_manifest(repository, digest)).collect();
            let mut reads = stream::iter(reads).buffered(READS);
            while let Some(read) = reads.try_next().await? {
                manifests.extend(read);
            }
        }
        Ok(manifests)
    }

    async fn read_manifest(&self, repository: &Repository, digest: Digest) -> Result<Option<ReadManifest>> {
        let register = layout::manifest(repository, &digest);
        let seen = register.read(self.store()).await?;
        let intact = seen.present().filter(|stored| Digest::of(digest.algorithm(), &stored.bytes) == digest);
        let parse =
            |stored| Some((stored, Manifest::parse(Some(StoredManifest::media_type(stored)), &stored.bytes).ok()?));
        let Some((stored, parsed)) = intact.and_then(parse) else {
            // It may have named anything, and nothing is remembered of it: where manifests are to go, the look says so, and
            // they stay.
            let is_damaged = seen.present().is_some() || seen.is_quarantined();
            return Ok(is_damaged.then(|| ReadManifest::damaged(digest)));
        };
        self.collector.remember(register.key().clone(), &parsed);
        let children = parsed.references.iter().filter_map(|link| match link {
            Link::Manifest { digest: AnyDigest::Known(child), .. } => Some(*child),
            Link::Manifest { .. } | Link::Blob { .. } => None,
        });
        Ok(Some(ReadManifest {
            known: KnownManifest {
                digest,
                at: stored.links.at,
                subject: stored.links.subject,
                children: children.collect(),
            },
            size: stored.bytes.len() as u64,
            is_condemned: matches!(seen.state, State::Condemned(_)),
        }))
    }

    async fn is_there(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let seen = layout::manifest(repository, digest).read(self.store()).await?;
        Ok(seen.present().is_some() || seen.is_quarantined())
    }

    fn store(&self) -> &dyn Store {
        self.registry.store()
    }
}

impl ReadTag {
    fn known(&self) -> KnownTag {
        KnownTag { tag: self.tag.clone(), digest: self.target.digest, at: self.target.at }
    }
}

impl ReadManifest {
    fn damaged(digest: Digest) -> Self {
        let known = KnownManifest { digest, at: None, subject: None, children: Vec::new() };
        Self { known, size: 0, is_condemned: false }
    }

    fn thing(&self) -> Thing {
        Thing::Manifest { digest: self.known.digest, size: self.size }
    }
}

impl fmt::Display for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repositories, tags, manifests, kept, spared } = self;
        write!(f, "{tags} tags and {manifests} manifests deleted in {repositories} repositories, ")?;
        write!(f, "{kept} kept by rules, {spared} spared")
    }
}
