//! Which operations are run side by side, and over what.

use std::env;

use marina_distribution::registry::TagCondition;

use crate::{
    content::{
        PARTS,
        What::{self, D, Index, Other, Referrer, Wide},
    },
    explore::{Case, draw, explore, on_paused_clock},
    process::Op,
    start::Start,
};

const UPLOAD: Op = Op::Upload { repo: 0, blob: 0 };
const UPLOAD_THERE: Op = Op::Upload { repo: 1, blob: 0 };
const DELETE_BLOB: Op = Op::DeleteBlob { repo: 0, blob: 0 };
const HOLDER: Op = Op::CollectHolder { repo: 0, blob: 0 };
const HOLDER_THERE: Op = Op::CollectHolder { repo: 1, blob: 0 };
const BYTES: Op = Op::CollectRecord(0);

fn push(what: What, tags: &'static [usize]) -> Op {
    Op::Push { what, tags, condition: None }
}

fn push_if(what: What, tags: &'static [usize], condition: TagCondition) -> Op {
    Op::Push { what, tags, condition: Some(condition) }
}

/// Explores these side by side, in at least so many states.
fn all_orders(start: &Start, ops: &[Op], faults: usize, at_least: usize) -> usize {
    let explored = explore(&Case { start: start.clone(), ops: ops.to_vec(), faults });
    println!("{:7} states {:7} runs  {faults} faults  {ops:?}", explored.states, explored.runs);
    assert!(explored.states >= at_least, "{ops:?}: only {} states", explored.states);
    explored.states
}

/// Each with each, itself included.
fn pairs(start: &Start, ops: &[Op], at_least: usize) {
    let pairs = ops.iter().enumerate().flat_map(|(at, one)| ops[at..].iter().map(|other| [*one, *other]));
    let states: usize = pairs.map(|pair| all_orders(start, &pair, 0, 1)).sum();
    println!("{states:7} states in all");
    assert!(states >= at_least, "only {states} states");
}

fn tagged() -> Start {
    Start::blobs(&[0, 1]).with(D, &[0]).with(Other, &[])
}

#[test]
fn pairs_on_a_tagged_image() {
    let condition = push_if(Other, &[0], TagCondition::Is(D.digest()));
    let deletes = [Op::DeleteManifest(D), Op::DeleteTag(0), DELETE_BLOB];
    pairs(
        &tagged(),
        &[push(D, &[0]), push(Other, &[0]), condition, deletes[0], deletes[1], deletes[2], Op::Expire],
        3000,
    );
}

#[test]
fn a_push_of_several_tags_and_a_delete() {
    let both = Start::blobs(&[0, 1]).with(D, &[0, 1]);
    all_orders(&both, &[push(D, &[0, 1]), Op::DeleteManifest(D)], 0, 3000);
    all_orders(&both, &[push(Other, &[0, 1]), Op::DeleteManifest(D)], 0, 800);
}

#[test]
fn pairs_on_a_referrer() {
    let start = Start::blobs(&[0]).with(Referrer, &[0]);
    pairs(&start, &[push(Referrer, &[0]), Op::DeleteManifest(Referrer), Op::Expire], 7000);
}

#[test]
fn pairs_on_a_blob() {
    let ops = [UPLOAD, UPLOAD_THERE, Op::Mount, DELETE_BLOB, HOLDER, BYTES];
    pairs(&Start::default(), &ops[..3], 190);
    pairs(&Start::blobs(&[0]), &ops, 1400);
    pairs(&Start::blobs(&[0]).mounted().deleted(), &ops, 1300);
}

#[test]
fn pairs_on_what_is_condemned() {
    let holder = Start::blobs(&[0, 1]).condemned_holder();
    for op in [push(D, &[0]), push(Wide, &[]), UPLOAD, Op::Mount, DELETE_BLOB] {
        all_orders(&holder, &[op, HOLDER], 0, 20);
    }
    let record = Start::blobs(&[0]).deleted().condemned_record();
    for op in [UPLOAD, UPLOAD_THERE, Op::Mount, Op::Expire] {
        all_orders(&record, &[op, BYTES], 0, 10);
    }
    let mounted = Start::blobs(&[0]).condemned_record();
    all_orders(&mounted, &[Op::Mount, BYTES], 0, 60);
    let child = Start::blobs(&[0]).with(D, &[]).condemned_manifest(D);
    pairs(&child, &[push(Index, &[]), push(D, &[0]), Op::DeleteManifest(D)], 1700);
}

#[test]
fn pairs_on_a_session() {
    let open = Start::default().session(5);
    pairs(&open, &[Op::Append { from: 5, to: 7 }, Op::Cancel, Op::Expire], 2200);
    let full = Start::default().session(7);
    pairs(&full, &[Op::Finish, Op::Cancel, Op::Expire], 4000);
    pairs(&full, &[Op::Finish, Op::CollectRecord(PARTS)], 1500);
}

#[test]
fn pairs_of_which_one_call_fails() {
    all_orders(&tagged(), &[push(D, &[0]), Op::DeleteManifest(D)], 1, 6000);
    all_orders(&tagged(), &[push(Other, &[0]), Op::DeleteTag(0)], 1, 600);
    all_orders(&Start::blobs(&[0]).deleted(), &[UPLOAD, BYTES], 1, 2000);
    all_orders(&Start::blobs(&[0]).condemned_holder(), &[push(D, &[]), HOLDER], 1, 800);
    all_orders(&Start::default().session(7), &[Op::Finish, Op::Cancel], 1, 700);
    all_orders(&Start::blobs(&[0]).condemned_record(), &[Op::Mount, BYTES], 1, 400);
}

/// How many seeds each triple is run with.
const SEEDS: u64 = 25;

/// `INTERLEAVINGS_SEEDS` asks for more of them, `INTERLEAVINGS_SEED` for one alone.
fn seeds() -> Vec<u64> {
    let asked = |name| env::var(name).ok().map(|text| text.parse().unwrap());
    asked("INTERLEAVINGS_SEED")
        .map_or_else(|| (0..asked("INTERLEAVINGS_SEEDS").unwrap_or(SEEDS)).collect(), |seed| vec![seed])
}

#[test]
fn triples_in_drawn_orders() {
    let delete = Op::DeleteManifest(D);
    let both = Start::blobs(&[0, 1]).with(D, &[0, 1]);
    let held = Start::blobs(&[0, 1]);
    let triples: Vec<(Start, Vec<Op>)> = vec![
        (both.clone(), vec![push(D, &[0, 1]), delete, push(Other, &[0])]),
        (both.clone(), vec![push(D, &[0, 1]), delete, delete]),
        (both.clone(), vec![push(D, &[0, 1]), push(D, &[0]), delete]),
        (both.clone(), vec![push(D, &[0, 1]), delete, Op::DeleteTag(1)]),
        (both, vec![push(D, &[0]), delete, Op::Expire]),
        (Start::blobs(&[0]).with(Referrer, &[0]), vec![push(Referrer, &[0]), Op::DeleteManifest(Referrer), Op::Expire]),
        (held.clone(), vec![push(D, &[0]), HOLDER, Op::Expire]),
        (held.clone(), vec![push(Wide, &[0]), HOLDER, BYTES]),
        (held.clone().deleted(), vec![UPLOAD, BYTES, push(D, &[0])]),
        (held.clone(), vec![Op::Mount, HOLDER, BYTES]),
        (held.clone().mounted(), vec![Op::Mount, HOLDER_THERE, BYTES]),
        (held.clone().condemned_record(), vec![Op::Mount, BYTES, UPLOAD]),
        (held, vec![UPLOAD, UPLOAD_THERE, BYTES]),
        (Start::default().session(7), vec![Op::Finish, Op::Expire, Op::CollectRecord(PARTS)]),
        (Start::default().session(7), vec![Op::Finish, Op::Finish, Op::Expire]),
        (Start::blobs(&[0]).with(D, &[]).condemned_manifest(D), vec![push(Index, &[]), push(D, &[0]), delete]),
    ];
    let mut runs = 0;
    for (start, ops) in triples {
        let prepared = on_paused_clock(start.prepare());
        let case = Case { start, ops, faults: 0 };
        for seed in seeds() {
            println!("seed {seed}: {:?}", case.ops);
            draw(&case, &prepared, seed);
            runs += 1;
        }
    }
    println!("{runs} runs");
}
