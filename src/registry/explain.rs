//! Why something is there: who refers to it, what keeps it, or when it goes. By reading alone.
//!
//! Nothing in the store says who refers to a manifest or a blob; it is looked for where it could stand. Of a digest: among its
//! holders, of which each has the manifests of its repository read, and under its name in every repository of the catalog.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Error, Registry, Result,
    gc::{Condemned, InFlight, time},
    layout::{self, Named},
    manifest::StoredManifest,
    pages::{LIST, Pages},
    pending::{self, Dropped, DroppedWhat, PendingBlob, PendingManifest},
    register::{LIVE_AT_LEAST, State},
};
use crate::oci::{Algorithm, AnyDigest, Digest, Manifest, Reference, Repository, Tag};

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Wherever it is.
    Digest(Digest),
    In(Repository, Reference),
}

/// How it stands with it, over all repositories that were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is not there.
    Absent,
    /// It is there, and nothing needs it.
    Unneeded,
    /// It is there, and something needs or keeps it.
    Needed,
}

/// Writes what was found, a line at a time.
struct Report<'a> {
    tell: &'a mut (dyn FnMut(&str) + Send),
    verdict: Verdict,
}

/// How many manifests are read side by side.
const READS: usize = 4;

impl Subject {
    /// `DIGEST`, `NAME:TAG` or `NAME@DIGEST`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let expected = || "expected DIGEST, NAME:TAG or NAME@DIGEST".to_owned();
        let digest = |text: &str| Digest::parse(text).map_err(|error| format!("{text}: {error}"));
        let (name, reference) = match (text.split_once('@'), text.rsplit_once(':')) {
            (Some((name, of)), _) => (name, Reference::Digest(digest(of)?)),
            (None, Some((algorithm, _))) if Algorithm::parse(algorithm).is_some() => {
                return digest(text).map(Self::Digest);
            }
            (None, Some((name, tag))) => (name, Reference::Tag(Tag::parse(tag).ok_or_else(expected)?)),
            (None, None) => return Err(expected()),
        };
        Ok(Self::In(Repository::parse(name).map_err(|error| error.to_string())?, reference))
    }
}

impl Registry {
    /// Tells all there is to know, a line at a time.
    pub async fn explain(self: &Arc<Self>, subject: &Subject, tell: &mut (dyn FnMut(&str) + Send)) -> Result<Verdict> {
        let mut report = Report { tell, verdict: Verdict::Absent };
        match subject {
            Subject::Digest(digest) => self.explain_everywhere(digest, &mut report).await?,
            Subject::In(repository, Reference::Digest(digest)) => {
                self.explain_manifest(repository, digest, &mut report).await?;
                self.explain_holder(repository, digest, &mut report).await?;
            }
            Subject::In(repository, Reference::Tag(tag)) => {
                let seen = layout::tag(repository, tag).read(self.store()).await?;
                if let Some(target) = seen.present() {
                    report.line(0, &format!("{repository}:{tag} points to {}", target.digest));
                    self.explain_manifest(repository, &target.digest, &mut report).await?;
                }
            }
        }
        if report.verdict == Verdict::Absent {
            report.line(0, "it is not there");
        }
        Ok(report.verdict)
    }

    async fn explain_everywhere(&self, digest: &Digest, report: &mut Report<'_>) -> Result<()> {
        let mut pages = Pages::new(layout::CATALOG);
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                if let Some(Named::Catalog(repository)) = layout::parse(&key) {
                    self.explain_manifest(&repository, digest, report).await?;
                }
            }
        }
        let seen = layout::record(digest).read(self.store()).await?;
        match &seen.state {
            State::Absent | State::Gone { .. } => {}
            State::Quarantined(_) => {
                report.find(Verdict::Unneeded);
                report.line(0, &format!("blob {digest}, in quarantine: damaged, until it is pushed again or deleted"));
            }
            State::Live(record) | State::Condemned(record) => {
                let data = record.data()?;
                report.find(Verdict::Unneeded);
                report.line(0, &format!("blob {digest} of {} bytes, at {data}", record.size));
            }
        }
        let mut holders = Vec::new();
        let mut after = None;
        loop {
            let page = self.store().list(&layout::holders(digest), after.as_ref(), LIST).await?;
            let is_last = page.len() < LIST;
            after = page.last().map(|entry| entry.key.clone());
            holders.extend(page.into_iter().filter(|entry| entry.size >= LIVE_AT_LEAST).filter_map(|entry| {
                if let Some(Named::Holder(_, repository)) = layout::parse(&entry.key) { Some(repository) } else { None }
            }));
            if is_last {
                break;
            }
        }
        for repository in &holders {
            self.explain_holder(repository, digest, report).await?;
        }
        if seen.present().is_some() && holders.is_empty() {
            report.line(1, "no repository holds it: its bytes go with the next round that is led to it");
            let in_flight = self.blobs_in_flight(None, digest).await?;
            report.in_flight(1, &in_flight);
        }
        Ok(())
    }

    async fn explain_manifest(&self, repository: &Repository, digest: &Digest, report: &mut Report<'_>) -> Result<()> {
        let seen = layout::manifest(repository, digest).read(self.store()).await?;
        if let Some(stored) = seen.present() {
            report.find(Verdict::Needed);
            let (media_type, size) = (stored.media_type(), stored.bytes.len());
            report.line(0, &format!("manifest {repository}@{digest}, {media_type} of {size} bytes"));
            report.line(1, "stays until it is deleted, tagged or not");
            for tag in self.tags_of(repository, digest, stored).await? {
                report.line(1, &format!("tagged {tag}"));
            }
            if let Some(subject) = &stored.links.subject {
                report.line(1, &format!("refers to {subject}"));
            }
            self.explain_naming(repository, digest, report).await?;
            let mut pages = Pages::new(&layout::referrers(repository, digest));
            while let Some(keys) = pages.next(self.store()).await? {
                for key in keys {
                    let Some(Named::Referrer { subject, referrer, .. }) = layout::parse(&key) else { continue };
                    let entry = layout::referrer(repository, &subject, &referrer).read(self.store()).await?;
                    if entry.present().is_some() {
                        report.line(1, &format!("has the referrer {referrer}"));
                    }
                }
            }
        }
        for (at, until, what) in self.dropped(repository).await? {
            if matches!(&what, DroppedWhat::Manifest { digest: deleted, .. } if deleted == digest) {
                report.find(Verdict::Unneeded);
                let (at, until) = (time(at), time(until));
                report.line(0, &format!("manifest {repository}@{digest} was deleted at {at}"));
                report.line(1, &format!("can be put back, with all that it names, until {until}"));
            }
        }
        Ok(())
    }

    async fn explain_holder(&self, repository: &Repository, digest: &Digest, report: &mut Report<'_>) -> Result<()> {
        let seen = layout::holder(digest, repository).read(self.store()).await?;
        let Some(holder) = seen.present() else { return Ok(()) };
        report.find(Verdict::Unneeded);
        report.line(0, &format!("blob {digest} of {} bytes, held by {repository}", holder.size));
        let mut is_needed = self.explain_naming(repository, digest, report).await?;
        for (at, until, what) in self.dropped(repository).await? {
            if let DroppedWhat::Manifest { digest: manifest, media_type, manifest: text, .. } = what
                && until >= self.now()
                && names(&media_type, text.as_bytes(), digest)
            {
                is_needed = true;
                let (at, until) = (time(at), time(until));
                report.line(1, &format!("named by manifest {manifest}, deleted at {at}, to be put back until {until}"));
            }
        }
        let mut in_flight = self.blobs_in_flight(Some(repository), digest).await?;
        in_flight.extend(self.pushes_in_flight(repository, digest).await?);
        report.in_flight(1, &in_flight);
        is_needed |= !in_flight.is_empty();
        if is_needed {
            report.find(Verdict::Needed);
        } else if !self.explain_end(repository, digest, report).await? {
            report.line(1, "nothing needs it, and no entry of a queue leads to it: `gc --full` finds it");
        }
        if matches!(seen.state, State::Condemned(_)) {
            report.line(
                1,
                "condemned: it is still served, and lifted by who uploads it or pushes a manifest that names it",
            );
        }
        Ok(())
    }

    /// When it goes, as far as the queues say. `false`: they do not.
    async fn explain_end(&self, repository: &Repository, digest: &Digest, report: &mut Report<'_>) -> Result<bool> {
        let mut is_known = false;
        let mut pages = Pages::new(&layout::condemned_of(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                let Some(entry) = pending::read::<Condemned>(self.store(), &key).await? else { continue };
                for (_, _, why) in entry.holders.iter().filter(|(condemned, ..)| condemned == digest) {
                    is_known = true;
                    let (at, until) = (time(entry.at), time(layout::due(&key)));
                    report.line(1, &format!("condemned at {at}, goes after {until}: {why}"));
                }
            }
        }
        for (_, until, what) in self.dropped(repository).await? {
            let is_queued = match what {
                DroppedWhat::Blobs { digests } | DroppedWhat::Push { digests, .. } => digests.contains(digest),
                DroppedWhat::Manifest { media_type, manifest, .. } => names(&media_type, manifest.as_bytes(), digest),
                DroppedWhat::Tag { .. } | DroppedWhat::Catalog {} => false,
            };
            if is_queued {
                is_known = true;
                report.line(1, &format!("nothing needs it: a round looks at it after {}", time(until)));
            }
        }
        Ok(is_known)
    }

    /// Which manifests of the repository name it. `false`: none.
    async fn explain_naming(&self, repository: &Repository, digest: &Digest, report: &mut Report<'_>) -> Result<bool> {
        let mut is_named = false;
        let mut pages = Pages::new(&layout::manifests(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            let manifests = keys.into_iter().filter_map(|key| match layout::parse(&key) {
                Some(Named::Manifest(_, manifest)) => Some(manifest),
                _ => None,
            });
            let read = |manifest: Digest| async move {
                let seen = layout::manifest(repository, &manifest).read(self.store()).await?;
                let stored = seen.present().filter(|stored| names(stored.media_type(), &stored.bytes, digest));
                Ok::<_, Error>(stored.cloned().map(|stored| (manifest, stored)))
            };
            let mut reads = stream::iter(manifests.map(read).collect::<Vec<_>>()).buffered(READS);
            while let Some(naming) = reads.try_next().await? {
                let Some((manifest, stored)) = naming else { continue };
                is_named = true;
                let tags = self.tags_of(repository, &manifest, &stored).await?;
                let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                let tagged = if tags.is_empty() { "not tagged".into() } else { format!("tagged {}", tags.join(", ")) };
                report.line(1, &format!("named by manifest {manifest}, {tagged}"));
            }
        }
        Ok(is_named)
    }

    /// The tags that point to a manifest.
    async fn tags_of(&self, repository: &Repository, digest: &Digest, stored: &StoredManifest) -> Result<Vec<Tag>> {
        let candidates = if stored.links.more_tags {
            self.tags_after(repository, None, usize::MAX).await?
        } else {
            stored.links.tags.clone()
        };
        let mut tags = Vec::new();
        for tag in candidates {
            let seen = layout::tag(repository, &tag).read(self.store()).await?;
            if seen.present().is_some_and(|target| target.digest == *digest) {
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    /// What was dropped in a repository: when, until when it is left alone, and what.
    async fn dropped(&self, repository: &Repository) -> Result<Vec<(u64, u64, DroppedWhat)>> {
        let mut dropped = Vec::new();
        let mut pages = Pages::new(&layout::dropped_of(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                let entry: Option<Dropped> = pending::read(self.store(), &key).await?;
                dropped.extend(entry.map(|entry| (entry.at, layout::due(&key), entry.what)));
            }
        }
        Ok(dropped)
    }

    /// Uploads and mounts that announced it: of one repository, or of any.
    async fn blobs_in_flight(&self, of: Option<&Repository>, digest: &Digest) -> Result<Vec<InFlight>> {
        let mut in_flight = Vec::new();
        let mut pages = Pages::new(&layout::pending_blobs(digest));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                let entry: Option<PendingBlob> = pending::read(self.store(), &key).await?;
                if entry.is_some_and(|entry| of.is_none_or(|of| entry.repository == *of)) {
                    in_flight.push(InFlight { manifest: None, until: layout::due(&key) });
                }
            }
        }
        Ok(in_flight)
    }

    /// Pushes of manifests that name it.
    async fn pushes_in_flight(&self, repository: &Repository, digest: &Digest) -> Result<Vec<InFlight>> {
        let mut in_flight = Vec::new();
        let mut pages = Pages::new(&layout::pending_manifests(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                let entry: Option<PendingManifest> = pending::read(self.store(), &key).await?;
                let is_named =
                    |entry: &PendingManifest| entry.references.iter().any(|named| named.known() == Some(digest));
                in_flight.extend(
                    entry
                        .filter(is_named)
                        .map(|entry| InFlight { manifest: Some(entry.digest), until: layout::due(&key) }),
                );
            }
        }
        Ok(in_flight)
    }
}

impl Report<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        (self.tell)(&format!("{}{text}", "  ".repeat(depth)));
    }

    fn find(&mut self, verdict: Verdict) {
        self.verdict = self.verdict.max(verdict);
    }

    fn in_flight(&mut self, depth: usize, in_flight: &[InFlight]) {
        for of in in_flight {
            self.line(depth, &of.to_string());
        }
    }
}

/// Whether a manifest names a digest. One that cannot be read names nothing; `check` finds it.
fn names(media_type: &str, bytes: &[u8], digest: &Digest) -> bool {
    let manifest = Manifest::parse(Some(media_type), bytes);
    manifest
        .is_ok_and(|manifest| manifest.references.iter().any(|link| AnyDigest::known(link.digest()) == Some(digest)))
}
