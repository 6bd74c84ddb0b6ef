//! What a walk decides. The summary, the log and a dry run are all told the same.

use std::fmt;

use super::{
    Retained,
    judge::{Deleted, Kept, Verdict},
};
use crate::{
    oci::{Digest, Repository, Tag},
    registry::gc::time,
};

/// What becomes of a tag or a manifest of which a rule speaks: a line of a diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    repository: Repository,
    thing: Thing,
    verdict: Verdict,
    spared: Option<Spared>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Tag { tag: Tag, digest: Digest, size: u64 },
    Manifest { digest: Digest, size: u64 },
}

/// Why something stays although a rule says that it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spared {
    /// A manifest that is there, or can be put back, names it; or what it refers to is back.
    Needed,
    /// A push that is under way names it.
    InFlight,
    Changed,
}

/// Where a walk tells what it decides.
pub(super) struct Report<'a> {
    pub(super) done: Retained,
    observer: &'a mut (dyn FnMut(&Decision) + Send),
}

impl<'a> Report<'a> {
    pub(super) fn new(observer: &'a mut (dyn FnMut(&Decision) + Send)) -> Self {
        Self { done: Retained::default(), observer }
    }

    pub(super) fn tell(&mut self, repository: &Repository, thing: Thing, verdict: Verdict, spared: Option<Spared>) {
        let done = &mut self.done;
        let count = match (&verdict, &thing) {
            (Verdict::Free, _) => return,
            (Verdict::Kept { .. }, _) => &mut done.kept,
            (Verdict::Deleted { .. }, _) if spared.is_some() => &mut done.spared,
            (Verdict::Deleted { .. }, Thing::Tag { .. }) => &mut done.tags,
            (Verdict::Deleted { .. }, Thing::Manifest { .. }) => &mut done.manifests,
        };
        *count += 1;
        let decision = Decision { repository: repository.clone(), thing, verdict, spared };
        tracing::debug!(%decision, "retaining");
        (self.observer)(&decision);
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, thing, verdict, spared } = self;
        let goes = matches!(verdict, Verdict::Deleted { .. }) && spared.is_none();
        f.write_str(if goes { "- " } else { "  " })?;
        match thing {
            Thing::Tag { tag, digest, size } => write!(f, "{repository}:{tag} ({digest}, {size} bytes)")?,
            Thing::Manifest { digest, size } => write!(f, "{repository}@{digest} ({size} bytes)")?,
        }
        match verdict {
            Verdict::Free => Ok(()),
            Verdict::Kept { rule, why } => write!(f, ", rule {rule}: {why}"),
            Verdict::Deleted { rule, why } => write!(f, ", rule {rule}: {why}"),
        }?;
        spared.map_or(Ok(()), |spared| write!(f, "; stays: {spared}"))
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlimited => "keeps all of these",
            Self::Last => "among the last",
            Self::Young => "young",
            Self::AgeUnknown => "of unknown age",
            Self::Newest => "the newest of its major",
            Self::SubjectThere => "what it refers to is there",
        })
    }
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeyondLimits { at: Some(at) } => write!(f, "set {}, beyond its limits", time(*at)),
            Self::BeyondLimits { at: None } => f.write_str("beyond its limits"),
            Self::Unneeded { at } => write!(f, "pushed {}, and nothing needs it", time(*at)),
            Self::Orphaned { subject } => write!(f, "refers to {subject}, which is not there"),
        }
    }
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Needed => "it is needed, or an index that can be put back needs it",
            Self::InFlight => "a push that is under way needs it",
            Self::Changed => "it has changed meanwhile",
        })
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("done", &self.done).finish_non_exhaustive()
    }
}
