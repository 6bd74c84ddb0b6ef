//! Power loss and failing system calls, on a directory. Needs `strace`, so `cargo test` leaves it out: run it with
//! `cargo test --test power`, as CI does.
//!
//! A program ([`steps`]) does one of everything on a directory and says what it was answered. It is this very binary,
//! started again.
//!
//! * **Power loss.** The program is recorded. The recording is replayed on a model of a disk ([`disk`]) up to each point,
//!   and what would have survived there is put into a directory: all that was acknowledged up to that point must be there
//!   and whole, `check` must find nothing, and the registry must go on from there.
//! * **Failing calls.** The program runs again and again, each time with another of the store's system calls failing. It
//!   must get everything done in the end, and all that it was told must be so, also if then the power is lost: a disk that
//!   failed to sync a file keeps nothing of what it had to, whatever the next sync says.
//!
//! `POWER_EVERY=n` takes every n-th point and fault only, from `POWER_FIRST` or any other on; `POWER_CALL=name` only the
//! faults of this call.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests are tests")]

mod disk;
mod facts;
mod steps;
mod trace;
mod tree;

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use disk::{Disk, Survivors};
use facts::{Facts, Line};
use trace::{Call, Event, Fault, Recording};
use tree::Tree;

const DIRECTORY: &str = "POWER_DIRECTORY";
const SAYS: &str = "POWER_SAYS";
const THREADS: &str = "POWER_THREADS";
const EVERY: &str = "POWER_EVERY";
const FIRST: &str = "POWER_FIRST";
const CALL: &str = "POWER_CALL";

/// Not a test, but the program, if the variables say so.
#[test]
fn program() {
    let (Ok(directory), Ok(says), Ok(threads)) = (env::var(DIRECTORY), env::var(SAYS), env::var(THREADS)) else {
        return;
    };
    steps::run(Path::new(&directory), fs::File::create(says).unwrap(), threads.parse().unwrap());
}

/// The program on `directory/store`, which says into `directory/says`.
fn the_program(directory: &Path, threads: usize) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "program", "--nocapture"])
        .env(DIRECTORY, directory.join("store"))
        .env(SAYS, directory.join("says"))
        .env(THREADS, threads.to_string());
    command
}

fn record(directory: &Path, threads: usize) -> Recording {
    fs::create_dir(directory.join("store")).unwrap();
    let log = directory.join("log");
    assert!(trace::record(&the_program(directory, threads), trace::CALLS, &log, None).success());
    Recording::parse(&fs::read_to_string(log).unwrap())
}

fn every() -> usize {
    env::var(EVERY).map_or(1, |every| every.parse().unwrap())
}

/// Which is the first that is taken: another one each time, so that in the end it was all of them.
fn first() -> usize {
    env::var(FIRST).map_or_else(|_| std::process::id() as usize, |first| first.parse().unwrap()) % every()
}

fn verify(facts: &Facts, directory: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(facts.verify(directory))
}

/// A temporary directory in memory, where there is one: nothing here needs a disk.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Replays a recording and looks at what survives at each point. How many different things it looked at, and what was
/// wrong with the first that was.
fn lose_power(recording: &Recording, store: &Path, deaf_to: Option<&'static str>) -> (usize, Result<(), String>) {
    let mut disk = Disk::new(store, deaf_to);
    let (mut facts, mut seen, mut points) = (Facts::default(), HashSet::new(), 0);
    for event in &recording.events {
        let mut changed = disk.follow(event, recording);
        if let Event::Exit(id) = event
            && let call = &recording.calls[*id]
            && call.name == "writev"
            && let Ok(line) = serde_json::from_slice(&call.bytes(1))
        {
            facts.hear(&line);
            changed |= matches!(line, Line::Done(_));
        }
        if !changed {
            continue;
        }
        points += 1;
        if points % every() != first() {
            continue;
        }
        for which in [Survivors::None, Survivors::Names, Survivors::All, Survivors::Some(points as u64)] {
            let tree = disk.survivors(which);
            if !seen.insert((tree.hash(), facts.clone())) {
                continue;
            }
            let directory = temporary();
            tree.write(directory.path());
            if let Err(wrong) = verify(&facts, directory.path()) {
                return (seen.len(), Err(format!("power lost at point {points}, {which:?} survives: {wrong}")));
            }
        }
    }
    assert!(
        deaf_to.is_some() || disk.survivors(Survivors::All) == Tree::read(store),
        "the model is not what the disk did"
    );
    (seen.len(), Ok(()))
}

// STATE-5
#[test]
fn what_was_acknowledged_survives_the_loss_of_power_at_any_moment() {
    eprintln!("{FIRST}={}", first());
    for threads in [1, 4] {
        let directory = tempfile::tempdir().unwrap();
        let recording = record(directory.path(), threads);
        let store = directory.path().join("store");
        let (seen, lost) = lose_power(&recording, &store, None);
        eprintln!("{threads} threads: {} calls, {seen} different directories survive", recording.calls.len());
        lost.unwrap();
        for deaf_to in ["fsync", "fdatasync"] {
            let (_, lost) = lose_power(&recording, &store, Some(deaf_to));
            eprintln!("without {deaf_to}: {}", lost.expect_err("the proof does not see what goes wrong"));
        }
    }
}

/// Whether a full disk may refuse it.
fn takes_room(call: &Call) -> bool {
    match call.name.as_str() {
        "openat" => call.has(2, "O_CREAT") || call.has(2, "O_TMPFILE"),
        "mkdir" | "mkdirat" | "linkat" | "renameat" | "write" | "pwrite64" | "fdatasync" => true,
        _ => false,
    }
}

// STATE-5
#[test]
fn everything_gets_done_and_what_was_acknowledged_is_so_whichever_call_fails() {
    let directory = temporary();
    let recording = record(directory.path(), 1);
    let mut faults = Vec::new();
    for (call, n) in recording.by_the_store(steps::READY) {
        let full = takes_room(call).then_some("ENOSPC");
        let errors = [Some("EIO"), full].into_iter().flatten();
        faults.extend(errors.map(|error| Fault { call: &call.name, n, error }));
    }
    if let Ok(only) = env::var(CALL) {
        faults.retain(|fault| fault.call == only);
    }
    let mut names: BTreeMap<_, usize> = BTreeMap::new();
    for fault in &faults {
        *names.entry(fault.call).or_default() += 1;
    }
    let chosen: Vec<_> = faults.iter().skip(first()).step_by(every()).collect();
    eprintln!("{FIRST}={}, {} of {} faults: {names:?}", first(), chosen.len(), faults.len());
    let [next, felt, not_made] = [const { AtomicUsize::new(0) }; 3];
    let wrong = Mutex::new(Vec::new());
    let work = || {
        while let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Strace counts the calls of each thread, and which thread has the last ones is not the same in each run.
            let outcome = (0..TRIES).map(|_| fail(**fault)).find(|outcome| *outcome != Ok(Felt::NotMade));
            match outcome {
                Some(Ok(Felt::Yes)) => drop(felt.fetch_add(1, Ordering::Relaxed)),
                Some(Ok(Felt::No)) => {}
                Some(Ok(Felt::NotMade)) | None => drop(not_made.fetch_add(1, Ordering::Relaxed)),
                Some(Err(why)) => wrong.lock().unwrap().push(format!("{fault:?}: {why}")),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(work);
        }
    });
    let (felt, not_made, wrong) = (felt.into_inner(), not_made.into_inner(), wrong.into_inner().unwrap());
    eprintln!("a client felt {felt} of them, and {not_made} came to nothing in {TRIES} runs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(felt > chosen.len() / 3, "faults do not hit the store");
    assert!(not_made <= chosen.len() / 20, "faults are not made");
}

/// Whether a client noticed a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Felt {
    Yes,
    No,
    /// The call did not come so often this time.
    NotMade,
}

/// How often a run is tried that may not come to the call that is to fail.
const TRIES: usize = 5;

/// Runs the program with a fault and sees that it comes to its end, and that all it was told is so.
fn fail(fault: Fault<'_>) -> Result<Felt, String> {
    let directory = temporary();
    let (store, log) = (directory.path().join("store"), directory.path().join("log"));
    fs::create_dir(&store).unwrap();
    // All of them take long, and it is syncs that a disk may forget.
    let syncs = ["fsync", "fdatasync"].contains(&fault.call);
    let calls = if syncs { trace::CALLS } else { fault.call };
    let ended = trace::record(&the_program(directory.path(), 1), calls, &log, Some(fault));
    let said = fs::read_to_string(directory.path().join("says")).unwrap_or_default();
    if !ended.success() {
        return Err(said);
    }
    let recording = Recording::parse(&fs::read_to_string(log).unwrap());
    if !recording.calls.iter().any(|call| call.injected) {
        return Ok(Felt::NotMade);
    }
    let mut facts = Facts::default();
    said.lines().for_each(|line| facts.hear(&serde_json::from_str(line).unwrap()));
    if syncs {
        let mut disk = Disk::new(&store, None);
        for event in &recording.events {
            disk.follow(event, &recording);
        }
        let left = temporary();
        disk.survivors(Survivors::None).write(left.path());
        verify(&facts, left.path()).map_err(|wrong| format!("then power lost: {wrong}"))?;
    }
    verify(&facts, &store)?;
    Ok(if said.contains("Failed") { Felt::Yes } else { Felt::No })
}
