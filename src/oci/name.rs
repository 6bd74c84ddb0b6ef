//! The names of repositories and tags, and what a manifest is asked for by.

use std::{fmt, iter, sync::Arc};

use super::{
    digest::{Digest, DigestError},
    text::serde_as_text,
};

/// The longest name of a repository, in bytes. Clients cap host and name together at this; and a name must fit into one
/// segment of a store's key.
pub const MAX_REPOSITORY: usize = 255;

/// The longest tag, in bytes.
pub const MAX_TAG: usize = 128;

/// The name of a repository.
///
/// * One or more components joined by `/`; at most [`MAX_REPOSITORY`] bytes.
/// * A component is lower-case letters and digits, with single separators inside: `.`, `_`, `__` or any run of `-`.
/// * So no component is empty, `.` or `..`, and none starts with `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Arc<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("not the name of a repository")]
    Malformed,
    #[error("the name of the repository is longer than {MAX_REPOSITORY} bytes")]
    TooLong,
}

impl Repository {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_REPOSITORY {
            return Err(NameError::TooLong);
        }
        if !text.split('/').all(component_is_legal) {
            return Err(NameError::Malformed);
        }
        Ok(Self(text.into()))
    }

    /// The greatest text of the characters and the length of a name that does not sort after `last`, whatever that is. No
    /// name is between the two.
    pub fn up_to(last: &str) -> String {
        greatest_up_to(last, MAX_REPOSITORY, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-/".contains(&b))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn component_is_legal(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.starts_with(alphanumeric) && text.ends_with(alphanumeric) && text.split(alphanumeric).all(separator)
}

impl AsRef<str> for Repository {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(Repository, "the name of a repository", |text| Repository::parse(text).ok());

/// A tag.
///
/// * 1 to [`MAX_TAG`] bytes of `A-Z a-z 0-9 _ . -`, the first none of `.` and `-`.
/// * Case counts; the order is that of the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    pub fn parse(text: &str) -> Option<Self> {
        let legal =
            (1..=MAX_TAG).contains(&text.len()) && !text.starts_with(['.', '-']) && text.bytes().all(is_of_tags);
        legal.then(|| Self(text.into()))
    }

    /// The greatest text of the characters and the length of a tag that does not sort after `last`, whatever that is. No
    /// tag is between the two.
    pub fn up_to(last: &str) -> String {
        greatest_up_to(last, MAX_TAG, is_of_tags)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(Tag, "a tag", Tag::parse);

fn is_of_tags(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

/// In the order of bytes. The greatest that is legal is `z`.
fn greatest_up_to(last: &str, longest: usize, is_legal: impl Fn(u8) -> bool) -> String {
    let mut text: String = last.bytes().take(longest).take_while(|byte| is_legal(*byte)).map(char::from).collect();
    let next = last.as_bytes().get(text.len()).filter(|_| text.len() < longest);
    if let Some(below) = next.and_then(|next| (0..*next).rev().find(|byte| is_legal(*byte))) {
        text.push(char::from(below));
        text.extend(iter::repeat_n('z', longest - text.len()));
    }
    text
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("neither a tag nor a digest")]
    Malformed,
    #[error("a digest of an unsupported algorithm")]
    UnsupportedDigest,
}

impl Reference {
    /// A text with a `:` is meant as a digest: no tag has one.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if !text.contains(':') {
            return Tag::parse(text).map(Self::Tag).ok_or(ReferenceError::Malformed);
        }
        match Digest::parse(text) {
            Ok(digest) => Ok(Self::Digest(digest)),
            Err(DigestError::Malformed) => Err(ReferenceError::Malformed),
            Err(DigestError::Unsupported) => Err(ReferenceError::UnsupportedDigest),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // NAME-1, NAME-3
    #[test]
    fn legal_repositories_parse() {
        for good in
            ["a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "a-b.c_d__e--f/g0/h", "library/ubuntu", "1/2/3"]
                .into_iter()
                .chain([
                    "foo/tags",
                    "blobs/uploads",
                    "x/manifests/y",
                    "tags/list",
                    "manifests",
                    "v2",
                    "referrers/uploads/list",
                ])
        {
            assert_eq!(Repository::parse(good).unwrap().as_str(), good);
        }
    }

    // NAME-1, NAME-4
    #[test]
    fn illegal_repositories_do_not_parse() {
        for bad in
            ["", "/", "a/", "/a", "a//b", "A", "aB", "a..b", "a___b", "a._b", "a_.b", "a-_b", "a_-b", "a.-b", "a-.b"]
                .into_iter()
                .chain([
                    "_a", "a_", ".a", "a.", "-a", "a-", "a/_b", "a/b_", ".", "..", "a/..", "a/../b", "./a", "_catalog",
                    "__", "-",
                ])
                .chain([
                    "a b", " a", "a ", "a:b", "a@b", "a%2fb", "a\\b", "a\0b", "a\n", "é", "aé", "ａ", "a\u{301}",
                    "a+b", "a/_ext/b",
                ])
        {
            assert_eq!(Repository::parse(bad), Err(NameError::Malformed), "{bad:?}");
        }
    }

    // NAME-2
    #[test]
    fn a_repository_has_at_most_255_bytes() {
        assert!(Repository::parse(&"a".repeat(255)).is_ok());
        assert_eq!(Repository::parse(&"a".repeat(256)), Err(NameError::TooLong));
        assert!(Repository::parse(&format!("{}a", "a/".repeat(127))).is_ok());
        assert_eq!(Repository::parse(&format!("{}aa", "a/".repeat(127))), Err(NameError::TooLong));
    }

    // NAME-5
    #[test]
    fn tags_are_up_to_128_characters_and_start_with_a_word_character() {
        for good in ["latest", "Latest", "_", "0", "v1.0-rc.1", "a..b", "__", "a-", "a."] {
            assert_eq!(Tag::parse(good).unwrap().as_str(), good);
        }
        assert!(Tag::parse(&"x".repeat(128)).is_some());
        assert_eq!(Tag::parse(&"x".repeat(129)), None);
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a b", "a:b", "a+b", "é", "a\0", "a\n", "@", "sha256:a"] {
            assert_eq!(Tag::parse(bad), None, "{bad:?}");
        }
        assert_ne!(Tag::parse("latest"), Tag::parse("Latest"));
    }

    // NAME-6
    #[test]
    fn a_digest_written_with_a_dash_is_an_ordinary_tag() {
        let hex = "0f".repeat(32);
        for suffix in ["", ".sig", ".att", ".sbom"] {
            let text = format!("sha256-{hex}{suffix}");
            assert_eq!(Reference::parse(&text), Ok(Reference::Tag(Tag::parse(&text).unwrap())));
        }
    }

    // NAME-7
    #[test]
    fn a_reference_with_a_colon_is_meant_as_a_digest() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(Reference::parse(&digest), Ok(Reference::Digest(Digest::parse(&digest).unwrap())));
        assert_eq!(Reference::parse("blake3:00"), Err(ReferenceError::UnsupportedDigest));
        for bad in ["", ".INVALID_MANIFEST_NAME", "sha256:abc", ":", "a:", "latest:", "sha256:", "a b"] {
            assert_eq!(Reference::parse(bad), Err(ReferenceError::Malformed), "{bad:?}");
        }
    }

    // TAGS-3
    #[test]
    fn tags_are_in_byte_order() {
        let mut tags: Vec<_> =
            ["b", "1.0.1", "_", "1.0-rc1", "a", "B", "1.0", "A"].into_iter().filter_map(Tag::parse).collect();
        tags.sort();
        assert_eq!(
            tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
            ["1.0", "1.0-rc1", "1.0.1", "A", "B", "_", "a", "b"]
        );
    }

    // TAGS-8, CAT-1
    #[test]
    fn whatever_is_given_as_the_last_of_a_list_has_its_place_among_legal_texts() {
        let long = "a".repeat(300);
        for (last, tag, name) in [
            ("", String::new(), String::new()),
            ("v1", "v1".into(), "v1".into()),
            ("..", "..".into(), "..".into()),
            (&long, "a".repeat(128), "a".repeat(255)),
            ("a/", "a.".to_owned() + &"z".repeat(126), "a/".into()),
            ("a\u{e9}", "az".to_owned() + &"z".repeat(126), "az".to_owned() + &"z".repeat(253)),
            ("a\0", "a".into(), "a".into()),
            (" ", String::new(), String::new()),
        ] {
            assert_eq!((Tag::up_to(last), Repository::up_to(last)), (tag, name), "{last:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_between_the_last_of_a_list_and_the_place_that_stands_for_it(
            last in "\\PC{0,4}|[a-c/.\0 ~_-]{0,4}|[az]{120,260}\\PC?",
            tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,3}|[az]{120,128}",
            name in "[a-c0-9]([/._-]?[a-c]){0,3}|[az]{120,255}",
        ) {
            prop_assert!(Tag::up_to(&last) <= last && Repository::up_to(&last) <= last);
            prop_assert_eq!(tag > last, tag > Tag::up_to(&last));
            prop_assert_eq!(name > last, name > Repository::up_to(&last));
            prop_assert_eq!(Tag::up_to(&tag), tag);
            prop_assert_eq!(Repository::up_to(&name), name);
        }

        #[test]
        fn no_text_makes_a_parser_panic_and_what_parses_is_written_as_it_was(text in "\\PC*|[a-zA-Z0-9._:/-]{0,300}") {
            if let Ok(name) = Repository::parse(&text) {
                prop_assert_eq!(name.to_string(), text.clone());
            }
            if let Some(tag) = Tag::parse(&text) {
                prop_assert_eq!(tag.to_string(), text.clone());
            }
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }

        #[test]
        fn names_made_by_the_grammar_parse(
            text in "[a-z0-9]{1,4}((\\.|_|__|-{1,4})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\\.|_|__|-{1,4})[a-z0-9]{1,4}){0,3}){0,5}"
        ) {
            let name = Repository::parse(&text).unwrap();
            prop_assert_eq!(serde_json::from_value::<Repository>(serde_json::to_value(&name).unwrap()).unwrap(), name);
        }

        #[test]
        fn tags_made_by_the_grammar_parse(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            let tag = Tag::parse(&text).unwrap();
            prop_assert_eq!(serde_json::from_value::<Tag>(serde_json::to_value(&tag).unwrap()).unwrap(), tag.clone());
            prop_assert_eq!(Reference::parse(&text), Ok(Reference::Tag(tag)));
        }
    }
}
