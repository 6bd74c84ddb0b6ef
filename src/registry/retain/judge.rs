//! What rules say of a repository: a pure function of what was read of it. Whoever carries it out looks again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use semver::Version;

use super::rule::{Rule, version};
use crate::oci::{Algorithm, Digest, Repository, Tag};

/// What was read of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) repository: Repository,
    pub(crate) tags: Vec<KnownTag>,
    pub(crate) manifests: Vec<KnownManifest>,
    /// When that was; in seconds since the epoch, like all times here.
    pub(crate) now: u64,
    /// No manifest goes that is younger: what it was pushed for may still be to come.
    pub(crate) grace: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownTag {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    /// When it was set, if that is known.
    pub(crate) at: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownManifest {
    pub(crate) digest: Digest,
    /// When it was pushed last, if that is known.
    pub(crate) at: Option<u64>,
    pub(crate) subject: Option<Digest>,
    pub(crate) children: Vec<Digest>,
}

/// What is to become of each tag and each manifest, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) tags: Vec<Verdict>,
    pub(crate) manifests: Vec<Verdict>,
}

/// `rule` is the place of the rule that says so, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No rule speaks of it, or it is a manifest that something needs.
    Free,
    Kept {
        rule: usize,
        why: Kept,
    },
    Deleted {
        rule: usize,
        why: Deleted,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The rule has no limits.
    Unlimited,
    /// Among those that were set last.
    Last,
    /// Too young to go.
    Young,
    /// Nobody knows how old it is.
    AgeUnknown,
    /// The newest version of one of the last majors.
    Newest,
    /// What it refers to is there.
    SubjectThere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// None of the limits keeps the tag, which was set then.
    BeyondLimits { at: Option<u64> },
    /// No tag, no index and no subject needs it, and it was pushed then.
    Unneeded { at: u64 },
    /// It refers to this, which is not there.
    Orphaned { subject: Digest },
}

/// A rule, and its place.
type Numbered<'a> = (usize, &'a Rule);

/// What the limits of one rule keep of the tags of one repository.
struct Limits {
    is_unlimited: bool,
    /// Those that were set then or later.
    last_since: Option<u64>,
    /// By the rule, or within the grace: replicas whose clocks are apart do not agree on which was set last.
    young_since: u64,
    asks_for_age: bool,
    newest: BTreeSet<Version>,
}

pub(crate) fn judge(rules: &[Rule], snapshot: &Snapshot) -> Judgement {
    let rules: Vec<Numbered> = (1..).zip(rules).filter(|(_, rule)| rule.is_for(&snapshot.repository)).collect();
    let present: HashSet<Digest> = snapshot.manifests.iter().map(|manifest| manifest.digest).collect();
    Judgement { tags: judge_tags(&rules, snapshot, &present), manifests: judge_manifests(&rules, snapshot, &present) }
}

fn judge_tags(rules: &[Numbered], snapshot: &Snapshot, present: &HashSet<Digest>) -> Vec<Verdict> {
    let deciding = |known: &KnownTag| {
        let is_plain = subject_of(&known.tag).is_none();
        rules.iter().copied().find(|(_, rule)| is_plain && rule.speaks_of_tag(&known.tag))
    };
    let mut governed: BTreeMap<usize, (&Rule, Vec<&KnownTag>)> = BTreeMap::new();
    for known in &snapshot.tags {
        if let Some((number, rule)) = deciding(known) {
            governed.entry(number).or_insert((rule, Vec::new())).1.push(known);
        }
    }
    let limits: BTreeMap<usize, Limits> =
        governed.into_iter().map(|(number, (rule, tags))| (number, Limits::of(rule, &tags, snapshot))).collect();
    let verdict = |known: &KnownTag| {
        if let Some(subject) = subject_of(&known.tag) {
            return judge_referrer_tag(rules, snapshot, known, subject, present);
        }
        let Some((rule, limits)) = deciding(known).and_then(|(number, _)| Some((number, limits.get(&number)?))) else {
            return Verdict::Free;
        };
        match limits.keep(known) {
            Some(why) => Verdict::Kept { rule, why },
            None => Verdict::Deleted { rule, why: Deleted::BeyondLimits { at: known.at } },
        }
    };
    snapshot.tags.iter().map(verdict).collect()
}

/// A tag by which clients list what refers to a subject goes with the subject.
fn judge_referrer_tag(
    rules: &[Numbered],
    snapshot: &Snapshot,
    known: &KnownTag,
    subject: Digest,
    present: &HashSet<Digest>,
) -> Verdict {
    let Some((rule, _)) = rules.iter().find(|(_, rule)| rule.orphaned_referrers) else { return Verdict::Free };
    let rule = *rule;
    match known.at {
        _ if present.contains(&subject) => Verdict::Kept { rule, why: Kept::SubjectThere },
        None => Verdict::Kept { rule, why: Kept::AgeUnknown },
        Some(at) if snapshot.is_young(at, snapshot.grace) => Verdict::Kept { rule, why: Kept::Young },
        Some(_) => Verdict::Deleted { rule, why: Deleted::Orphaned { subject } },
    }
}

fn judge_manifests(rules: &[Numbered], snapshot: &Snapshot, present: &HashSet<Digest>) -> Vec<Verdict> {
    let tagged = snapshot.tags.iter().map(|known| known.digest);
    let children = snapshot.manifests.iter().flat_map(|known| known.children.iter().copied());
    let needed: HashSet<Digest> = tagged.chain(children).collect();
    let verdict = |known: &KnownManifest| {
        let is_referrer = known.subject.is_some_and(|subject| present.contains(&subject));
        if needed.contains(&known.digest) || is_referrer {
            return Verdict::Free;
        }
        let orphaned = known.subject;
        let decides = |rule: &Rule| rule.untagged_older.is_some() || (rule.orphaned_referrers && orphaned.is_some());
        let Some((number, rule)) = rules.iter().find(|(_, rule)| decides(rule)) else { return Verdict::Free };
        let (rule, number) = (*rule, *number);
        let Some(at) = known.at else { return Verdict::Kept { rule: number, why: Kept::AgeUnknown } };
        let older = rule.untagged_older.map(|older| older.as_secs().max(snapshot.grace));
        match (orphaned.filter(|_| rule.orphaned_referrers), older) {
            (Some(subject), _) if !snapshot.is_young(at, snapshot.grace) => {
                Verdict::Deleted { rule: number, why: Deleted::Orphaned { subject } }
            }
            (None, Some(older)) if !snapshot.is_young(at, older) => {
                Verdict::Deleted { rule: number, why: Deleted::Unneeded { at } }
            }
            _ => Verdict::Kept { rule: number, why: Kept::Young },
        }
    };
    snapshot.manifests.iter().map(verdict).collect()
}

impl Snapshot {
    /// Whether what is of that time is not older than so many seconds.
    fn is_young(&self, at: u64, seconds: u64) -> bool {
        at.saturating_add(seconds) >= self.now
    }
}

impl Limits {
    /// Of the tags for which the rule decides.
    fn of(rule: &Rule, tags: &[&KnownTag], snapshot: &Snapshot) -> Self {
        let last_since = rule.keep_last.map(|count| {
            let mut times: Vec<u64> = tags.iter().filter_map(|known| known.at).collect();
            times.sort_unstable_by(|one, other| other.cmp(one));
            // Those of one second are as late as each other: all of them stay, or none.
            usize::try_from(count.get() - 1).ok().and_then(|nth| times.get(nth).copied()).unwrap_or(0)
        });
        let young = rule.keep_younger.map_or(0, |younger| younger.as_secs()).max(snapshot.grace);
        let young_since = snapshot.now.saturating_sub(young);
        let asks_for_age = rule.keep_last.is_some() || rule.keep_younger.is_some();
        let mut newest: BTreeMap<u64, Version> = BTreeMap::new();
        for version in tags.iter().filter_map(|known| version(&known.tag)).filter(|version| version.pre.is_empty()) {
            let of_major = newest.entry(version.major).or_insert_with(|| version.clone());
            *of_major = version.max(of_major.clone());
        }
        let majors = rule.keep_semver_majors.map_or(0, |majors| usize::try_from(majors.get()).unwrap_or(usize::MAX));
        let newest = newest.into_values().rev().take(majors).collect();
        Self { is_unlimited: !rule.has_limits(), last_since, young_since, asks_for_age, newest }
    }

    fn keep(&self, known: &KnownTag) -> Option<Kept> {
        if self.is_unlimited {
            return Some(Kept::Unlimited);
        }
        let is_since = |since: u64| known.at.is_some_and(|at| at >= since);
        if self.last_since.is_some_and(is_since) {
            Some(Kept::Last)
        } else if is_since(self.young_since) {
            Some(Kept::Young)
        } else if version(&known.tag).is_some_and(|version| self.newest.contains(&version)) {
            Some(Kept::Newest)
        } else {
            (self.asks_for_age && known.at.is_none()).then_some(Kept::AgeUnknown)
        }
    }
}

/// What the manifest behind a tag refers to, where clients say so by the tag: `sha256-<hex>`, as in the specification,
/// with a suffix such as `.sig` by cosign.
fn subject_of(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    Algorithm::parse(algorithm)?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

#[cfg(test)]
mod tests;
