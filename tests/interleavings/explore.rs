//! Runs real operations side by side, one store call at a time, in every order.
//!
//! A run is a list of choices: whose call is next. It is started anew for each list, and follows the last one as far as
//! that was explored. Where two orders lead to the same store and the same answers, only one of them is followed on:
//! calls on different keys commute, so this prunes most of them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use marina_distribution::{
    registry::SessionId,
    store::{Condition, Key, Store, memory::MemoryStore},
};
use tokio::runtime;

use crate::{
    desk::{Counter, Desk, Fault, Name, Touched, lock},
    ends,
    process::{self, Op, Outcome},
    start::Start,
    walk::Walk,
};

#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) start: Start,
    pub(crate) ops: Vec<Op>,
    /// How many writes may fail.
    pub(crate) faults: usize,
}

/// A store as it was when the processes started.
pub(crate) struct Prepared {
    pub(crate) objects: Vec<(Key, bytes::Bytes)>,
    pub(crate) session: Option<SessionId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Choice {
    name: Name,
    fault: Fault,
}

pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) runs: usize,
}

/// One run: the processes, the store that they share, and where their calls wait.
struct Run<'a> {
    case: &'a Case,
    store: Arc<MemoryStore>,
    desk: Arc<Mutex<Desk>>,
    outcomes: Arc<Mutex<Vec<Option<Outcome>>>>,
    taken: Vec<Choice>,
}

/// More is a case that was drawn up wrong.
const LIMIT: usize = 100_000;

/// Explores it all. Panics with the list of choices where something does not hold.
///
/// A call whose order with those of the other processes does not matter is made at once and nothing else is tried in its
/// place. Which these are is only known when all has been seen: so all is explored again until nothing new is learnt.
pub(crate) fn explore(case: &Case) -> Explored {
    let prepared = on_paused_clock(case.start.prepare());
    let mut touched = Touched::default();
    loop {
        touched.grew = false;
        let explored = explore_once(case, &prepared, &mut touched);
        if !touched.grew {
            return explored;
        }
    }
}

fn explore_once(case: &Case, prepared: &Prepared, touched: &mut Touched) -> Explored {
    let mut seen = HashSet::new();
    let mut path: Vec<(Vec<Choice>, usize)> = Vec::new();
    let mut runs = 0;
    loop {
        runs += 1;
        assert!(runs < LIMIT, "{:?}: more than {LIMIT} runs", case.ops);
        on_paused_clock(async {
            let mut run = Run::start(case, prepared).await;
            lock(&run.desk).touched = std::mem::take(touched);
            for depth in 0.. {
                run.settle().await;
                if depth == path.len() {
                    run.check().await;
                    let choices = run.choices();
                    if !seen.insert(run.fingerprint()) || choices.is_empty() {
                        break;
                    }
                    path.push((choices, 0));
                }
                let (choices, at) = &path[depth];
                run.take(choices[*at].clone());
            }
            *touched = std::mem::take(&mut lock(&run.desk).touched);
        });
        while let Some((choices, at)) = path.last_mut() {
            *at += 1;
            if *at < choices.len() {
                break;
            }
            path.pop();
        }
        if path.is_empty() {
            return Explored { states: seen.len(), runs };
        }
    }
}

/// One run, in an order drawn from a seed.
pub(crate) fn draw(case: &Case, prepared: &Prepared, seed: u64) {
    // xorshift: the same seed draws the same run.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    on_paused_clock(async {
        let mut run = Run::start(case, prepared).await;
        loop {
            run.settle().await;
            run.check().await;
            let choices = run.choices();
            if choices.is_empty() {
                break;
            }
            run.take(choices[next(choices.len())].clone());
        }
    });
}

pub(crate) fn on_paused_clock<T>(work: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

impl<'a> Run<'a> {
    async fn start(case: &'a Case, prepared: &Prepared) -> Self {
        let store = Arc::new(MemoryStore::default());
        let desk = Arc::new(Mutex::new(Desk::default()));
        for (key, bytes) in &prepared.objects {
            store.put(key, bytes.clone(), Condition::Create).await.unwrap();
            lock(&desk).name_initial(key.as_str());
        }
        if let Some(session) = prepared.session {
            case.start.append(&store, session).await;
        }
        let outcomes = Arc::new(Mutex::new(vec![None; case.ops.len()]));
        let run = Self { case, store, desk, outcomes, taken: Vec::new() };
        let mut ready = Vec::new();
        for (number, op) in case.ops.iter().enumerate() {
            let counter = Counter::new(number, Arc::clone(&run.store), Arc::clone(&run.desk));
            let hours = if *op == Op::Expire { 48 } else { 0 };
            ready.push((number, *op, process::registry(counter.clone(), hours).await, counter));
        }
        lock(&run.desk).open();
        for (number, op, registry, counter) in ready {
            let (outcomes, session) = (Arc::clone(&run.outcomes), prepared.session);
            tokio::spawn(async move {
                let outcome = process::run(op, registry, counter, session).await;
                outcomes.lock().unwrap()[number] = Some(outcome);
            });
        }
        run
    }

    /// Until every process waits for a turn or is done. The clock is paused: it moves when nobody can go on, and then
    /// past all back-offs.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn fingerprint(&self) -> u64 {
        lock(&self.desk).fingerprint()
    }

    /// What may happen next.
    fn choices(&self) -> Vec<Choice> {
        let mut desk = lock(&self.desk);
        let mut waiting = desk.waiting();
        waiting.retain(|name| !name.is_too_often());
        if let Some(private) = waiting.iter().position(|name| desk.touched.is_private(name)) {
            waiting = vec![waiting.swap_remove(private)];
        }
        let failed = self.taken.iter().filter(|choice| choice.fault != Fault::None).count();
        let mut choices = Vec::new();
        for name in waiting {
            choices.push(Choice { name: name.clone(), fault: Fault::None });
            if name.writes() && failed < self.case.faults {
                choices.push(Choice { name: name.clone(), fault: Fault::NotApplied });
                choices.push(Choice { name, fault: Fault::ReplyLost });
            }
        }
        choices
    }

    fn take(&mut self, choice: Choice) {
        let granted = lock(&self.desk).grant(&choice.name, choice.fault);
        assert!(granted, "{:?}: {choice:?} cannot be repeated", self.case.ops);
        self.taken.push(choice);
    }

    async fn check(&self) {
        let walk = Walk::of(&self.store).await;
        let outcomes = self.outcomes.lock().unwrap().clone();
        let mut broken = walk.broken();
        if broken.is_none() && outcomes.iter().all(Option::is_some) {
            let raw = process::registry(self.store.clone(), 0).await;
            let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
            broken = ends::broken(&self.case.ops, &outcomes, &walk, &raw).await;
        }
        if let Some(what) = broken {
            let taken: Vec<_> =
                self.taken.iter().map(|choice| format!("{:?} {:?}", choice.name, choice.fault)).collect();
            panic!("{:?}: {what}\n  {}", self.case.ops, taken.join("\n  "));
        }
    }
}
