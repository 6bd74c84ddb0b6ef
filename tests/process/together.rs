//! Two processes on one directory, and several clients at the same time: their answers are those of one registry that
//! does one thing at a time, also when one of the two is killed meanwhile.
//!
//! What is asked is drawn from a seed; who is faster is not. `LINEARIZABLE_SEED=<n>` asks the same in every round,
//! `LINEARIZABLE_ROUNDS=<n>` says how many there are.

use std::{
    env,
    net::SocketAddr,
    path::Path,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    history::{
        Event,
        content::{CHUNKS, MANIFESTS, TAGS},
        judge,
        model::State,
        random::Random,
        request::{Answer, REPOSITORIES, Request, Theme, prepared, request},
    },
    server::{Process, check},
    wire::Wire,
};

/// How many histories there are, on how many directories.
const ROUNDS: u64 = 120;
const ROUNDS_WITH_A_KILL: u64 = 60;
const LIFE: u64 = 20;
/// How many requests each client makes.
const REQUESTS: usize = 5;
/// The longest that the one which is killed lives once the clients have begun, in microseconds.
const LONGEST: usize = 12_000;

/// The two, each unless it was killed in this round.
struct Pair([Mutex<Option<Process>>; 2]);

impl Pair {
    fn start(directories: [&Path; 2]) -> Self {
        Self(directories.map(|directory| Mutex::new(Some(Process::start(directory)))))
    }

    /// Where to ask this one, or the other if this one is dead.
    fn address(&self, of: usize) -> SocketAddr {
        let address = |of: usize| self.0[of % 2].lock().unwrap().as_ref().map(|process| process.address);
        address(of).or_else(|| address(of + 1)).unwrap()
    }

    fn kill(&self, which: usize) {
        let process = self.0[which].lock().unwrap().take();
        process.unwrap().kill();
    }

    fn revive(&self, directory: &Path) {
        for process in &self.0 {
            process.lock().unwrap().get_or_insert_with(|| Process::start(directory));
        }
    }
}

/// One history of several clients, and then one look at everything.
fn round(pair: &Pair, seed: u64, kills: bool, name: &str) -> (State, Vec<Event>) {
    let mut random = Random(seed);
    let theme = Theme::ALL[random.below(Theme::ALL.len())];
    let clients = 2 + random.below(3);
    let wire = Wire::open(pair.address(0), name);
    let mut initial = State::default();
    for request in prepared(&mut random) {
        assert_eq!(wire.perform(pair.address(0), request), Answer::Done);
        initial.prepare(request);
    }

    let (clock, begin) = (AtomicUsize::new(0), Barrier::new(clients + 1));
    let ask = |client: usize, request: Request| {
        let address = pair.address(client);
        let called = clock.fetch_add(1, Ordering::SeqCst);
        let answer = wire.perform(address, request);
        Event { client, called, returned: clock.fetch_add(1, Ordering::SeqCst), request, answer }
    };
    let mut events: Vec<Event> = thread::scope(|scope| {
        let work = |client: usize| {
            let requests = requests(theme, Random(random.below(usize::MAX) as u64));
            let (ask, begin) = (&ask, &begin);
            scope.spawn(move || {
                begin.wait();
                requests.into_iter().map(|request| ask(client, request)).collect::<Vec<_>>()
            })
        };
        let working: Vec<_> = (0..clients).map(work).collect();
        begin.wait();
        if kills {
            thread::sleep(Duration::from_micros(random.below(LONGEST) as u64));
            pair.kill(random.below(2));
        }
        working.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    events.extend(everything().enumerate().map(|(at, request)| ask(clients + at, request)));
    events.sort_unstable_by_key(|event| event.called);
    (initial, events)
}

fn requests(theme: Theme, mut random: Random) -> Vec<Request> {
    // When something expires is the registry's business.
    let all = std::iter::repeat_with(|| request(theme, &mut random));
    all.filter(|request| *request != Request::Expire).take(REQUESTS).collect()
}

/// Reads of all that a history can have changed.
fn everything() -> impl Iterator<Item = Request> {
    let held = (0..REPOSITORIES).flat_map(|repository| (0..2).map(move |blob| Request::Stat { repository, blob }));
    let uploaded = CHUNKS.iter().map(|(.., blob)| Request::Stat { repository: 0, blob: *blob });
    let tags = (0..TAGS.len()).map(Request::PullTag);
    let manifests = (0..MANIFESTS).map(Request::Pull);
    let lists = [Request::ListTags, Request::ListReferrers, Request::Status];
    held.chain(uploaded).chain(tags).chain(manifests).chain(lists)
}

/// Runs so many histories, and demands that each is explained.
fn run(rounds: u64, kills: bool) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("LINEARIZABLE_ROUNDS").unwrap_or(rounds);
    let fixed = number("LINEARIZABLE_SEED");
    let first = u64::from(std::process::id()) << 16;
    let mut unexplained = Vec::new();
    let mut unanswered = 0;
    for begin in (0..rounds).step_by(usize::try_from(LIFE).unwrap()) {
        let directory = tempfile::tempdir().unwrap();
        let pair = Pair::start([directory.path(); 2]);
        for number in begin..rounds.min(begin + LIFE) {
            let seed = fixed.unwrap_or(first + number);
            let (initial, events) = round(&pair, seed, kills, &format!("round-{number}"));
            unanswered += events.iter().filter(|event| event.answer == Answer::Unclear).count();
            if let Err(why) = judge(&initial, &events) {
                eprintln!("LINEARIZABLE_SEED={seed}\n{why}");
                unexplained.push(seed);
            }
            pair.revive(directory.path());
        }
        drop(pair);
        check(directory.path());
    }
    eprintln!("{rounds} histories, {unanswered} requests unclear");
    assert!(unexplained.is_empty(), "no order explains the answers of seeds {unexplained:?}");
}

#[test]
fn the_answers_of_two_processes_are_those_of_one_registry_that_does_one_thing_at_a_time() {
    run(ROUNDS, false);
}

#[test]
fn so_they_are_when_one_of_the_two_is_killed_amid_its_requests() {
    run(ROUNDS_WITH_A_KILL, true);
}

#[test]
fn two_processes_that_share_nothing_are_noticed() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let pair = Pair::start([directories[0].path(), directories[1].path()]);
    let noticed = (0..20).filter(|seed| {
        let (initial, events) = round(&pair, *seed, false, &format!("round-{seed}"));
        judge(&initial, &events).is_err()
    });
    assert!(noticed.count() >= 15);
}
