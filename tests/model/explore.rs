//! Every state that a scenario can come to, breadth first: each process may take its next step or never again.

use std::rc::Rc;

use crate::{
    invariants,
    machine::Machine,
    process::{Announced, Outcome, Process, Rules},
    world::{self, Call, FAILED, FAULTS, FIRST, PROCESSES, State},
};

/// Processes over a store as it was when they started.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) start: State,
    pub(crate) processes: Vec<Process>,
    pub(crate) tries: u8,
    /// How many writes may fail.
    pub(crate) faults: u32,
    pub(crate) subject: bool,
    /// What a process announced that died before; its reference in flight is number 0 of the last process.
    pub(crate) dead: Announced,
}

pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) violation: Option<Violation>,
}

/// What does not hold, and the shortest way there.
pub(crate) struct Violation {
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

/// More is a scenario that was drawn up wrong.
const LIMIT: usize = 6_000_000;

#[derive(Clone, Copy)]
enum Step {
    Answer { process: u8, id: u16, fault: Fault },
    Land,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NotApplied,
    ReplyLost,
    Late,
}

/// The states found, and from where.
struct Found {
    states: Vec<State>,
    from: Vec<(u32, Step)>,
    /// Open addressing: indices into `states`, one more, 0 for none. At most half full.
    table: Vec<u32>,
}

impl Scenario {
    pub(crate) fn rules(&self, hide: bool) -> Rules {
        let mut announced: Vec<_> = self.processes.iter().map(|process| process.announced()).collect();
        announced.resize(PROCESSES, Announced::Nothing);
        announced[PROCESSES - 1] = self.dead;
        Rules { tries: self.tries, subject: self.subject, announced, hide }
    }
}

pub(crate) fn explore(scenario: &Scenario) -> Explored {
    let rules = Rc::new(scenario.rules(true));
    let machines = scenario.processes.iter().zip(0..);
    let mut machines: Vec<_> = machines.map(|(process, me)| Machine::new(me, *process, Rc::clone(&rules))).collect();
    let mut start = scenario.start;
    start[FAULTS] = scenario.faults;
    let mut found = Found { states: Vec::new(), from: Vec::new(), table: vec![0; 1 << 12] };
    found.add(start, 0, Step::Land);
    let mut next = 0;
    while let Some(&state) = found.states.get(next) {
        assert!(next < LIMIT, "{}: more than {LIMIT} states", scenario.name);
        let replied: Vec<_> =
            machines.iter().zip(&state[FIRST..]).map(|(m, at)| m.nodes[*at as usize].replied).collect();
        let mut bad = invariants::always(scenario, &state, &replied);
        let moved = expand(&state, u32::try_from(next).unwrap(), &mut machines, &rules, &mut found);
        if !moved && bad.is_none() {
            bad = invariants::at_the_end(scenario, &state, &replied);
        }
        if let Some(what) = bad {
            let trace = trace(&found, next, &machines);
            return Explored { states: found.states.len(), violation: Some(Violation { what, trace }) };
        }
        next += 1;
    }
    Explored { states: next, violation: None }
}

/// Adds what the state leads to. `false`: it leads nowhere, nothing moves any more.
fn expand(state: &State, at: u32, machines: &mut [Machine], rules: &Rules, found: &mut Found) -> bool {
    let mut moved = false;
    for (index, machine) in machines.iter_mut().enumerate() {
        let node = state[FIRST + index];
        for number in 0..machine.nodes[node as usize].waiting.len() {
            let (id, call) = machine.nodes[node as usize].waiting[number];
            for fault in [Fault::None, Fault::NotApplied, Fault::ReplyLost, Fault::Late] {
                let mut to = *state;
                let Some(reply) = answer(&mut to, call, fault, rules) else { continue };
                let ends = machine.step(node, id, reply);
                // To see something and end with a no is the same as to stall here.
                if to == *state && machine.nodes[ends as usize].is_refused() {
                    continue;
                }
                to[FIRST + index] = ends;
                let process = u8::try_from(index).unwrap();
                found.add(to, at, Step::Answer { process, id, fault });
                moved = true;
            }
        }
    }
    let mut landed = *state;
    if world::land(&mut landed) {
        found.add(landed, at, Step::Land);
        moved = true;
    }
    moved
}

/// What a process is answered; `None`: this cannot happen here.
fn answer(state: &mut State, call: Call, fault: Fault, rules: &Rules) -> Option<u32> {
    if fault == Fault::None {
        return Some(world::apply(state, call, &rules.announced));
    }
    let writes = matches!(call, Call::Put { .. } | Call::Delete(_) | Call::Complete(_));
    if !writes || state[FAULTS] == 0 {
        return None;
    }
    state[FAULTS] -= 1;
    match fault {
        Fault::None | Fault::NotApplied => {}
        Fault::ReplyLost => drop(world::apply(state, call, &rules.announced)),
        Fault::Late => return world::delay(state, call).then_some(FAILED),
    }
    Some(FAILED)
}

fn trace(found: &Found, mut at: usize, machines: &[Machine]) -> Vec<String> {
    let mut trace = Vec::new();
    while at != 0 {
        let (from, step) = found.from[at];
        let before = &found.states[from as usize];
        trace.push(match step {
            Step::Land => "the late write lands".to_owned(),
            Step::Answer { process, id, fault } => {
                let node = &machines[usize::from(process)].nodes[before[FIRST + usize::from(process)] as usize];
                let call = node.waiting.iter().find(|(of, _)| *of == id).map(|(_, call)| call);
                format!("{process}: {call:?} {fault:?}")
            }
        });
        at = from as usize;
    }
    trace.reverse();
    trace
}

impl Found {
    fn add(&mut self, state: State, from: u32, step: Step) {
        if self.states.len() * 2 >= self.table.len() {
            let mut table = vec![0; self.table.len() * 4];
            for (state, number) in self.states.iter().zip(1..) {
                let free = Self::slot(&table, |_| false, state);
                table[free] = number;
            }
            self.table = table;
        }
        let slot = Self::slot(&self.table, |number| self.states[number as usize - 1] == state, &state);
        if self.table[slot] == 0 {
            self.states.push(state);
            self.from.push((from, step));
            self.table[slot] = u32::try_from(self.states.len()).unwrap();
        }
    }

    /// Where the state is, or where it would go.
    fn slot(table: &[u32], is_it: impl Fn(u32) -> bool, state: &State) -> usize {
        let mask = table.len() - 1;
        let mut slot = hash(state) & mask;
        while table[slot] != 0 && !is_it(table[slot]) {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

fn hash(state: &State) -> usize {
    let mut hash = 0_u64;
    for word in state {
        hash = (hash.rotate_left(5) ^ u64::from(*word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    (hash ^ hash >> 32) as usize
}

/// Whether a process has told its client that it is done.
pub(crate) fn is_acknowledged(replied: Option<Outcome>) -> bool {
    replied == Some(Outcome::Acknowledged)
}
