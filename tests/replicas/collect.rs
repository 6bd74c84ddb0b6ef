//! The collector at work on all replicas, with graces of seconds, against clients that push, mount, move, delete and
//! restore few things in turn, while replicas die.

#![expect(clippy::disallowed_methods, reason = "several processes share no clock that can be paused")]

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    ops::AddAssign,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fleet::{self, Fleet, Setup},
    load::{
        content::{self, Blob, MANIFEST, Random},
        http::{self, Reply},
    },
    minio::Minio,
};

const CLIENTS: usize = 12;
/// Which of the blobs are pushed: few, so that clients and collectors meet, and one of several parts.
const BLOBS: [usize; 7] = [1, 3, 5, 8, 10, 11, 12];
const NOTES: usize = 2;
const TAGS: [&str; 3] = ["latest", "v1", "edge"];
const SETUP: Setup = Setup {
    clocks: [Some("-1"), Some("+1"), None],
    options: &["--grace", "6s", "--undelete", "8s", "--gc-interval", "1s", "--gc-rate", "2000"],
};
/// For how long a blob is there for certain after a client was told so: the grace, less the two seconds by which clocks
/// differ, and one since they count in seconds.
const PROMISE: Duration = Duration::from_secs(3);
/// For how long what was deleted can be put back for certain: likewise, and less the time that a command takes to start.
const RESTORABLE: Duration = Duration::from_secs(4);
/// How long clients may hesitate before they push a manifest: mostly within the promise, and sometimes beyond the grace
/// and a round.
const HESITATION: [u64; 8] = [0, 0, 0, 500, 1_500, 2_500, 2_500, 15_000];
/// After how long everything is looked at.
const LOOK_AFTER: Duration = Duration::from_secs(20);
/// How many times as long it may take until something is collected that a client had pushed.
const SLOWEST: u32 = 5;
/// The longest that all replicas live, in milliseconds.
const LONGEST: usize = 3_000;
const PAUSE: Duration = Duration::from_millis(50);
/// A tombstone is shorter than any live register.
const TOMBSTONE_BELOW: u64 = 32;

#[test]
fn while_collectors_work_and_die_nothing_acknowledged_is_lost_and_of_what_is_deleted_nothing_stays() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let duration = Duration::from_secs(number("COLLECT_SECS").unwrap_or(60));
    let seed = number("REPLICAS_SEED").unwrap_or_else(|| std::process::id().into());
    eprintln!("the collector under load for {duration:?}, REPLICAS_SEED={seed}");
    let mut random = Random(seed);
    let other = env::var("COLLECT_STORE").ok().map(|address| address.parse::<SocketAddr>().unwrap());
    let minio = other.is_none().then(Minio::start);
    let store = minio.as_ref().map(|minio| minio.address).or(other).unwrap();
    let mut fleet = Fleet::start_as(store, SETUP);
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|number| Client::new(number, random.next(), fleet.address(), store)).collect();
    let start = Instant::now();
    let has_met_it = |clients: &[Client]| clients.iter().any(|client| client.tally.collected > 0);
    // A slow machine comes to what this is about later.
    while start.elapsed() < duration || !has_met_it(&clients) && start.elapsed() < SLOWEST * duration {
        let until = Instant::now() + LOOK_AFTER.min(duration);
        work_until(until, &mut clients, &mut fleet, &mut random);
        together(&mut clients, Client::pull_all);
        fleet::check(store);
    }
    let tally = clients.iter().fold(Tally::default(), |mut sum, client| {
        sum += client.tally;
        sum
    });
    eprintln!("{tally:?}");
    assert!(tally.collected > 0, "nothing was collected under load");
    together(&mut clients, Client::delete_all);
    drop(fleet);
    // Beyond all graces, and the ages of sessions and of their ends. A round finds what the one before it left.
    for offset in ["+2d", "+4d", "+6d", "+8d"] {
        fleet::collect(store, offset);
    }
    fleet::check(store);
    let tombstones = demand_nothing_but_tombstones(store);
    eprintln!("left: {tombstones} tombstones");
    assert!(minio.is_some() || tombstones == 0, "the store honours the condition of a delete");
}

/// All clients at work, and one replica dying after the other.
fn work_until(until: Instant, clients: &mut [Client], fleet: &mut Fleet, random: &mut Random) {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let working: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| client.work(&enough))).collect();
        while Instant::now() < until && !working.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(random.below(LONGEST) as u64));
            let victim = random.below(fleet.len());
            fleet.kill(victim);
            thread::sleep(Duration::from_millis(random.below(500) as u64));
            fleet.start_again(victim);
        }
        enough.store(true, Ordering::Relaxed);
    });
}

fn together(clients: &mut [Client], act: impl Fn(&mut Client) + Sync) {
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| act(client));
        }
    });
}

fn demand_nothing_but_tombstones(store: SocketAddr) -> usize {
    let fixtures = ["fleet/session-key", "gc/lease"];
    let (tombstones, left): (Vec<_>, Vec<_>) =
        fleet::objects(store).into_iter().filter(|entry| !fixtures.contains(&entry.key.as_str())).partition(|entry| {
            let registers = ["blobs/", "repos/", "catalog/"];
            entry.size < TOMBSTONE_BELOW && registers.iter().any(|of| entry.key.as_str().starts_with(of))
        });
    assert!(left.is_empty(), "{left:?}");
    tombstones.len()
}

/// What happened, to see that the test meets what it is about.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    answers: u64,
    manifests: u64,
    mounts: u64,
    deletes: u64,
    restores: u64,
    /// Blobs that were gone, although this client had pushed them and not deleted them.
    collected: u64,
    /// Manifests that came too late for their blobs.
    late: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.manifests += other.manifests;
        self.mounts += other.mounts;
        self.deletes += other.deletes;
        self.restores += other.restores;
        self.collected += other.collected;
        self.late += other.late;
    }
}

/// Has a repository of its own, and knows what must be there.
struct Client {
    server: SocketAddr,
    store: SocketAddr,
    repository: String,
    random: Random,
    blobs: Vec<Blob>,
    /// What was acknowledged and not deleted since: the manifest, and which blobs it names.
    images: BTreeMap<String, (String, Vec<usize>)>,
    tags: BTreeMap<&'static str, String>,
    /// When this client asked for what it was then told is there, by blob.
    told: BTreeMap<usize, Instant>,
    /// The last request was sent more than once.
    repeated: bool,
    tally: Tally,
}

impl Client {
    fn new(number: usize, seed: u64, server: SocketAddr, store: SocketAddr) -> Self {
        let blobs = content::blobs().into_iter().enumerate().filter(|(n, _)| BLOBS.contains(n)).map(|(_, blob)| blob);
        Self {
            server,
            store,
            repository: name(number),
            random: Random(seed),
            blobs: blobs.collect(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            told: BTreeMap::new(),
            repeated: false,
            tally: Tally::default(),
        }
    }

    fn work(&mut self, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            match self.random.below(16) {
                0..=4 => self.push_image(),
                5 | 6 => self.move_a_tag(),
                7 => self.delete_a_tag(),
                8..=10 => self.delete_an_image(),
                11 => self.delete_a_blob(),
                12 => self.delete_and_restore_an_image(),
                13 => self.abandon_an_upload(),
                _ => self.pull_one(),
            }
        }
    }

    /// Asks until it is answered, as real clients do, and with the moment at which the answered request was sent.
    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> (Reply, Instant) {
        self.repeated = false;
        loop {
            let sent = Instant::now();
            if let Some(reply) = self.ask_once(method, path, headers, body) {
                return (reply, sent);
            }
            self.repeated = true;
            thread::sleep(PAUSE);
        }
    }

    /// `None`: nobody knows what became of it, or it is to be done later.
    fn ask_once(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<Reply> {
        let path = if path.starts_with('/') { path.into() } else { format!("/v2/{}/{path}", self.repository) };
        let reply = http::send(self.server, method, &path, headers, body).ok().filter(|reply| !reply.is_put_off())?;
        assert!(reply.status < 500, "{method} {path}: {} {}", reply.status, reply.text());
        self.tally.answers += 1;
        Some(reply)
    }

    fn push_image(&mut self) {
        let count = self.blobs.len();
        let named: Vec<_> = (0..3).map(|_| self.random.below(count)).collect();
        let blob = |n: usize| &self.blobs[named[n]];
        let note = self.random.below(NOTES);
        let manifest = content::image(blob(0), &[blob(1), blob(2)], None, note);
        loop {
            for n in &named {
                self.provide(*n);
            }
            let hesitation = self.random.pick(&HESITATION).copied().unwrap_or_default();
            thread::sleep(Duration::from_millis(hesitation));
            if self.push_manifest(&manifest, &named) {
                return;
            }
            self.tally.late += 1;
        }
    }

    /// Asks whether it is there, and brings it if it is not.
    fn provide(&mut self, n: usize) {
        let digest = self.blobs[n].digest.clone();
        let (found, sent) = self.ask("HEAD", &format!("blobs/{digest}"), "", b"");
        if found.status == 200 {
            self.told.insert(n, sent);
            return;
        }
        assert_eq!(found.status, 404);
        self.tally.collected += u64::from(self.told.remove(&n).is_some());
        match self.random.below(3) {
            0 => self.mount(n, &digest),
            1 => self.push_in_chunks(n, &digest),
            _ => self.push_whole(n, &digest),
        }
    }

    fn push_whole(&mut self, n: usize, digest: &str) {
        let bytes = self.blobs[n].bytes.clone();
        let (done, sent) = self.ask("POST", &format!("blobs/uploads/?digest={digest}"), "", &bytes);
        assert_eq!(done.status, 201, "{}", done.text());
        self.told.insert(n, sent);
    }

    fn mount(&mut self, n: usize, digest: &str) {
        let from = name(self.random.below(CLIENTS));
        let (done, sent) = self.ask("POST", &format!("blobs/uploads/?mount={digest}&from={from}"), "", b"");
        match done.status {
            201 => {
                self.tally.mounts += 1;
                self.told.insert(n, sent);
            }
            // The other does not have it.
            202 => self.push_whole(n, digest),
            status => panic!("mount: {status} {}", done.text()),
        }
    }

    /// In two, and whole where a chunk was not answered.
    fn push_in_chunks(&mut self, n: usize, digest: &str) {
        let bytes = self.blobs[n].bytes.clone();
        let (first, rest) = bytes.split_at(self.random.below(bytes.len() + 1));
        let started = self.ask("POST", "blobs/uploads/", "", b"").0;
        assert_eq!(started.status, 202, "{}", started.text());
        let location = started.header("location").to_owned();
        for chunk in [first, rest] {
            match self.ask_once("PATCH", &location, "", chunk) {
                Some(reply) => assert_eq!(reply.status, 202, "{}", reply.text()),
                None => return self.push_whole(n, digest),
            }
        }
        let (done, sent) = self.ask("PUT", &format!("{location}?digest={digest}"), "", b"");
        assert_eq!(done.status, 201, "{}", done.text());
        self.told.insert(n, sent);
    }

    fn abandon_an_upload(&mut self) {
        let n = self.random.below(self.blobs.len());
        let bytes = self.blobs[n].bytes.clone();
        let started = self.ask("POST", "blobs/uploads/", "", b"").0;
        let location = started.header("location").to_owned();
        let _ = self.ask_once("PATCH", &location, "", &bytes);
    }

    /// `false`: its blobs are gone, which none may be that it was told is there so lately.
    fn push_manifest(&mut self, manifest: &str, named: &[usize]) -> bool {
        let digest = content::sha256(manifest.as_bytes());
        let tag = if self.random.one_in(3) { None } else { self.random.pick(&TAGS).copied() };
        let path = format!("manifests/{}", tag.unwrap_or(&digest));
        let headers = format!("Content-Type: {MANIFEST}\r\n");
        let (reply, _) = self.ask("PUT", &path, &headers, manifest.as_bytes());
        if reply.status == 400 && reply.text().contains("MANIFEST_BLOB_UNKNOWN") {
            // An image that is there keeps its blobs for ever.
            assert!(!self.images.contains_key(&digest), "the blobs of {digest}: {}", reply.text());
            let gone = |n: &&usize| reply.text().contains(&self.blobs[**n].digest);
            for n in named.iter().filter(gone) {
                let age = self.told.get(n).map(Instant::elapsed).unwrap_or_default();
                assert!(age > PROMISE, "promised {age:?} ago: {}", reply.text());
            }
            return false;
        }
        assert_eq!(reply.status, 201, "{}", reply.text());
        self.tally.manifests += 1;
        self.images.insert(digest.clone(), (manifest.to_owned(), named.to_vec()));
        if let Some(tag) = tag {
            self.tags.insert(tag, digest);
        }
        true
    }

    fn some_image(&mut self) -> Option<String> {
        let digests: Vec<_> = self.images.keys().cloned().collect();
        self.random.pick(&digests).cloned()
    }

    fn move_a_tag(&mut self) {
        let Some(digest) = self.some_image() else { return };
        let (manifest, named) = self.images[&digest].clone();
        assert!(self.push_manifest(&manifest, &named));
    }

    fn delete(&mut self, path: &str) -> u16 {
        self.tally.deletes += 1;
        self.ask("DELETE", path, "", b"").0.status
    }

    fn delete_a_tag(&mut self) {
        let tags: Vec<_> = self.tags.keys().copied().collect();
        let Some(tag) = self.random.pick(&tags) else { return };
        let status = self.delete(&format!("manifests/{tag}"));
        assert!(status == 202 || status == 404 && self.repeated, "{status}");
        self.tags.remove(tag);
    }

    fn delete_an_image(&mut self) {
        if let Some(digest) = self.some_image() {
            self.delete_image(&digest);
        }
    }

    fn delete_image(&mut self, digest: &str) {
        let status = self.delete(&format!("manifests/{digest}"));
        assert!(status == 202 || status == 404 && self.repeated, "{status}");
        self.images.remove(digest);
        self.tags.retain(|_, of| *of != digest);
    }

    /// By the command, which is one more replica.
    fn delete_and_restore_an_image(&mut self) {
        let Some(digest) = self.some_image() else { return };
        let image = self.images[&digest].clone();
        // Not since the answer: a delete is dated when it is done, and may be answered seconds later, and by another
        // replica.
        let asked = Instant::now();
        self.delete_image(&digest);
        let hesitation = self.random.pick(&HESITATION).copied().unwrap_or_default();
        thread::sleep(Duration::from_millis(hesitation));
        match fleet::restore(self.store, SETUP.options, &format!("{}@{digest}", self.repository)) {
            Ok(said) => {
                self.tally.restores += 1;
                for tag in TAGS {
                    if said.contains(&format!("{}:{tag} points to {digest}", self.repository)) {
                        self.tags.insert(tag, digest.clone());
                    }
                }
                self.images.insert(digest, image);
            }
            Err(why) => assert!(asked.elapsed() > RESTORABLE, "deleted {:?} ago: {why}", asked.elapsed()),
        }
    }

    /// One that no image here needs, and which the collector may be about to take.
    fn delete_a_blob(&mut self) {
        let n = self.random.below(self.blobs.len());
        if self.images.values().any(|(_, named)| named.contains(&n)) {
            return;
        }
        let status = self.delete(&format!("blobs/{}", self.blobs[n].digest));
        assert!(matches!(status, 202 | 404), "{status}");
        self.told.remove(&n);
    }

    fn pull_one(&mut self) {
        if let Some(digest) = self.some_image() {
            self.pull(&digest);
        }
    }

    /// To the last byte.
    fn pull(&mut self, digest: &str) {
        let (manifest, named) = self.images[digest].clone();
        let pulled = self.ask("GET", &format!("manifests/{digest}"), "", b"").0;
        assert!(pulled.status == 200 && pulled.body == manifest.as_bytes(), "{digest}: {}", pulled.text());
        for n in named {
            let blob = self.blobs[n].digest.clone();
            let pulled = self.ask("GET", &format!("blobs/{blob}"), "", b"").0;
            assert!(
                pulled.status == 200 && pulled.body == self.blobs[n].bytes,
                "{blob} of {digest}: {}",
                pulled.status
            );
        }
    }

    fn pull_all(&mut self) {
        for digest in self.images.keys().cloned().collect::<Vec<_>>() {
            self.pull(&digest);
        }
        for (tag, digest) in self.tags.clone() {
            let pulled = self.ask("GET", &format!("manifests/{tag}"), "", b"").0;
            assert!(pulled.status == 200 && content::sha256(&pulled.body) == digest, "{tag}: {}", pulled.text());
        }
    }

    fn delete_all(&mut self) {
        for digest in self.images.keys().cloned().collect::<Vec<_>>() {
            self.delete_image(&digest);
        }
    }
}

fn name(client: usize) -> String {
    format!("collect/{client}")
}
