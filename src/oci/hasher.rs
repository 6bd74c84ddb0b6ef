//! Running hashes that survive the process.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use super::digest::{Algorithm, Digest};

/// A running hash, which can be put away between any two bytes and taken up by another process.
#[derive(Clone)]
pub struct Hasher(Running);

#[derive(Clone)]
enum Running {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Running::Sha256(Sha256::new()),
            Algorithm::Sha512 => Running::Sha512(Sha512::new()),
        })
    }

    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Running::Sha256(_) => Algorithm::Sha256,
            Running::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Sha256(hash) => hash.update(bytes),
            Running::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        match &self.0 {
            Running::Sha256(hash) => Digest::Sha256(hash.clone().finalize().into()),
            Running::Sha512(hash) => Digest::Sha512(hash.clone().finalize().into()),
        }
    }

    pub fn save(&self) -> HashState {
        let state = match &self.0 {
            Running::Sha256(hash) => hash.serialize().to_vec(),
            Running::Sha512(hash) => hash.serialize().to_vec(),
        };
        HashState { version: HashState::VERSION, algorithm: self.algorithm(), state: seal(state) }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm())
    }
}

/// A [`Hasher`] put away.
///
/// * The version names the form of the state, which the `sha2` crate keeps within its 0.11 releases only.
/// * The state carries a checksum: a damaged one would give wrong digests, or overflow.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashState {
    version: u32,
    algorithm: Algorithm,
    state: String,
}

impl HashState {
    const VERSION: u32 = 1;

    /// `None`: saved by another version, or damaged. The bytes must be hashed again.
    pub fn restore(&self) -> Option<Hasher> {
        if self.version != Self::VERSION {
            return None;
        }
        let state = unseal(&self.state)?;
        Some(Hasher(match self.algorithm {
            Algorithm::Sha256 => Running::Sha256(thaw(&state)?),
            Algorithm::Sha512 => Running::Sha512(thaw(&state)?),
        }))
    }
}

/// Bytes of checksum after a saved state.
const CHECKSUM: usize = 8;

fn seal(mut state: Vec<u8>) -> String {
    let checksum = Sha256::digest(&state);
    state.extend(checksum.iter().take(CHECKSUM));
    BASE64.encode(&state)
}

fn unseal(text: &str) -> Option<Vec<u8>> {
    let mut state = BASE64.decode(text.as_bytes()).ok()?;
    state.truncate(state.len().checked_sub(CHECKSUM)?);
    (seal(state.clone()) == text).then_some(state)
}

fn thaw<H: SerializableState>(state: &[u8]) -> Option<H> {
    H::deserialize(&SerializedState::<H>::try_from(state).ok()?).ok()
}

impl fmt::Debug for HashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashState({}, version {})", self.algorithm, self.version)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// States are kept in the store: an update of `sha2` that changes their form needs a new version.
    #[test]
    fn a_state_saved_by_an_earlier_build_is_taken_up() {
        for (saved, algorithm) in [(SAVED_256, Algorithm::Sha256), (SAVED_512, Algorithm::Sha512)] {
            let state: HashState = serde_json::from_str(saved).unwrap();
            let mut hasher = state.restore().unwrap();
            hasher.update(b", world");
            assert_eq!(hasher.digest(), Digest::of(algorithm, format!("{}, world", "hello".repeat(50)).as_bytes()));
        }
    }

    #[test]
    fn a_damaged_or_foreign_state_is_not_taken_up() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&[7; 100]);
        let good = hasher.save();
        assert!(good.restore().is_some());
        assert!(HashState { version: 2, ..good.clone() }.restore().is_none());
        assert!(HashState { algorithm: Algorithm::Sha512, ..good.clone() }.restore().is_none());
        for state in ["", "AAAA", "not base64", &good.state[4..]] {
            assert!(HashState { state: state.to_owned(), ..good.clone() }.restore().is_none(), "{state}");
        }
        for at in 0..good.state.len() {
            let mut state = good.state.clone().into_bytes();
            state[at] = if state[at] == b'A' { b'B' } else { b'A' };
            let state = String::from_utf8(state).unwrap();
            assert!(HashState { state, ..good.clone() }.restore().is_none(), "byte {at}");
        }
    }

    #[test]
    fn debug_text_never_shows_the_bytes_hashed() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"secret");
        assert_eq!(format!("{hasher:?} {:?}", hasher.save()), "Hasher(sha512) HashState(sha512, version 1)");
    }

    proptest! {
        #[test]
        fn hashing_in_pieces_and_put_away_between_any_two_is_hashing_at_once(
            algorithm in prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)],
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        ) {
            let mut hasher = Hasher::new(algorithm);
            let mut whole = Vec::new();
            for piece in &pieces {
                let saved = serde_json::to_vec(&hasher.save()).unwrap();
                hasher = serde_json::from_slice::<HashState>(&saved).unwrap().restore().unwrap();
                hasher.update(piece);
                whole.extend_from_slice(piece);
                prop_assert_eq!(hasher.digest(), Digest::of(algorithm, &whole));
            }
        }
    }

    const SAVED_256: &str = r#"{"version":1,"algorithm":"sha256","state":"rwJf/HKF6WWnc99vFlFeTdcOoUl+RCM6dbEtD9GvORgDAAAAAAAAADpsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvAAAAAADIzX7IUPcpQQ=="}"#;
    const SAVED_512: &str = r#"{"version":1,"algorithm":"sha512","state":"9LBzaD6UHiraSl+364hwEuUQbcXuiPeWRcjsD6wGGCCQtCs1xaJOLrm9ZjKrQtggrb6EPQ6AogSWTsTK+X4atgEAAAAAAAAAAAAAAAAAAAB6bG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG9oZWxsb2hlbGxvaGVsbG8AAAAAABsaDqh2LP2S"}"#;
}
