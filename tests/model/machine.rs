//! The states of a process.
//!
//! Where a process stands is what it was answered so far: run again with the same answers it makes the same calls. So
//! its states can be told apart, kept and merged although it is written as plain code.

use std::{
    collections::HashMap,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::{
    process::{Local, Next, Outcome, Process, Rules, Store, Tape},
    programs,
    world::{Call, STORED},
};

/// Where a process stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) waiting: Vec<(u16, Call)>,
    pub(crate) replied: Option<Outcome>,
    local: Local,
    answers: Vec<(u16, u32)>,
    /// Where answers to calls lead, as far as it has been found out.
    steps: Vec<(u16, u32, u32)>,
}

impl Node {
    fn dead() -> Self {
        let local = Local { tries: u8::MAX, stage: u8::MAX, ..Local::default() };
        Self { waiting: Vec::new(), replied: None, local, answers: Vec::new(), steps: Vec::new() }
    }

    /// The process has ended with a no.
    pub(crate) fn is_refused(&self) -> bool {
        self.waiting.is_empty() && self.replied == Some(Outcome::Refused)
    }
}

/// Where a process stands that died.
pub(crate) const DEAD: u32 = 1;

/// All places that a process was found to come to.
pub(crate) struct Machine {
    process: Process,
    me: u8,
    rules: Rc<Rules>,
    pub(crate) nodes: Vec<Node>,
    known: HashMap<(Local, Vec<(u16, u32)>), u32>,
}

impl Machine {
    pub(crate) fn new(me: u8, process: Process, rules: Rc<Rules>) -> Self {
        let mut machine = Self { process, me, rules, nodes: Vec::new(), known: HashMap::new() };
        machine.node(Local::default(), Vec::new());
        machine.nodes.insert(DEAD as usize, Node::dead());
        machine
    }

    /// Where the process stands when a call that it waits for is answered.
    pub(crate) fn step(&mut self, from: u32, id: u16, reply: u32) -> u32 {
        let node = &self.nodes[from as usize];
        if let Some((_, _, to)) = node.steps.iter().find(|(call, answer, _)| (*call, *answer) == (id, reply)) {
            return *to;
        }
        let (local, mut answers) = (node.local, node.answers.clone());
        answers.push((id, reply));
        answers.sort_unstable();
        let to = self.node(local, answers);
        self.nodes[from as usize].steps.push((id, reply, to));
        to
    }

    fn node(&mut self, mut local: Local, mut answers: Vec<(u16, u32)>) -> u32 {
        let key = (local, answers.clone());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let node = loop {
            let (next, tape) = self.run(local, &answers);
            let waiting = tape.waiting.take();
            let hidden = waiting.iter().find(|(_, call)| !self.rules.sees.sees(*call)).copied();
            match (next, hidden) {
                (Some(Next::Again(restarted)), _) => (local, answers) = (restarted, Vec::new()),
                (None, Some((id, _))) => {
                    answers.push((id, STORED));
                    answers.sort_unstable();
                }
                (Some(Next::Done(outcome)), _) => {
                    let outcome = tape.replied.get().unwrap_or(outcome);
                    // All ends with one outcome are one place.
                    (local, answers) = (Local { tries: u8::MAX, ..Local::default() }, vec![(0, outcome as u32)]);
                    let (waiting, replied, steps) = (Vec::new(), Some(outcome), Vec::new());
                    break Node { waiting, replied, local, answers: answers.clone(), steps };
                }
                (None, None) => {
                    let (replied, steps) = (tape.replied.get(), Vec::new());
                    break Node { waiting, replied, local, answers: answers.clone(), steps };
                }
            }
        };
        let number = *self.known.entry((local, answers)).or_insert_with(|| {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).unwrap()
        });
        self.known.insert(key, number);
        number
    }

    fn run(&self, local: Local, answers: &[(u16, u32)]) -> (Option<Next>, Rc<Tape>) {
        let tape = Tape::of(answers);
        let store = Store::new(self.me, local.tries, self.process.wrong, &self.rules, &tape);
        let mut running: Pin<Box<dyn Future<Output = Next>>> = Box::pin(programs::run(store, self.process.op, local));
        match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => (Some(next), tape),
            Poll::Pending => (None, tape),
        }
    }
}
