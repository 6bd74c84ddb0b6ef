//! A decorator that stops asking a store which does not answer, and tries again by itself.
//!
//! While the breaker is open, callers hear at once what they would otherwise wait for: a store that comes back is not
//! met by all that queued up for it, and a load balancer learns in time. It is a matter of speed, never of truth.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Causes, Error, ErrorKind, Result, Store, Verb,
    around::{Around, Call},
};

/// How many calls in a row must go unanswered before it opens.
const UNANSWERED: u32 = 5;
/// A call that went unanswered for so long stands for all of these, if no other was answered meanwhile: a store that
/// hangs keeps each caller waiting, and so many must not wait for it one after the other.
const HANG: Duration = Duration::from_secs(5);
/// How long it stays open at first. Each try that fails doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// At most how long until the next try: so soon does a store that is back serve again.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Opens after some [`ErrorKind::Unavailable`] in a row, or one that took long, and then answers that itself, at once.
///
/// * After a pause one call is let through, after a longer one the next, whatever became of the first. Whichever call is
///   answered closes it.
/// * Everything but `Unavailable` is an answer: what was lost or is absent, damaged, refused or full, and also
///   throttling.
/// * [`Store::sync_parts`], [`Store::presign`] and [`Store::limits`] ask nobody, and pass.
#[derive(Debug)]
pub struct Breaker {
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        /// Calls in a row that were not answered.
        unanswered: u32,
        /// When the last answer came.
        answered: Option<Instant>,
    },
    Open {
        next_try: Instant,
        /// What was waited last, before jitter.
        pause: Duration,
    },
}

impl Breaker {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, state: Mutex::new(State::Closed { unanswered: 0, answered: None }) }
    }

    async fn call<T>(&self, asking: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.admit()?;
        let asked = Instant::now();
        let answer = asking.await;
        match &answer {
            Err(error) if error.kind == ErrorKind::Unavailable => self.count(asked, error),
            _ => self.close(),
        }
        answer
    }

    /// Lets a call through, or says why not.
    fn admit(&self) -> Result<()> {
        let mut state = self.state();
        let State::Open { next_try, pause } = *state else { return Ok(()) };
        let now = Instant::now();
        if now < next_try {
            let left = (next_try - now).as_millis();
            let context = format!("the store does not answer; asked again in {left} ms");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        // The next try is set before this one ends: nothing hangs on whether its caller waits for the answer.
        let pause = LONGEST_PAUSE.min(pause * 2);
        *state = State::Open { next_try: now + jittered(pause), pause };
        Ok(())
    }

    fn count(&self, asked: Instant, error: &Error) {
        let mut state = self.state();
        let State::Closed { unanswered, answered } = &mut *state else { return };
        let hangs = asked.elapsed() >= HANG && answered.is_none_or(|last| last < asked);
        *unanswered += if hangs { UNANSWERED } else { 1 };
        if *unanswered >= UNANSWERED {
            *state = State::Open { next_try: Instant::now() + jittered(FIRST_PAUSE), pause: FIRST_PAUSE };
            drop(state);
            warn!(error = %Causes(error), "the store does not answer: it is asked now and then");
        }
    }

    fn close(&self) {
        let before =
            std::mem::replace(&mut *self.state(), State::Closed { unanswered: 0, answered: Some(Instant::now()) });
        if matches!(before, State::Open { .. }) {
            info!("the store answers again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between a half and the whole of it: replicas that met the outage together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness there is no jitter, which does no harm.
    getrandom::fill(&mut random).unwrap_or_default();
    pause / 2 + (pause / 2).mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

impl Around for Breaker {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    async fn around<T: Send>(&self, call: Call<'_>, asking: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if call.verb == Verb::SyncParts { asking.await } else { self.call(asking).await }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use futures_util::FutureExt;

    use super::*;
    use crate::store::{
        Key,
        contract::contract,
        faulty::{Fault, Faulty},
        memory::MemoryStore,
    };

    contract!((Breaker::new(Arc::new(MemoryStore::default())), ()));

    /// A store behind a breaker, that is there or not.
    struct Bench {
        breaker: Breaker,
        is_down: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
    }

    impl Bench {
        fn new(is_down: bool) -> Self {
            let is_down = Arc::new(AtomicBool::new(is_down));
            let asked = Arc::new(AtomicUsize::new(0));
            let (down, count) = (Arc::clone(&is_down), Arc::clone(&asked));
            let store = Faulty::new(Arc::new(MemoryStore::default()), move |_| {
                count.fetch_add(1, Relaxed);
                if down.load(Relaxed) { Fault::NotApplied } else { Fault::None }
            });
            Self { breaker: Breaker::new(Arc::new(store)), is_down, asked }
        }

        async fn head(&self) -> Result<Option<u64>> {
            self.breaker.head(&Key::parse("a").unwrap()).await
        }

        /// A call that is given up after a long time.
        async fn hang(&self) {
            let hanging = async {
                tokio::time::sleep(HANG).await;
                Err::<(), _>(Error::new(ErrorKind::Unavailable, ""))
            };
            self.breaker.call(hanging).await.unwrap_err();
        }

        /// How many of so many calls reach the store.
        async fn asked_by(&self, calls: u32) -> usize {
            let before = self.asked.load(Relaxed);
            for _ in 0..calls {
                self.head().await.ok();
            }
            self.asked.load(Relaxed) - before
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_asked_no_more() {
        let bench = Bench::new(true);
        assert_eq!(bench.asked_by(20).await, UNANSWERED as usize);
        let error = bench.head().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.context.starts_with("the store does not answer; asked again in "), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_waited_for_once() {
        let bench = Bench::new(false);
        bench.head().await.unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        bench.hang().await;
        assert_eq!(bench.asked_by(20).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_that_hangs_while_others_are_answered_is_only_one() {
        let bench = Bench::new(false);
        let answered = async {
            tokio::time::sleep(HANG / 2).await;
            bench.head().await.unwrap();
        };
        tokio::join!(bench.hang(), answered);
        assert_eq!(bench.asked_by(20).await, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_between_keeps_it_closed() {
        let bench = Bench::new(true);
        for _ in 0..10 {
            assert_eq!(bench.asked_by(UNANSWERED - 1).await, UNANSWERED as usize - 1);
            bench.is_down.store(false, Relaxed);
            assert_eq!(bench.head().await.unwrap(), None, "absence is an answer");
            bench.is_down.store(true, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_pauses_that_double_to_a_ceiling_one_call_is_let_through() {
        let bench = Bench::new(true);
        bench.asked_by(UNANSWERED).await;
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            tokio::time::advance(pause * 2 / 5).await;
            assert_eq!(bench.asked_by(20).await, 0, "before half of {pause:?}");
            tokio::time::advance(pause * 3 / 5).await;
            assert_eq!(bench.asked_by(20).await, 1, "after {pause:?}");
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_closes_it_and_the_pauses_begin_anew() {
        let bench = Bench::new(true);
        bench.asked_by(UNANSWERED).await;
        for _ in 0..8 {
            tokio::time::advance(LONGEST_PAUSE).await;
            bench.asked_by(1).await;
        }
        bench.is_down.store(false, Relaxed);
        tokio::time::advance(LONGEST_PAUSE).await;
        assert_eq!(bench.asked_by(20).await, 20);
        bench.is_down.store(true, Relaxed);
        assert_eq!(bench.asked_by(20).await, UNANSWERED as usize);
        tokio::time::advance(FIRST_PAUSE).await;
        assert_eq!(bench.asked_by(20).await, 1);
    }

    /// A client that goes away takes its call along.
    #[tokio::test(start_paused = true)]
    async fn a_try_that_nobody_waits_for_does_not_leave_it_open_for_ever() {
        let bench = Bench::new(true);
        bench.asked_by(UNANSWERED).await;
        bench.is_down.store(false, Relaxed);
        tokio::time::advance(FIRST_PAUSE).await;
        bench.breaker.call(std::future::pending::<Result<()>>()).now_or_never();
        assert_eq!(bench.asked_by(1).await, 0);
        tokio::time::advance(FIRST_PAUSE * 2).await;
        assert_eq!(bench.asked_by(20).await, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_damage_refusals_and_losses_are_answers() {
        use ErrorKind::{Corrupt, Full, NotFound, Refused, Throttled};
        let bench = Bench::new(true);
        for kind in [Throttled, Corrupt, Refused, NotFound, Full] {
            for _ in 0..UNANSWERED * 2 {
                let answered = async { Err::<(), _>(Error::new(kind, "")) };
                assert_eq!(bench.breaker.call(answered).await.unwrap_err().kind, kind);
            }
        }
    }
}
