//! The real command under a mixed load, killed with `kill -9` at random moments, again and again: nothing that was
//! acknowledged is ever lost.
//!
//! `CRASH_ROUNDS` says how often (20), `CRASH_SEED` with what load.

use std::{
    env,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    load::{
        client::{Client, SHARED},
        content::{self, Blob, Random},
        ledger::Moves,
    },
    server::{self, Process},
};

const CLIENTS: usize = 4;
/// How many times a directory is used before a fresh one takes its place.
const LIFE: u64 = 25;
/// The longest that a server lives once the load has begun.
const LONGEST: usize = 300;

// STATE-1, STATE-4, STATE-5
#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("CRASH_ROUNDS").unwrap_or(20);
    let seed = number("CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{rounds} rounds, CRASH_SEED={seed}");
    let mut random = Random(seed);
    let mut answers = 0;
    let mut left = rounds;
    while left > 0 {
        let life = left.min(LIFE);
        answers += live(life, &mut random);
        left -= life;
    }
    eprintln!("{answers} answers, nothing lost");
}

/// Crashes one directory a number of times; how many requests were answered.
fn live(rounds: u64, random: &mut Random) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Arc::new(content::blobs());
    let moves = Arc::new(Mutex::new(Moves::default()));
    let client = |n| Client::new((n, CLIENTS), random.next(), false, Arc::clone(&blobs), Arc::clone(&moves));
    let mut clients: Vec<_> = (0..CLIENTS).map(client).collect();
    prepare(directory.path(), &blobs);
    for _ in 0..rounds {
        if random.one_in(8) {
            crash_at_the_start(directory.path(), random);
        }
        server::check(directory.path());
        let server = Process::start(directory.path());
        let address = server.address;
        verify(&server, &mut clients, &moves);
        thread::scope(|scope| {
            let working: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(move || client.work(address, || false))).collect();
            thread::sleep(Duration::from_millis(random.below(LONGEST) as u64));
            server.kill();
            for client in working {
                client.join().unwrap();
            }
        });
    }
    server::check(directory.path());
    let server = Process::start(directory.path());
    verify(&server, &mut clients, &moves);
    clients.iter().map(|client| client.answers).sum()
}

/// What the manifests of the shared repository name.
fn prepare(data: &Path, blobs: &[Blob]) {
    let server = Process::start(data);
    let path = format!("/v2/{SHARED}/blobs/uploads/?digest={}", blobs[0].digest);
    assert_eq!(server.send("POST", &path, "", &blobs[0].bytes).status, 201);
}

fn crash_at_the_start(data: &Path, random: &mut Random) {
    let mut child = server::spawn(data, &[]);
    thread::sleep(Duration::from_millis(random.below(60) as u64));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn verify(server: &Process, clients: &mut [Client], moves: &Mutex<Moves>) {
    thread::scope(|scope| {
        let verifying: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(|| client.verify(server.address).unwrap())).collect();
        for client in verifying {
            client.join().unwrap();
        }
    });
    let moving = server.send("GET", &format!("/v2/{SHARED}/manifests/moving"), "", b"");
    let seen = (moving.status == 200).then(|| content::sha256(&moving.body));
    moves.lock().unwrap().observed(seen);
}
