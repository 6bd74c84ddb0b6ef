//! The bytes of blobs, read and hashed: side by side, no faster than asked, and only the share that was asked for.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    oci::{Digest, Hasher},
    store::{Error, ErrorKind, Key, Result, Span, Store},
};

/// Which blobs are hashed, by the beginning of their digests: all in the half-open range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    from: u128,
    to: u128,
}

impl Share {
    pub const ALL: Self = Self { from: 0, to: Self::WHOLE };
    /// How many beginnings of 64 bits there are.
    const WHOLE: u128 = 1 << 64;

    /// `10%`: the first tenth, always the same. `3/10`: the third of ten, which together are all.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to, of) = match (text.strip_suffix('%'), text.split_once('/')) {
            (Some(percent), _) => (0, percent.parse::<u32>().ok()?, 100),
            (None, Some((part, of))) => {
                let part: u32 = part.parse().ok()?;
                (part.checked_sub(1)?, part, of.parse::<u32>().ok()?)
            }
            (None, None) => return None,
        };
        let bound = |part: u32| Self::WHOLE * u128::from(part) / u128::from(of);
        (0 < to && to <= of).then(|| Self { from: bound(from), to: bound(to) })
    }

    pub fn has(&self, digest: &Digest) -> bool {
        let hex = digest.hex();
        let place = hex.get(..16).and_then(|head| u64::from_str_radix(head, 16).ok()).map_or(0, u128::from);
        (self.from..self.to).contains(&place)
    }
}

/// Reads bytes for [`super::Check`].
#[derive(Clone, Debug)]
pub(super) struct Reader {
    store: Arc<dyn Store>,
    rate: Option<NonZeroU64>,
    share: Share,
    /// When the next bytes may be read.
    next: Arc<Mutex<Instant>>,
    /// A permit for each blob that is being read.
    permits: Arc<Semaphore>,
}

/// How many blobs are read side by side.
const READS: usize = 16;
/// The same at a bounded rate: a store breaks off what is read too slowly.
const BOUNDED_READS: usize = 2;

/// What bytes are, compared with what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    Right,
    /// They have this size and digest.
    Other(u64, Digest),
    Absent,
    Unreadable,
}

impl Reader {
    pub(super) fn new(store: Arc<dyn Store>, rate: Option<NonZeroU64>, share: Share) -> Self {
        let permits = if rate.is_some() { BOUNDED_READS } else { READS };
        let (next, permits) = (Mutex::new(Instant::now()), Semaphore::new(permits));
        Self { store, rate, share, next: Arc::new(next), permits: Arc::new(permits) }
    }

    pub(super) fn reads(&self, digest: &Digest) -> bool {
        self.share.has(digest)
    }

    /// Reads all bytes, in a task of their own: to hash is work for a processor. Fails only where the store does.
    pub(super) async fn compare(&self, data: &Key, size: u64, digest: &Digest) -> Result<Compared> {
        let (this, data, digest) = (self.clone(), data.clone(), *digest);
        let reading = AbortOnDropHandle::new(tokio::spawn(async move { this.read(&data, size, digest).await }));
        let gone = |error| Error::new(ErrorKind::Unavailable, "a read was given up").with_source(error);
        match reading.await.map_err(gone)? {
            Err(error) if error.kind == ErrorKind::Corrupt => Ok(Compared::Unreadable),
            compared => compared,
        }
    }

    async fn read(&self, data: &Key, size: u64, digest: Digest) -> Result<Compared> {
        // Never closed.
        let _permit = self.permits.acquire().await.ok();
        let Some(object) = self.store.open(data, Span::ALL).await? else { return Ok(Compared::Absent) };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut read = 0;
        let mut bytes = object.body.into_stream();
        while let Some(bytes) = bytes.next().await {
            let bytes = bytes?;
            self.turn(bytes.len() as u64).await;
            hasher.update(&bytes);
            read += bytes.len() as u64;
        }
        let actual = hasher.digest();
        Ok(if (read, actual) == (size, digest) { Compared::Right } else { Compared::Other(read, actual) })
    }

    /// Waits until so many more bytes may be read.
    async fn turn(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let turn = {
            let mut next = self.next.lock().await;
            let turn = (*next).max(Instant::now());
            *next = turn + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        oci::Algorithm,
        store::{Condition, memory::MemoryStore},
    };

    fn digests() -> impl Iterator<Item = Digest> {
        (0..2000_u32).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes()))
    }

    #[test]
    fn shares_of_one_number_have_each_blob_once_and_a_percentage_is_the_first() {
        let thirds: Vec<_> = ["1/3", "2/3", "3/3"].iter().map(|text| Share::parse(text).unwrap()).collect();
        assert!(digests().all(|digest| thirds.iter().filter(|third| third.has(&digest)).count() == 1));
        assert_eq!(Share::parse("10%"), Share::parse("1/10"));
        assert_eq!(Share::parse("100%"), Some(Share::ALL));
        let tenth = digests().filter(|digest| Share::parse("10%").unwrap().has(digest)).count();
        assert!((100..300).contains(&tenth), "{tenth} of 2000");
        for text in ["", "%", "0%", "101%", "10", "0/3", "4/3", "1/0", "-1/3", "1/3%", "a/b"] {
            assert_eq!(Share::parse(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_read_at_the_rate_however_many_are_read_side_by_side() {
        let store = Arc::new(MemoryStore::default());
        let bytes = Bytes::from(vec![7; 1000]);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let keys: Vec<_> = (0..5).map(|n| Key::parse(format!("data/{n}")).unwrap()).collect();
        for key in &keys {
            store.put(key, bytes.clone(), Condition::Create).await.unwrap();
        }
        let reader = Reader::new(store, NonZeroU64::new(500), Share::ALL);
        let start = Instant::now();
        let compared = keys.iter().map(|key| reader.compare(key, 1000, &digest));
        for compared in futures_util::future::join_all(compared).await {
            assert_eq!(compared.unwrap(), Compared::Right);
        }
        // On a clock that stands still but for waiting: the last of five waits for the four before it.
        assert_eq!(start.elapsed(), Duration::from_secs(8));
    }
}
