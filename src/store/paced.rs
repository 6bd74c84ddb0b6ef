//! A decorator that keeps work in the background from getting in the way: so many calls a second, and no more.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{
    Result, Store,
    around::{Around, Call},
};

/// Spaces calls evenly; those that come faster wait for their turn.
#[derive(Debug)]
pub struct Paced {
    store: Arc<dyn Store>,
    space: Duration,
    /// When the next call may be made.
    next: Mutex<Instant>,
}

impl Paced {
    pub fn new(store: Arc<dyn Store>, calls_per_second: NonZeroU32) -> Self {
        Self { store, space: Duration::from_secs(1) / calls_per_second.get(), next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().await;
            let turn = (*next).max(Instant::now());
            *next = turn + self.space;
            turn
        };
        sleep_until(turn).await;
    }
}

impl Around for Paced {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    async fn around<T: Send>(&self, _: Call<'_>, asking: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.turn().await;
        asking.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, contract::contract, memory::MemoryStore};

    contract!((Paced::new(Arc::new(MemoryStore::default()), NonZeroU32::MAX), ()));

    #[tokio::test(start_paused = true)]
    async fn calls_are_spaced_however_many_come_at_once() {
        let paced = Paced::new(Arc::new(MemoryStore::default()), NonZeroU32::new(10).unwrap());
        let start = Instant::now();
        let key = Key::parse("a").unwrap();
        let calls = (0..21).map(|_| paced.head(&key));
        futures_util::future::try_join_all(calls).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }
}
