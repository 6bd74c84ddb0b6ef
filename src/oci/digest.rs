//! The names of content.

use std::{collections::BTreeSet, fmt, str::FromStr};

use data_encoding::HEXLOWER;

use super::{hasher::Hasher, text::serde_as_text};

/// The hash algorithms that content can be named with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest has.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// Every digest that a JSON text says, whatever else it says: at least those that it would name as a manifest. No encoder
/// escapes the characters of a digest.
pub fn digests_in(text: &[u8]) -> BTreeSet<Digest> {
    String::from_utf8_lossy(text).split('"').filter_map(|word| Digest::parse(word).ok()).collect()
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

serde_as_text!(Algorithm, "a supported algorithm", Algorithm::parse);

/// The name of content: the hash of its bytes, by an algorithm that we compute.
///
/// * The same bytes have one digest for each algorithm, and these are different names.
/// * The order is that of the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("not a digest")]
    Malformed,
    /// The grammar holds, the algorithm is none of ours.
    #[error("a digest of an unsupported algorithm")]
    Unsupported,
}

impl Digest {
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        if !algorithm_is_legal(algorithm) || !encoded_is_legal(encoded) {
            return Err(DigestError::Malformed);
        }
        match Algorithm::parse(algorithm).ok_or(DigestError::Unsupported)? {
            Algorithm::Sha256 => decode_hex(encoded).map(Self::Sha256),
            Algorithm::Sha512 => decode_hex(encoded).map(Self::Sha512),
        }
        .ok_or(DigestError::Malformed)
    }

    /// The digest of these bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.digest()
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(bytes) => HEXLOWER.encode(bytes),
            Self::Sha512(bytes) => HEXLOWER.encode(bytes),
        }
    }
}

/// Components of lower-case letters and digits, joined by single separators.
fn algorithm_is_legal(text: &str) -> bool {
    let component = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split(['+', '.', '_', '-']).all(component)
}

fn encoded_is_legal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

/// Exactly as many bytes as asked for, in lower-case digits.
fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(Digest, "a digest that is supported", |text| Digest::parse(text).ok());

/// A digest as a descriptor may hold it: perhaps of an algorithm that we do not compute.
///
/// * An unsupported one is well-formed, and its algorithm is none of [`Algorithm`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyDigest {
    Known(Digest),
    Unsupported(String),
}

impl AnyDigest {
    /// Fails with [`DigestError::Malformed`] only.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        match Digest::parse(text) {
            Ok(digest) => Ok(Self::Known(digest)),
            Err(DigestError::Unsupported) => Ok(Self::Unsupported(text.to_owned())),
            Err(DigestError::Malformed) => Err(DigestError::Malformed),
        }
    }

    pub fn known(&self) -> Option<&Digest> {
        match self {
            Self::Known(digest) => Some(digest),
            Self::Unsupported(_) => None,
        }
    }
}

impl From<Digest> for AnyDigest {
    fn from(digest: Digest) -> Self {
        Self::Known(digest)
    }
}

impl fmt::Display for AnyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(digest) => fmt::Display::fmt(digest, f),
            Self::Unsupported(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for AnyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(AnyDigest, "a digest", |text| AnyDigest::parse(text).ok());

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn algorithms() -> impl Strategy<Value = Algorithm> {
        prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)]
    }

    fn parsed(text: &str) -> Result<String, DigestError> {
        Digest::parse(text).map(|digest| digest.to_string())
    }

    // DIG-1
    #[test]
    fn text_outside_the_grammar_is_malformed() {
        let hex = "a".repeat(64);
        for bad in
            ["", ":", "sha256", "sha256:", ":abc", "sha256:a b", "sha256:é", "sha256:a:b", "Sha256:a", "x+:a", "+x:a"]
                .into_iter()
                .chain(["a..b:c", "a+.b:c", " x:a", "x:a ", "x:a/b", "x:a\n", "x:../a", "x:a%"])
                .map(str::to_owned)
                .chain([
                    format!("sha256:{hex}:"),
                    format!("SHA256:{hex}"),
                    format!("sha256-{hex}"),
                    format!(" sha256:{hex}"),
                ])
        {
            assert_eq!(parsed(&bad), Err(DigestError::Malformed), "{bad:?}");
            assert_eq!(AnyDigest::parse(&bad), Err(DigestError::Malformed), "{bad:?}");
        }
    }

    // DIG-2
    #[test]
    fn a_known_algorithm_wants_its_exact_count_of_lower_case_digits() {
        for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
            let good = format!("{algorithm}:{}", "0a".repeat(length / 2));
            assert_eq!(parsed(&good), Ok(good));
            for bad in [
                "a".repeat(length - 1),
                "a".repeat(length - 2),
                "a".repeat(length + 1),
                "a".repeat(length + 2),
                "A".repeat(length),
                "g".repeat(length),
                format!("{}=", "a".repeat(length - 1)),
                "a".repeat(192 - length),
            ] {
                let text = format!("{algorithm}:{bad}");
                assert_eq!(parsed(&text), Err(DigestError::Malformed), "{text}");
                assert_eq!(AnyDigest::parse(&text), Err(DigestError::Malformed), "{text}");
            }
        }
    }

    // DIG-4
    #[test]
    fn a_well_formed_digest_of_another_algorithm_is_unsupported_and_kept_as_text() {
        for text in [
            "blake3:00",
            "md5:x",
            "sha384:abc",
            "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
            "a.b-c_d+e:A=_-",
        ] {
            assert_eq!(parsed(text), Err(DigestError::Unsupported), "{text}");
            let any = AnyDigest::parse(text).unwrap();
            assert_eq!((any.known(), any.to_string()), (None, text.to_owned()));
        }
    }

    // DIG-3
    #[test]
    fn digests_are_those_of_the_standard() {
        let empty = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(empty.to_string(), EMPTY);
        assert_eq!(format!("{empty:?}"), EMPTY);
        assert_eq!(
            Digest::of(Algorithm::Sha256, b"{}").hex(),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(
            Digest::of(Algorithm::Sha512, b"abc").hex(),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
    }

    // DIG-5
    #[test]
    fn the_same_bytes_have_two_names() {
        let (short, long) = (Digest::of(Algorithm::Sha256, b"x"), Digest::of(Algorithm::Sha512, b"x"));
        assert_ne!(short, long);
        assert_eq!((short.algorithm(), long.algorithm()), (Algorithm::Sha256, Algorithm::Sha512));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_parses_is_written_as_it_was(text in "\\PC*|[a-z0-9]{0,8}:[a-zA-Z0-9=_-]{0,130}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text.clone());
            }
            if let Ok(digest) = AnyDigest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn legal_digests_parse(text in "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}") {
            let digest = Digest::parse(&text).unwrap();
            prop_assert_eq!(digest.to_string(), &*text);
            prop_assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
            prop_assert_eq!(serde_json::from_value::<Digest>(serde_json::to_value(digest).unwrap()).unwrap(), digest);
        }

        #[test]
        fn legal_digests_of_any_algorithm_parse(text in "[a-z0-9]{1,5}([+._-][a-z0-9]{1,5}){1,3}:[a-zA-Z0-9=_-]{1,80}") {
            let digest = AnyDigest::parse(&text).unwrap();
            prop_assert_eq!(digest.to_string(), &*text);
            prop_assert_eq!(serde_json::from_value::<AnyDigest>(serde_json::to_value(&digest).unwrap()).unwrap(), digest);
        }

        #[test]
        fn the_order_of_digests_is_that_of_their_text(a: [u8; 3], b: [u8; 3], x in algorithms(), y in algorithms()) {
            let (a, b) = (Digest::of(x, &a), Digest::of(y, &b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
