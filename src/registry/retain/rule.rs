//! What an operator wants to be kept.

use std::{num::NonZeroU32, time::Duration};

use glob::{MatchOptions, Pattern};
use semver::Version;

use crate::oci::{Repository, Tag};

/// One rule. The first that speaks of a tag, or of an untagged manifest, decides; what none speaks of is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The repositories that it is for.
    pub repositories: Vec<Pattern>,
    /// The tags that it is for; `None`: all, if it says what to keep of them.
    pub tags: Option<Vec<Pattern>>,
    /// Keep so many tags, those that were set last.
    pub keep_last: Option<NonZeroU32>,
    /// Keep the tags that were set within that time.
    pub keep_younger: Option<Duration>,
    /// Keep the newest version of so many majors. The rule is for tags only that are versions.
    pub keep_semver_majors: Option<NonZeroU32>,
    /// Delete untagged manifests that were pushed longer ago.
    pub untagged_older: Option<Duration>,
    /// Delete untagged manifests that refer to what is not there.
    pub orphaned_referrers: bool,
}

/// `*` and `?` are for one component of a name, `**` for any number of them.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

impl Rule {
    pub(crate) fn is_for(&self, repository: &Repository) -> bool {
        matches(&self.repositories, repository.as_str())
    }

    /// Whether it says anything of tags: if only which of them it is for, those are kept.
    pub(crate) fn speaks_of_tags(&self) -> bool {
        self.tags.is_some() || self.has_limits()
    }

    /// Whether it says which tags go: those that none of its limits keeps.
    pub(crate) fn has_limits(&self) -> bool {
        self.keep_last.is_some() || self.keep_younger.is_some() || self.keep_semver_majors.is_some()
    }

    pub(crate) fn speaks_of_tag(&self, tag: &Tag) -> bool {
        self.speaks_of_tags()
            && self.tags.as_ref().is_none_or(|patterns| matches(patterns, tag.as_str()))
            && (self.keep_semver_majors.is_none() || version(tag).is_some())
    }

    pub(crate) fn speaks_of_manifests(&self) -> bool {
        self.untagged_older.is_some() || self.orphaned_referrers
    }
}

/// The version that a tag is, as in `1.2.3` or `v1.2.3-rc.1`; `1.2` is none.
pub(crate) fn version(tag: &Tag) -> Option<Version> {
    Version::parse(tag.as_str().strip_prefix('v').unwrap_or(tag.as_str())).ok()
}

fn matches(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches_with(text, MATCHING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_one_component_of_a_name_and_two_do_not() {
        for (pattern, is, is_not) in [
            ("*", &["a", "a.b"][..], &["a/b"][..]),
            ("**", &["a", "a/b", "a/b/c"], &[]),
            ("team/*", &["team/a"], &["team", "team/a/b", "teams/a"]),
            ("team/**", &["team/a", "team/a/b"], &["teams/a"]),
            ("team/**/base", &["team/base", "team/a/base", "team/a/b/base"], &["team/a", "base"]),
            ("team/app-?", &["team/app-1"], &["team/app-12", "team/app"]),
            ("[ab]", &["a", "b"], &["c"]),
        ] {
            let rule = Rule { repositories: vec![Pattern::new(pattern).unwrap()], ..Rule::default() };
            let matched = |name: &&&str| rule.is_for(&Repository::parse(name).unwrap());
            assert_eq!(is.iter().find(|name| !matched(name)), None, "{pattern} does not match");
            assert_eq!(is_not.iter().find(matched), None, "{pattern} matches");
        }
    }

    #[test]
    fn a_version_has_three_numbers_and_perhaps_a_v() {
        for (text, is) in [("1.2.3", true), ("v1.2.3-rc.1", true), ("1.2", false), ("latest", false), ("V1.2.3", false)]
        {
            assert_eq!(version(&Tag::parse(text).unwrap()).is_some(), is, "{text}");
        }
    }
}
