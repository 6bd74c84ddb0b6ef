//! The tables `[[retention]]` of the file: rules, which no flag or variable could hold.

use std::{fmt, num::NonZeroU32, time::Duration};

use glob::Pattern;
use serde::{Deserialize, Serialize, de::IntoDeserializer};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Error, Origin};

/// The name of these tables.
pub(super) const NAME: &str = "retention";

/// What to keep of some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    pub repositories: Patterns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Patterns>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_younger: Option<Age>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_semver_majors: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged_older: Option<Age>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphaned_referrers: bool,
}

/// Names, by patterns: at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Patterns(pub Vec<Pattern>);

/// How old something may be: longer than zero. There is no longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Age(pub Duration);

/// A rule, and where it was given.
#[derive(Clone, Debug)]
pub(super) struct GivenRule {
    pub(super) rule: RetentionRule,
    pub(super) origin: Origin,
}

impl RetentionRule {
    fn says_something(&self) -> bool {
        let limits_tags = self.keep_last.is_some() || self.keep_younger.is_some() || self.keep_semver_majors.is_some();
        self.tags.is_some() || limits_tags || self.untagged_older.is_some() || self.orphaned_referrers
    }
}

/// Reads the tables. `origin` says where a byte of the file stands.
pub(super) fn parse(value: &Spanned<DeValue<'_>>, origin: impl Fn(usize) -> Origin) -> Result<Vec<GivenRule>, Error> {
    let wrong = |at, message: &str| Error::Value { origin: origin(at), message: message.to_owned() };
    let at = value.span().start;
    let tables = value.get_ref().as_array().ok_or_else(|| wrong(at, "expected tables, each headed [[retention]]"))?;
    let mut rules = Vec::new();
    for table in tables {
        let at = table.span().start;
        let DeValue::Table(fields) = table.get_ref() else { return Err(wrong(at, "expected a table")) };
        let fields: Spanned<DeTable<'_>> = Spanned::new(table.span(), fields.clone());
        let rule = RetentionRule::deserialize(fields.into_deserializer())
            .map_err(|error| wrong(error.span().map_or(at, |span| span.start), error.message()))?;
        if !rule.says_something() {
            return Err(wrong(
                at,
                "expected tags, keep_…, untagged_older or orphaned_referrers: this rule says nothing",
            ));
        }
        rules.push(GivenRule { rule, origin: origin(at) });
    }
    Ok(rules)
}

/// As it stands in a file.
impl fmt::Display for GivenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = toml::to_string(&self.rule).map_err(|_| fmt::Error)?;
        write!(f, "\n[[{NAME}]]  # {}\n{fields}", self.origin)
    }
}

impl TryFrom<Vec<String>> for Patterns {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        if texts.is_empty() {
            return Err("expected at least one pattern".to_owned());
        }
        let parse =
            |text: &String| Pattern::new(text).map_err(|error| format!("{text:?} is no pattern: {}", error.msg));
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Patterns> for Vec<String> {
    fn from(patterns: Patterns) -> Self {
        patterns.0.iter().map(ToString::to_string).collect()
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let age = humantime::parse_duration(&text).ok().filter(|age| !age.is_zero());
        age.map(Self).ok_or_else(|| format!("expected a time longer than zero, such as 30d, found {text:?}"))
    }
}

impl From<Age> for String {
    fn from(age: Age) -> Self {
        humantime::format_duration(age.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{
        Effective,
        sources::{self, Sources},
    };

    fn read(text: &str) -> Result<Effective, String> {
        let file = sources::parse(Path::new("m.toml"), text).map_err(|error| error.to_string())?;
        Effective::read(&Sources { layers: vec![file.layer], retention: file.retention }).map_err(|e| e.to_string())
    }

    const ALL: &str = r#"
        drain = "1s"

        [[retention]]
        repositories = ["team/**", "lib"]
        tags = ["pr-*"]
        keep_last = 3
        keep_younger = "7d"
        keep_semver_majors = 2
        untagged_older = "3years"
        orphaned_referrers = true

        [[retention]]
        repositories = ["**"]
        tags = ["**"]
    "#;

    #[test]
    fn rules_are_read_in_their_order_and_without_any_there_are_none() {
        assert_eq!(read("").unwrap().config.retention, []);
        let rules = read(ALL).unwrap().config.retention;
        let days = |days: u64| Some(Age(Duration::from_hours(24 * days)));
        assert_eq!(rules.len(), 2);
        assert_eq!(Vec::<String>::from(rules[0].repositories.clone()), ["team/**", "lib"]);
        assert_eq!((rules[0].keep_last, rules[0].keep_younger), (NonZeroU32::new(3), days(7)));
        assert!(rules[0].untagged_older.unwrap().0 > days(3 * 365).unwrap().0 && rules[0].orphaned_referrers);
        assert!(rules[1].keep_last.is_none() && !rules[1].orphaned_referrers);
    }

    #[test]
    fn what_is_displayed_reads_back_as_the_same_rules_and_says_where_they_stand() {
        let given = read(ALL).unwrap();
        let shown = given.to_string();
        assert_eq!(read(&shown).unwrap().config, given.config, "{shown}");
        assert!(
            shown.contains("[[retention]]  # m.toml:4\n") && shown.contains("[[retention]]  # m.toml:13\n"),
            "{shown}"
        );
    }

    #[test]
    fn a_wrong_rule_says_on_which_line_what_is_wrong() {
        let rule = |rest: &str| format!("[[retention]]\nrepositories = [\"**\"]\n{rest}");
        for (text, line, expected) in [
            (rule(""), 1, "this rule says nothing"),
            ("\n[[retention]]\nkeep_last = 1".to_owned(), 2, "missing field `repositories`"),
            (rule("keep_lats = 1"), 3, "unknown field `keep_lats`, expected one of"),
            (rule("keep_last = 0"), 3, "expected a nonzero u32"),
            (rule("keep_last = \"1\""), 3, "invalid type: string \"1\""),
            (rule("untagged_older = \"0s\""), 3, "expected a time longer than zero"),
            (rule("tags = []"), 3, "expected at least one pattern"),
            (rule("tags = [\"a[\"]"), 3, "\"a[\" is no pattern"),
            ("\nretention = 1".to_owned(), 2, "expected tables, each headed [[retention]]"),
            ("[retention]\nkeep_last = 1".to_owned(), 1, "expected tables, each headed [[retention]]"),
            ("retention = [1]".to_owned(), 1, "expected a table"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(&format!("m.toml:{line}: ")) && error.contains(expected), "{text}: {error}");
        }
    }
}
