//! Bytes of blobs are compared with their digest while they are sent, unless that was done here lately.
//!
//! To hash costs half as much again as to send. But what is sent often is hashed once an hour; and what is not comes from a
//! disk or a network that is slower than the hash, and is what decays unnoticed.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use lru::LruCache;
use tokio::time::Instant;

use crate::{
    oci::{Digest, Hasher},
    store::{Error, ErrorKind, Key, Result},
};

/// Which bytes this process found to be right, and when. A key never has other bytes, so they can only have decayed.
#[derive(Clone, Debug)]
pub(crate) struct Verified(Arc<Mutex<LruCache<Key, Instant>>>);

/// How many are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// For how long.
const LATELY: Duration = Duration::from_hours(1);

impl Verified {
    /// The whole bytes at a key, [`compared`] unless they were lately.
    pub(crate) fn compare(
        &self,
        bytes: BoxStream<'static, Result<Bytes>>,
        data: &Key,
        size: u64,
        digest: &Digest,
    ) -> BoxStream<'static, Result<Bytes>> {
        if self.is_known(data) {
            return bytes;
        }
        let (this, known) = (self.clone(), data.clone());
        compared(bytes, data.clone(), size, *digest, move || this.remember(known.clone()))
    }

    fn is_known(&self, data: &Key) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(data).copied();
        known.is_some_and(|at| at.elapsed() < LATELY)
    }

    fn remember(&self, data: Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(data, Instant::now());
    }
}

/// The whole bytes of a digest, kept at a key. If they are not those of the digest they end with an error in the place of
/// the last of them, so that nobody takes them for whole.
pub(crate) fn compared(
    bytes: BoxStream<'static, Result<Bytes>>,
    at: Key,
    size: u64,
    digest: Digest,
    found_right: impl Fn() + Send + 'static,
) -> BoxStream<'static, Result<Bytes>> {
    let (mut left, mut hasher) = (size, Hasher::new(digest.algorithm()));
    let compare = move |piece: Result<Bytes>| {
        let piece = piece?;
        hasher.update(&piece);
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            let actual = hasher.digest();
            if actual != digest {
                tracing::error!(key = %at, %digest, %actual, "what is stored is damaged: it is not sent to its end");
                return Err(Error::new(ErrorKind::Corrupt, format!("{at}: not the bytes of {digest}")));
            }
            found_right();
        }
        Ok(piece)
    };
    bytes.map(compare).boxed()
}

impl Default for Verified {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(REMEMBERED))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::oci::Algorithm;

    async fn is_sent(verified: &Verified, bytes: &'static [u8]) -> bool {
        let digest = Digest::of(Algorithm::Sha256, b"abcdef");
        let data = Key::parse("data/00/x").unwrap();
        let pieces: Vec<_> = bytes.chunks(2).map(|piece| Ok(Bytes::from_static(piece))).collect();
        let sent: Vec<_> = verified.compare(stream::iter(pieces).boxed(), &data, 6, &digest).collect().await;
        assert_eq!(sent.len(), 3);
        sent.iter().all(Result::is_ok)
    }

    // PULL-11
    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_not_those_of_their_digest_lack_their_end_unless_they_were_right_within_the_hour() {
        let verified = Verified::default();
        assert!(!is_sent(&verified, b"Abcdef").await);
        assert!(!is_sent(&verified, b"abcdeF").await);
        assert!(is_sent(&verified, b"abcdef").await);
        tokio::time::advance(LATELY / 2).await;
        assert!(is_sent(&verified, b"Abcdef").await, "not hashed again so soon");
        tokio::time::advance(LATELY / 2).await;
        assert!(!is_sent(&verified, b"Abcdef").await);
    }
}
