//! Whatever several clients do to several replicas of one store at the same time, their answers are those of one registry
//! that does one thing at a time.
//!
//! Histories are drawn from a seed, and so is the order in which the store serves its calls. A seed that fails is printed
//! with its history; `LINEARIZABLE_SEED=<n>` runs it again, and `LINEARIZABLE_SEEDS=<n>` runs so many.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod checker;
mod history;
mod replica;
mod turns;

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use marina_distribution::store::{
    Store, Verb,
    faulty::{Call, Fault, Faulty},
    memory::MemoryStore,
};

use history::{
    Event, judge,
    model::State,
    random::Random,
    request::{Answer, Request, Theme, prepared, request},
};
use replica::Replica;
use turns::{Defect, Turns};

/// How many seeds, and how many requests each client makes.
const SEEDS: u64 = 300;
const REQUESTS: usize = 6;

/// What one seed says.
struct Plan {
    theme: Theme,
    clients: usize,
    replicas: usize,
    prepared: Vec<Request>,
    /// Of a hundred store calls.
    faults: usize,
    random: Random,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let theme = Theme::ALL[random.below(Theme::ALL.len())];
        let (clients, replicas) = (2 + random.below(3), 2 + random.below(2));
        let prepared = prepared(&mut random);
        let faults = if random.chance(50) { 0 } else { 4 };
        Self { theme, clients, replicas, prepared, faults, random }
    }

    /// Which store calls fail, and how: few, as each doubles what may have happened.
    fn faults(&self, begun: Arc<AtomicBool>) -> impl Fn(&Call) -> Fault + Send + Sync + 'static {
        let state = Mutex::new((self.random.clone(), 0));
        let percent = self.faults;
        move |call| {
            let (random, count) = &mut *state.lock().unwrap();
            if !begun.load(Ordering::Relaxed) || *count >= 3 || !random.chance(percent) {
                return Fault::None;
            }
            *count += 1;
            let is_write = !matches!(call.verb, Verb::Read | Verb::Open | Verb::Head | Verb::List);
            match random.below(3) {
                0 if is_write => Fault::RepeatedLate { after: random.below(12) },
                1 => Fault::ReplyLost,
                _ => Fault::NotApplied,
            }
        }
    }
}

/// Runs what a seed says; the state at its start, and what happened.
async fn run(seed: u64, defect: Defect) -> (State, Vec<Event>) {
    let mut plan = Plan::of(seed);
    let begun = Arc::new(AtomicBool::new(false));
    let faulty = Faulty::new(Arc::new(MemoryStore::default()), plan.faults(Arc::clone(&begun)));
    let turns = Arc::new(Turns::new(Arc::new(faulty), defect, !seed));
    let mut replicas = Vec::new();
    for _ in 0..plan.replicas {
        let turns: Arc<dyn Store> = turns.clone();
        replicas.push(Arc::new(Replica::open(turns).await));
    }
    let session = replicas[0].start_upload();
    let mut initial = State::default();
    for request in &plan.prepared {
        assert_eq!(replicas[0].perform(*request, session).await, Answer::Done);
        initial.prepare(*request);
    }
    replicas[0].settle().await;
    begun.store(true, Ordering::Relaxed);

    let clock = Arc::new(AtomicUsize::new(0));
    let clients = (0..plan.clients).map(|client| {
        let (replica, clock) = (Arc::clone(&replicas[client % plan.replicas]), Arc::clone(&clock));
        let mut random = Random(plan.random.below(usize::MAX) as u64);
        let theme = plan.theme;
        // A task of its own, by which the turns tell the calls of one client from those of another.
        tokio::spawn(async move {
            let mut events = Vec::new();
            for _ in 0..REQUESTS {
                let request = request(theme, &mut random);
                let called = clock.fetch_add(1, Ordering::Relaxed);
                let answer = replica.perform(request, session).await;
                let returned = clock.fetch_add(1, Ordering::Relaxed);
                events.push(Event { client, called, returned, request, answer });
            }
            events
        })
    });
    let clients: Vec<_> = clients.collect();
    let work = async {
        let events = join_all(clients).await;
        join_all(replicas.iter().map(|replica| replica.settle())).await;
        events
    };
    let events = tokio::select! {
        biased;
        events = work => events,
        () = turns.give() => unreachable!("turns are given for ever"),
    };
    let mut events: Vec<Event> = events.into_iter().flat_map(Result::unwrap).collect();
    events.sort_unstable_by_key(|event| event.called);
    (initial, events)
}

fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn the_answers_of_replicas_are_those_of_one_registry_that_does_one_thing_at_a_time() {
    let seeds = match number("LINEARIZABLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LINEARIZABLE_SEEDS").unwrap_or(SEEDS),
    };
    let mut unexplained = Vec::new();
    for seed in seeds {
        let (initial, events) = in_paused_time(run(seed, Defect::None));
        if let Err(why) = judge(&initial, &events) {
            eprintln!("LINEARIZABLE_SEED={seed}\n{why}");
            unexplained.push(seed);
        }
    }
    assert!(unexplained.is_empty(), "no order explains the answers of seeds {unexplained:?}");
}

#[test]
fn a_seed_replays_its_history() {
    for seed in 0..40 {
        let [once, again] = [(); 2].map(|()| in_paused_time(run(seed, Defect::None)));
        assert_eq!(once, again, "seed {seed}");
    }
}

#[test]
fn a_store_that_breaks_its_contract_is_noticed() {
    for defect in [Defect::StaleReads, Defect::BlindWrites] {
        let noticed = (0..60).filter(|seed| {
            let (initial, events) = in_paused_time(run(*seed, defect));
            judge(&initial, &events).is_err()
        });
        let noticed = noticed.count();
        assert!(noticed >= 3, "{defect:?} was noticed {noticed} times");
    }
}
