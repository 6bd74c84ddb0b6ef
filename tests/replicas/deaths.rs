//! Replicas die, one after the other, while clients go on through the balancer.

use std::{
    env,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    fleet::{self, Fleet},
    load::{
        client::{Client, SHARED},
        content::{self, Blob, Random},
        ledger::Moves,
    },
    minio::Minio,
};

const CLIENTS: usize = 4;
/// After how many deaths everything is looked at.
const LOOK_AFTER: u64 = 25;
/// The longest that all replicas live, in milliseconds.
const LONGEST: usize = 300;

// STATE-1, STATE-4, STATE-5
#[test]
fn nothing_acknowledged_is_lost_while_replicas_die_and_their_clocks_are_hours_apart() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("REPLICAS_ROUNDS").unwrap_or(200);
    let seed = number("REPLICAS_SEED").unwrap_or_else(|| std::process::id().into());
    eprintln!("{rounds} deaths, REPLICAS_SEED={seed}");
    let mut random = Random(seed);
    let store = Minio::start();
    let mut fleet = Fleet::start(store.address);
    let mut load = Load::new(fleet.address(), seed);
    let mut left = rounds;
    while left > 0 {
        let some = left.min(LOOK_AFTER);
        load.during(fleet.address(), || (0..some).for_each(|_| one_dies(&mut fleet, &mut random)));
        load.verify(fleet.address());
        fleet::check(store.address);
        left -= some;
    }
    eprintln!("{} answers, nothing lost", load.answers());
}

/// Sometimes while it starts, and sometimes another one with it.
fn one_dies(fleet: &mut Fleet, random: &mut Random) {
    thread::sleep(Duration::from_millis(random.below(LONGEST) as u64));
    let victim = random.below(fleet.len());
    let other = (victim + 1) % fleet.len();
    let both = random.one_in(8);
    fleet.kill(victim);
    if both {
        fleet.kill(other);
        fleet.start_again(other);
    }
    fleet.start_again(victim);
}

/// Clients at work, each in a repository of its own, and all on one tag.
pub(crate) struct Load {
    clients: Vec<Client>,
    moves: Arc<Mutex<Moves>>,
}

impl Load {
    pub(crate) fn new(server: SocketAddr, seed: u64) -> Self {
        let mut random = Random(seed);
        let blobs = Arc::new(content::blobs());
        let moves = Arc::new(Mutex::new(Moves::default()));
        let client = |n| Client::new((n, CLIENTS), random.next(), true, Arc::clone(&blobs), Arc::clone(&moves));
        let clients = (0..CLIENTS).map(client).collect();
        let Blob { digest, bytes } = &blobs[0];
        let path = format!("/v2/{SHARED}/blobs/uploads/?digest={digest}");
        let pushed = fleet::send(server, "POST", &path, "", bytes);
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        Self { clients, moves }
    }

    /// Does this while all clients work, and waits for what they have begun.
    pub(crate) fn during(&mut self, server: SocketAddr, act: impl FnOnce()) {
        let enough = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in &mut self.clients {
                let enough = &enough;
                scope.spawn(move || client.work(server, || enough.load(Ordering::Relaxed)));
            }
            // Also when this panics, or the clients would be waited for, for ever.
            let _stop = Stop(&enough);
            act();
        });
    }

    /// Everything that the clients know is so.
    pub(crate) fn verify(&mut self, server: SocketAddr) {
        thread::scope(|scope| {
            for client in &mut self.clients {
                scope.spawn(move || client.verify(server).unwrap());
            }
        });
        // One that has just started may have to be waited for, and what it says then would read as if the tag were gone.
        let moving = fleet::send(server, "GET", &format!("/v2/{SHARED}/manifests/moving"), "", b"");
        assert!(matches!(moving.status, 200 | 404), "{}", moving.text());
        let seen = (moving.status == 200).then(|| content::sha256(&moving.body));
        self.moves.lock().unwrap().observed(seen);
    }

    pub(crate) fn answers(&self) -> u64 {
        self.clients.iter().map(|client| client.answers).sum()
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
