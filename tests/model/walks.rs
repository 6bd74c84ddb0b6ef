//! Ways drawn through scenarios that are drawn, too: too large to be seen whole. Each is repeated by its seed.

use std::env;

use crate::{
    explore::{Scenario, Violation, walk},
    process::{Drops, Op, Wrong},
    scenarios::*,
    world::{D, GHOST, Is, Key, Queue},
};

/// How many are taken when nobody asks for more: `MODEL_WALKS` does, `MODEL_WALK` asks for one seed alone.
const WALKS: u64 = 1000;

#[test]
fn whatever_happens_at_once() {
    let asked = |name| env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds = match asked("MODEL_WALK") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("MODEL_WALKS").unwrap_or(WALKS),
    };
    let (walks, mut steps) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let (ops, walked) = walk_from(seed, None);
        match walked {
            Ok(taken) => steps += taken,
            Err(violation) => {
                panic!("seed {seed}: {}\n  {ops:?}\n  {}", violation.what, violation.trace.join("\n  "))
            }
        }
    }
    println!("{walks:9} walks  {steps} steps");
    assert!(steps as u64 >= walks * 20, "only {steps} steps");
}

/// Or they would prove nothing.
#[test]
fn walks_find_what_is_wrong() {
    for (wrong, how) in [
        (Wrong::NoLift, "I1"),
        (Wrong::NoFence, "I"),
        (Wrong::NoTrash, "undo"),
        (Wrong::ConsumedFirst, "left"),
        (Wrong::BytesFirst, "I2"),
        (Wrong::NoBytesEntry, "left"),
    ] {
        let broken = (0..20_000).find_map(|seed| Some((seed, walk_from(seed, Some(wrong)).1.err()?)));
        let (seed, violation) = broken.unwrap_or_else(|| panic!("{wrong:?}: nothing was found"));
        println!("{wrong:?}: {} (seed {seed})", violation.what);
        assert!(violation.what.starts_with(how), "{wrong:?}: {}", violation.what);
    }
}

fn walk_from(seed: u64, wrong: Option<Wrong>) -> (Vec<Op>, Result<usize, Violation>) {
    let mut drawn = Drawn::new(seed);
    let mut scenario = drawn.scenario();
    for process in &mut scenario.processes {
        process.wrong = wrong;
    }
    let ops = scenario.processes.iter().map(|process| process.op).collect();
    (ops, walk(&scenario, &mut |below| drawn.below(below)))
}

/// xorshift: the same seed draws the same.
struct Drawn(u64);

impl Drawn {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Seven processes over a store in which everything is needed, or led to.
    fn scenario(&mut self) -> Scenario {
        let (start, left) = self.start();
        let ops: Vec<_> = (0..7).map(|me| self.op(me)).collect();
        let it = scenario("drawn", start, &ops).left(left).tries(3).catalog().led();
        let it = if self.below(2) == 0 { it.undelete() } else { it };
        // Only the first repository has a list of referrers.
        let is_listed = !ops.contains(&push_to_1()) && self.below(2) == 0;
        let it = if is_listed { it.with_subject() } else { it };
        it.faults(u32::try_from(self.below(3)).unwrap())
    }

    fn start(&mut self) -> (Start, Drops) {
        let of_blob = Drops::Blob { repo: 0, blob: 0 };
        let both = Start::empty().blob(0).blob(1).manifest(W, Is::Live, 0).listed();
        let start = match self.below(8) {
            0 => Start::empty(),
            1 => Start::empty().blob(0).dropped(),
            2 => both,
            3 => both.manifest(D, Is::Live, 1).tag(0, D),
            4 => both.manifest(D, Is::Live, 0).manifest(I, Is::Live, 0),
            5 => Start::empty().blob(0).holder(0, 0, Is::Condemned).condemned(),
            6 => Start::empty().blob(0).holder(0, 0, Is::Gone).put(Key::Unheld(GHOST), Is::Live, 1),
            _ => return (Start::empty().blob(0).trash().listed(), Drops::Manifest(D)),
        };
        (start.session(0).session(1), of_blob)
    }

    /// A client who brings something, any other, two or three collectors, and who may be of another mind.
    fn op(&mut self, me: usize) -> Op {
        let manifest = self.one_of(&[D, D, W, I, E]);
        let blob = self.one_of(&[0, 0, 0, 1]);
        let (process, tries) = (self.one_of(&[0, 0, 1]), self.one_of(&[0, 0, 1]));
        let brings = [
            push(manifest, self.one_of(&[0, 1, 3])),
            push(manifest, 0),
            ask_and_push(),
            Op::Restore(self.one_of(&[D, W])),
            upload(self.one_of(&[0, 1]), blob),
            finish(self.one_of(&[0, 1])),
            mount(),
            push_to_1(),
        ];
        let takes = [
            Op::DeleteManifest(manifest),
            Op::DeleteManifest(D),
            Op::DeleteBlob { repo: self.one_of(&[0, 1]), blob },
            DELETE_TAG,
            expire(process, tries),
            expire_session(self.one_of(&[0, 1])),
        ];
        let collects = [
            holders_of(self.one_of(&[0, 0, 1]), Queue::Dropped),
            DROPPED,
            CONDEMNED,
            Op::Bytes { blob, queue: Queue::Unheld },
            Op::Bytes { blob, queue: Queue::Bytes },
        ];
        match me {
            0 => self.one_of(&brings),
            1 => [self.one_of(&brings), self.one_of(&takes)][self.below(2)],
            2 => self.one_of(&takes),
            3 => self.one_of(&collects),
            4 => DROPPED,
            5 => CONDEMNED,
            _ => [self.one_of(&takes), self.one_of(&collects), TIME][self.below(3)],
        }
    }
}
