//! The store goes away, hangs, is slow, has too much to do, and loses answers, while clients push and pull.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    deaths::Load,
    fleet::{self, Fleet},
    load::http,
    minio::Minio,
    proxy::{Proxy, Weather},
};

struct World {
    store: Minio,
    proxy: Proxy,
    fleet: Fleet,
    load: Load,
}

/// How long it lasts.
const STORM: Duration = Duration::from_secs(4);
/// Long enough for what waits to be given up.
const HANG: Duration = Duration::from_secs(15);

impl World {
    fn new() -> Self {
        let store = Minio::start();
        let proxy = Proxy::start(store.address, std::process::id().into());
        let fleet = Fleet::start(proxy.address);
        let load = Load::new(fleet.address(), std::process::id().into());
        Self { store, proxy, fleet, load }
    }

    /// Lets the clients work while something happens to the store and passes; then nothing may be lost. Before it and
    /// after it they do as always.
    fn through(&mut self, what: &str, happens: impl FnOnce(&mut Minio, &Proxy, &mut Fleet)) {
        let Self { store, proxy, fleet, load } = self;
        let address = fleet.address();
        load.during(address, || {
            thread::sleep(Duration::from_millis(300));
            happens(store, proxy, fleet);
            let passed = clock();
            fleet.wait_until_ready();
            eprintln!("{what}: ready again after {:?}", passed.elapsed());
            thread::sleep(Duration::from_millis(300));
        });
        load.verify(address);
        fleet::check(store.address);
    }

    fn in_weather(&mut self, weather: Weather) {
        let before = self.proxy.spoilt();
        self.through(&format!("{weather:?}"), |_, proxy, _| {
            proxy.set(weather);
            thread::sleep(STORM);
            proxy.set(Weather::Fair);
        });
        assert!(matches!(weather, Weather::Slow(_)) || self.proxy.spoilt() > before, "nothing happened");
    }
}

// ERR-2, STATE-5, STATE-7
#[test]
fn a_store_that_is_killed_is_waited_for_also_by_a_replica_that_starts_meanwhile() {
    let mut world = World::new();
    world.through("killed", |store, _, fleet| {
        store.kill();
        fleet.kill(0);
        fleet.start_again(0);
        let red = fleet.replicas[0].send_once("GET", "/readyz", "", b"");
        assert_eq!((red.status, red.text().as_str()), (503, "store unavailable\n"));
        assert!(asked_for_a_tag(fleet).iter().all(|reply| reply.status == 503));
        store.start_again();
    });
}

// STATE-5, STATE-7
#[test]
fn a_store_that_hangs_holds_nobody_for_long() {
    let mut world = World::new();
    world.through("paused", |store, _, fleet| {
        store.pause();
        let asked = clock();
        let replies = asked_for_a_tag(fleet);
        eprintln!("paused: put off after {:?}", asked.elapsed());
        assert!(replies.iter().all(|reply| reply.status == 503));
        thread::sleep(HANG.saturating_sub(asked.elapsed()));
        let asked = clock();
        assert!(asked_for_a_tag(fleet).iter().all(|reply| reply.status == 503));
        eprintln!("paused: later put off after {:?}", asked.elapsed());
        store.resume();
    });
}

// STATE-5, STATE-7
#[test]
fn a_store_that_is_slow_or_has_too_much_to_do_or_loses_answers_loses_nothing() {
    let mut world = World::new();
    world.in_weather(Weather::Slow(Duration::from_millis(300)));
    for percent in [10, 50, 100] {
        world.in_weather(Weather::SlowDown(percent));
    }
    for percent in [10, 50] {
        world.in_weather(Weather::Cut(percent));
        world.in_weather(Weather::Astray(percent));
    }
}

/// What each replica says, asked side by side. It must be whole, or put off.
fn asked_for_a_tag(fleet: &Fleet) -> Vec<http::Reply> {
    thread::scope(|scope| {
        let asking: Vec<_> = fleet
            .replicas
            .iter()
            .map(|replica| scope.spawn(|| replica.send_once("GET", "/v2/client/0/manifests/latest", "", b"")))
            .collect();
        let replies: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        for reply in &replies {
            assert!(reply.status < 500 || reply.is_put_off(), "{}", reply.text());
        }
        replies
    })
}

#[expect(clippy::disallowed_methods, reason = "to tell how long it took, not to judge by it")]
fn clock() -> Instant {
    Instant::now()
}
