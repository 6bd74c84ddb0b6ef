//! Ids of upload sessions. An id proves by itself that this fleet issued it for this repository, so that starting an
//! upload costs no store call and a made-up id is unknown on every replica.

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::{layout, nonce};
use crate::{
    oci::{Algorithm, Repository},
    store::{self, Condition, Error, ErrorKind, Store},
};

/// The id of an upload session: a UUID whose 122 free bits are, from the left,
///
/// * 22: when it was issued, in units of 4,096 seconds;
/// * 1: the algorithm that the client announced (0: sha256, 1: sha512);
/// * 67: random;
/// * 32: the head of an HMAC over the rest and the repository.
///
/// To forge one gains nothing but a session, which a POST gives as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

/// The fleet's key for session ids. It lies in the store, so that replicas agree with nothing to configure.
#[derive(Clone)]
pub(crate) struct SessionKey([u8; 32]);

/// What an id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Seconds since the epoch, rounded down to a unit.
    pub(crate) at: u64,
    pub(crate) algorithm: Algorithm,
}

const UNIT_BITS: u32 = 12;
/// Granularity of the issue time, in seconds.
pub(crate) const UNIT: u64 = 1 << UNIT_BITS;
const RANDOM_BITS: u32 = 67;
const TAG_BITS: u32 = 32;

impl SessionId {
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        // One text per id: other spellings of a UUID are not what was issued.
        (id.hyphenated().to_string() == text).then_some(Self(id))
    }

    /// Two hex digits' worth that spread evenly.
    pub(crate) fn shard(self) -> u8 {
        self.0.as_u128().to_be_bytes()[15]
    }

    /// When it was issued, in seconds since the epoch, to a unit; if it was issued.
    pub(crate) fn issued(self) -> u64 {
        u64::try_from(unpack(self) >> (RANDOM_BITS + 1 + TAG_BITS)).unwrap_or(u64::MAX) << UNIT_BITS
    }
}

impl SessionKey {
    /// Reads the fleet's key, or makes it. Of replicas that start together one creates it and all use that.
    pub(crate) async fn load(store: &dyn Store) -> store::Result<Self> {
        let at = layout::session_key();
        let mut found = store.read(&at).await?;
        if found.is_none() {
            // Lost: another replica made one at the same time, and the read below says which.
            let made = Bytes::copy_from_slice(&nonce::random::<32>());
            store.put(&at, made, Condition::Create).await?;
            found = store.read(&at).await?;
        }
        let key = found.and_then(|found| found.bytes.as_ref().try_into().ok());
        key.map(Self).ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("{at} is not a key")))
    }

    pub(crate) fn issue(&self, repository: &Repository, algorithm: Algorithm, now: SystemTime) -> SessionId {
        let units = seconds(now) >> UNIT_BITS;
        let algorithm = u128::from(algorithm == Algorithm::Sha512);
        let random = u128::from_be_bytes(nonce::random()) & ((1 << RANDOM_BITS) - 1);
        let head = ((u128::from(units) & 0x3f_ffff) << 1 | algorithm) << RANDOM_BITS | random;
        pack(head << TAG_BITS | u128::from(self.tag(repository, head)))
    }

    /// What an id says, if this fleet issued it for this repository.
    pub(crate) fn check(&self, repository: &Repository, id: SessionId) -> Option<Issued> {
        let bits = unpack(id);
        let head = bits >> TAG_BITS;
        if pack(bits) != id || u128::from(self.tag(repository, head)) != bits & u128::from(u32::MAX) {
            return None;
        }
        let algorithm = if head >> RANDOM_BITS & 1 == 1 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        Some(Issued { at: id.issued(), algorithm })
    }

    fn tag(&self, repository: &Repository, head: u128) -> u32 {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return 0 };
        mac.update(&head.to_be_bytes());
        mac.update(repository.as_str().as_bytes());
        let [a, b, c, d, ..]: [u8; 32] = mac.finalize().into_bytes().into();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// Seconds since the epoch; a clock before it counts as zero.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Lays 122 bits around the version (8: custom) and variant of a UUID.
fn pack(bits: u128) -> SessionId {
    let (high, middle, low) = (bits >> 74, bits >> 62 & 0xfff, bits & ((1 << 62) - 1));
    SessionId(Uuid::from_u128(high << 80 | 8 << 76 | middle << 64 | 2 << 62 | low))
}

fn unpack(SessionId(id): SessionId) -> u128 {
    let id = id.as_u128();
    (id >> 80) << 74 | (id >> 64 & 0xfff) << 62 | id & ((1 << 62) - 1)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn repository(name: &str) -> Repository {
        Repository::parse(name).unwrap()
    }

    #[test]
    fn an_id_says_when_and_for_what_it_was_issued() {
        let key = SessionKey([7; 32]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_123);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let id = key.issue(&repository("a/b"), algorithm, now);
            let issued = key.check(&repository("a/b"), id).unwrap();
            assert_eq!(issued.algorithm, algorithm);
            assert!(1_800_000_123 - issued.at < UNIT);
            assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        }
    }

    // STATE-2, STATE-3
    #[test]
    fn an_id_is_unknown_to_another_repository_another_fleet_and_when_any_bit_differs() {
        let key = SessionKey([7; 32]);
        let id = key.issue(&repository("a"), Algorithm::Sha256, SystemTime::UNIX_EPOCH);
        assert_eq!(key.check(&repository("b"), id), None);
        assert_eq!(SessionKey([8; 32]).check(&repository("a"), id), None);
        for bit in 0..128 {
            let other = SessionId(Uuid::from_u128(id.0.as_u128() ^ 1 << bit));
            assert_eq!(key.check(&repository("a"), other), None, "bit {bit}");
        }
    }

    #[test]
    fn only_the_spelling_that_was_issued_is_an_id() {
        let id = SessionId(nonce::fresh_id()).to_string();
        assert!(SessionId::parse(&id).is_some());
        for bad in
            [id.to_uppercase() + "A", id.replace('-', ""), format!("{{{id}}}"), format!("urn:uuid:{id}"), String::new()]
        {
            assert_eq!(SessionId::parse(&bad), None, "{bad}");
        }
    }
}
