//! Whether a concurrent history can be explained by one order of atomic steps.
//!
//! A request is not always one step: a push publishes the manifest, then its entry, then each tag, and whoever looks may
//! see it half done. So each call says in which steps it may have done what it answered, and the checker looks for an
//! order of all steps of all calls in which each step lies between call and return of its own. It keeps the set of all
//! configurations (state, and how far each open call is) that explain the events so far, each once; when that set is
//! empty, the call that just returned answered what it could not.

use std::{collections::HashSet, hash::Hash};

/// Does a step in a state: every state in which that may leave it, none if it cannot be done there.
pub(crate) type Run<S> = Box<dyn Fn(&S) -> Vec<S>>;

#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub(crate) struct Step<S> {
    run: Run<S>,
    /// Stands in for the step before what it needs is done.
    early: Option<Run<S>>,
    /// The steps of the same call that come before, as bits.
    needs: u32,
    must: bool,
    /// It only looks. As soon as it can be done it is: that never rules anything out.
    looks: bool,
    /// It may be done again while the call is not complete.
    repeats: bool,
    /// Nothing ever undoes it: where it changes nothing it is done at once.
    lasts: bool,
}

impl<S: Clone + 'static> Step<S> {
    /// Something that must have been so.
    pub(crate) fn look(holds: impl Fn(&S) -> bool + 'static) -> Self {
        let run = Box::new(move |state: &S| if holds(state) { vec![state.clone()] } else { Vec::new() });
        Self { run, early: None, needs: 0, must: true, looks: true, repeats: false, lasts: false }
    }

    /// Something that must have been done.
    pub(crate) fn act(run: impl Fn(&S) -> Option<S> + 'static) -> Self {
        let run = Box::new(move |state: &S| run(state).into_iter().collect());
        Self { run, early: None, needs: 0, must: true, looks: false, repeats: false, lasts: false }
    }

    pub(crate) fn after(mut self, steps: u32) -> Self {
        self.needs |= steps;
        self
    }

    pub(crate) fn or_early(mut self, run: impl Fn(&S) -> Option<S> + 'static) -> Self {
        self.early = Some(Box::new(move |state: &S| run(state).into_iter().collect()));
        self
    }

    pub(crate) fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }

    pub(crate) fn lasts(mut self) -> Self {
        self.lasts = true;
        self
    }

    /// It may have been done, or not.
    pub(crate) fn maybe(mut self) -> Self {
        self.must = false;
        self
    }
}

/// One of the ways in which a call may have come to its answer.
pub(crate) type Way<S> = Vec<Step<S>>;

pub(crate) struct Call<S> {
    pub(crate) called: usize,
    /// `None`: it never returned, and may take effect at any time.
    pub(crate) returned: Option<usize>,
    pub(crate) ways: Vec<Way<S>>,
}

/// How many configurations are looked at: a history that fails too often has more than memory does.
const LIMIT: usize = 1_000_000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Config<S> {
    state: S,
    open: Vec<Open>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Open {
    call: usize,
    way: usize,
    /// The steps that it has done, as bits.
    done: u32,
}

/// Looks for an explanation. `settled` says of which states nobody may be left in: those amid two steps that are one.
/// The error is the call whose answer rules out the last explanation.
pub(crate) fn check<S: Clone + Eq + Hash + 'static>(
    initial: &S,
    calls: &[Call<S>],
    settled: impl Fn(&S) -> bool,
) -> Result<(), usize> {
    let mut events: Vec<(usize, usize, bool)> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        events.push((call.called, index, false));
        events.extend(call.returned.map(|at| (at, index, true)));
    }
    events.sort_unstable();
    let mut configs = HashSet::from([Config { state: initial.clone(), open: Vec::new() }]);
    for (_, index, returns) in events {
        configs = if returns {
            explore(calls, configs).into_iter().filter_map(|config| close(calls, config, index, &settled)).collect()
        } else {
            configs.into_iter().flat_map(|config| open(&calls[index], &config, index)).collect()
        };
        if configs.is_empty() {
            return Err(index);
        }
    }
    Ok(())
}

fn open<S: Clone>(call: &Call<S>, config: &Config<S>, index: usize) -> Vec<Config<S>> {
    let goes = |way| {
        let mut config = config.clone();
        config.open.push(Open { call: index, way, done: 0 });
        config
    };
    (0..call.ways.len()).map(goes).collect()
}

fn close<S>(
    calls: &[Call<S>],
    mut config: Config<S>,
    index: usize,
    settled: &impl Fn(&S) -> bool,
) -> Option<Config<S>> {
    let at = config.open.iter().position(|open| open.call == index)?;
    let Open { way, done, .. } = config.open.remove(at);
    let complete = steps(&calls[index].ways[way]).all(|(bit, step)| !step.must || done & bit != 0);
    (complete && settled(&config.state)).then_some(config)
}

/// Every configuration that further steps of the open calls lead to.
fn explore<S: Clone + Eq + Hash>(calls: &[Call<S>], from: HashSet<Config<S>>) -> HashSet<Config<S>> {
    let mut reached: HashSet<Config<S>> = HashSet::new();
    let mut frontier: Vec<Config<S>> = from.into_iter().map(|config| look_around(calls, config)).collect();
    while let Some(config) = frontier.pop() {
        if !reached.insert(config.clone()) {
            continue;
        }
        assert!(reached.len() < LIMIT, "too much may have happened to be judged");
        for (at, Open { call, way, done }) in config.open.iter().copied().enumerate() {
            let way = &calls[call].ways[way];
            let acts = || steps(way).filter(|(_, step)| !step.looks);
            let unfinished = calls[call].returned.is_none()
                || !acts().any(|(_, step)| step.must)
                || acts().any(|(bit, step)| step.must && done & bit == 0);
            for (bit, step) in acts() {
                if done & bit != 0 && !(step.repeats && unfinished) {
                    continue;
                }
                let run = if step.needs & !done == 0 { Some(&step.run) } else { step.early.as_ref() };
                for state in run.into_iter().flat_map(|run| run(&config.state)) {
                    let mut next = Config { state, open: config.open.clone() };
                    // Whether it has been done makes no difference if it can be done again and nothing waits for it.
                    if step.must || !step.repeats || steps(way).any(|(_, other)| other.needs & bit != 0) {
                        next.open[at].done |= bit;
                    }
                    frontier.push(look_around(calls, next));
                }
            }
        }
    }
    reached
}

/// Does all looks that can be done now, and what is done already and lasts.
fn look_around<S: PartialEq>(calls: &[Call<S>], mut config: Config<S>) -> Config<S> {
    for Open { call, way, done } in &mut config.open {
        for (bit, step) in steps(&calls[*call].ways[*way]).filter(|(_, step)| step.looks || step.lasts) {
            let can = *done & bit == 0 && step.needs & !*done == 0;
            if can && (step.run)(&config.state).first().is_some_and(|next| *next == config.state) {
                *done |= bit;
            }
        }
    }
    config
}

fn steps<S>(way: &Way<S>) -> impl Iterator<Item = (u32, &Step<S>)> {
    way.iter().enumerate().map(|(at, step)| (1 << at, step))
}
