//! The name of an object.

use std::fmt;

/// The name of an object in a [`Store`](super::Store).
///
/// * One or more segments joined by `/`, none of them empty, `.` or `..`.
/// * Every byte is one of `A-Z a-z 0-9 . _ - !` (or the `/` between segments).
/// * At most 1,024 bytes, a segment at most 255: what S3 and a disk both take.
/// * No segment starts with `.`: such names belong to the filesystem driver.
///
/// The registry never makes one key a `/`-prefix of another: some stores hide such keys and a disk cannot hold them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// The longest key, in bytes.
const MAX_KEY: usize = 1024;
/// The longest segment of a key, in bytes.
const MAX_SEGMENT: usize = 255;

impl Key {
    /// Parses a key; `None` if an invariant does not hold.
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let good = text.len() <= MAX_KEY && text.split('/').all(segment_is_legal);
        good.then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn segment_is_legal(segment: &str) -> bool {
    (1..=MAX_SEGMENT).contains(&segment.len())
        && !segment.starts_with('.')
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-!".contains(&b))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_store_could_misread_do_not_parse() {
        for bad in ["", "/", "a/", "/a", "a//b", "a/../b", "./a", "a b", "a\0", "é", ".a", "a/.tmp", "a%2fb", "a#"] {
            assert_eq!(Key::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Key::parse("x".repeat(256)), None);
        assert_eq!(Key::parse(vec!["x".repeat(250); 5].join("/")), None);
        for good in ["a", "a/b", "a.b/_c-d", "blobs/sha256/ab/x!y", "uploads/x/!end"] {
            assert!(Key::parse(good).is_some(), "{good:?}");
        }
    }
}
