//! Every state that a scenario can come to, breadth first: each process may take its next step or never again.

use std::rc::Rc;

use crate::{
    invariants, leads,
    machine::{DEAD, Machine},
    process::{Announced, Drops, Op, Outcome, Process, Rules, Sees},
    world::{self, Call, FAILED, FAULTS, FIRST, PROCESSES, State},
};

/// Processes over a store as it was when they started.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says what is looked at, beside the others")]
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
    /// What the entry says that is there from the start; number 0 of the last process, as among those by collectors.
    pub(crate) left: Drops,
    /// A deleted manifest can be put back until time passes.
    pub(crate) undelete: bool,
    /// The line of the repository in the catalog is looked at.
    pub(crate) catalog: bool,
    /// All that is there is needed or led to when it starts, and so ever after.
    pub(crate) led: bool,
    /// Processes may die, as others can tell by the clock. (To stall for ever each may anyway.)
    pub(crate) mortal: bool,
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
const LIMIT: usize = 1_500_000;

#[derive(Clone, Copy)]
enum Step {
    Answer { process: u8, id: u16, fault: Fault },
    Dies(u8),
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
    pub(crate) fn rules(&self) -> Rules {
        let mut announced: Vec<_> = self.processes.iter().map(|process| process.announced()).collect();
        announced.resize(PROCESSES, Announced::Nothing);
        announced[PROCESSES - 1] = self.dead;
        let mut drops: Vec<_> = self.processes.iter().map(|process| process.drops(&announced)).collect();
        drops.resize(PROCESSES, Drops::Nothing);
        drops[PROCESSES - 1] = self.left;
        let mut repos: Vec<_> = self.processes.iter().map(|process| process.repo()).collect();
        repos.resize(PROCESSES, 0);
        let mut blobs: Vec<_> = self.processes.iter().map(|process| process.blob(&announced)).collect();
        blobs.resize(PROCESSES, 0);
        let any = |is: &dyn Fn(Op) -> bool| self.processes.iter().any(|process| is(process.op));
        let sees = Sees {
            queues: self.led || any(&|op| matches!(op, Op::Holders { .. } | Op::Bytes { .. } | Op::Restore(_))),
            catalog: self.catalog,
            tombstones: any(&|op| matches!(op, Op::Tombstones(_) | Op::NoteAndRemove(_))),
        };
        Rules {
            tries: self.tries,
            subject: self.subject,
            announced,
            drops,
            repos,
            blobs,
            undelete: self.undelete,
            sees,
        }
    }
}

impl Scenario {
    fn start_state(&self) -> State {
        let mut start = self.start;
        start[FAULTS] = self.faults;
        start
    }
}

pub(crate) fn explore(scenario: &Scenario) -> Explored {
    let rules = Rc::new(scenario.rules());
    let mut machines = machines(scenario, &rules);
    let mut found = Found::new();
    found.add(scenario.start_state(), 0, Step::Land);
    let mut next = 0;
    while let Some(&state) = found.states.get(next) {
        assert!(next < LIMIT, "{}: more than {LIMIT} states", scenario.name);
        let replied = replied(&state, &machines);
        let moved = expand(&state, u32::try_from(next).unwrap(), scenario, &mut machines, &rules, &mut found);
        if let Some(what) = wrong_with(scenario, &rules, &state, &replied, !moved) {
            let trace = trace(&found, next, &machines);
            return Explored { states: found.states.len(), violation: Some(Violation { what, trace }) };
        }
        next += 1;
    }
    Explored { states: next, violation: None }
}

/// Adds what the state leads to. `false`: it leads nowhere, nothing moves any more.
fn expand(
    state: &State,
    at: u32,
    scenario: &Scenario,
    machines: &mut [Machine],
    rules: &Rules,
    found: &mut Found,
) -> bool {
    let mut moved = false;
    moves(state, scenario, machines, rules, &mut |to, step| {
        found.add(to, at, step);
        moved = true;
    });
    moved
}

/// All that may happen next.
fn moves(
    state: &State,
    scenario: &Scenario,
    machines: &mut [Machine],
    rules: &Rules,
    add: &mut dyn FnMut(State, Step),
) {
    for (machine, process) in machines.iter_mut().zip(0_u8..) {
        let node = state[FIRST + usize::from(process)];
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
                stands(&mut to, process, machine, ends);
                add(to, Step::Answer { process, id, fault });
            }
        }
        if scenario.mortal && node != 0 && !machine.nodes[node as usize].waiting.is_empty() {
            let mut to = *state;
            stands(&mut to, process, machine, DEAD);
            add(to, Step::Dies(process));
        }
    }
    let mut landed = *state;
    if world::land(&mut landed) {
        add(landed, Step::Land);
    }
}

/// Goes one way through a scenario, drawn, until nothing moves. Returns how many steps it took.
pub(crate) fn walk(scenario: &Scenario, draw: &mut dyn FnMut(usize) -> usize) -> Result<usize, Violation> {
    let rules = Rc::new(scenario.rules());
    let mut machines = machines(scenario, &rules);
    let mut found = Found::new();
    let mut state = scenario.start_state();
    found.push(state, 0, Step::Land);
    loop {
        let at = found.states.len() - 1;
        let replied = replied(&state, &machines);
        let mut next = Vec::new();
        moves(&state, scenario, &mut machines, &rules, &mut |to, step| next.push((to, step)));
        // Most calls do not fail.
        let fails = |step: &Step| matches!(step, Step::Answer { fault, .. } if *fault != Fault::None);
        if draw(8) > 0 {
            next.retain(|(_, step)| !fails(step));
        }
        if let Some(what) = wrong_with(scenario, &rules, &state, &replied, next.is_empty()) {
            return Err(Violation { what, trace: trace(&found, at, &machines) });
        }
        if next.is_empty() {
            return Ok(at);
        }
        let (to, step) = next.swap_remove(draw(next.len()));
        found.push(to, u32::try_from(at).unwrap(), step);
        state = to;
    }
}

fn machines(scenario: &Scenario, rules: &Rc<Rules>) -> Vec<Machine> {
    scenario.processes.iter().zip(0..).map(|(process, me)| Machine::new(me, *process, Rc::clone(rules))).collect()
}

fn replied(state: &State, machines: &[Machine]) -> Vec<Option<Outcome>> {
    machines.iter().zip(&state[FIRST..]).map(|(machine, at)| machine.nodes[*at as usize].replied).collect()
}

fn wrong_with(
    scenario: &Scenario,
    rules: &Rules,
    state: &State,
    replied: &[Option<Outcome>],
    is_over: bool,
) -> Option<String> {
    invariants::always(scenario, state, replied)
        .or_else(|| leads::always(scenario, rules, state, replied))
        .or_else(|| if is_over { invariants::at_the_end(scenario, state, replied) } else { None })
}

fn stands(state: &mut State, process: u8, machine: &Machine, at: u32) {
    state[FIRST + usize::from(process)] = at;
    let node = &machine.nodes[at as usize];
    if node.waiting.is_empty() || node.replied.is_some() {
        world::is_over(state, process, node.waiting.is_empty());
    }
}

/// What a process is answered; `None`: this cannot happen here.
fn answer(state: &mut State, call: Call, fault: Fault, rules: &Rules) -> Option<u32> {
    if fault == Fault::None {
        return Some(world::apply(state, call, rules));
    }
    let writes = matches!(call, Call::Put { .. } | Call::Delete(_) | Call::DeleteIf { .. } | Call::Complete(_));
    if !writes || state[FAULTS] == 0 {
        return None;
    }
    state[FAULTS] -= 1;
    match fault {
        Fault::None | Fault::NotApplied => {}
        Fault::ReplyLost => drop(world::apply(state, call, rules)),
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
            Step::Dies(process) => format!("{process} dies"),
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
    fn new() -> Self {
        Self { states: Vec::new(), from: Vec::new(), table: vec![0; 1 << 12] }
    }

    fn push(&mut self, state: State, from: u32, step: Step) {
        self.states.push(state);
        self.from.push((from, step));
    }

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
            self.push(state, from, step);
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
