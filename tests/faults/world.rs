//! A store, the replicas on it, and what clients can see.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use marina_distribution::{
    registry::{Clock, Registry, SessionId, Settings},
    store::{
        Limits, Store,
        faulty::{Call, Fault, Faulty},
        memory::{MemoryStore, TINY_PARTS},
    },
};

use crate::{
    operation::{BIG, Client, Doc, LONG, Op, Outcome, SMALL, Session, repository},
    walk::{self, Objects},
};

/// Parts as S3 wants them, and as a disk takes them.
pub(crate) const LIMITS: [Limits; 2] = [TINY_PARTS, Limits { min_part: 1, uniform_parts: false, ..TINY_PARTS }];

/// What happens to a call, by its index since the plan was made.
type Plan = Box<dyn Fn(usize) -> Fault + Send + Sync>;

pub(crate) struct World {
    memory: Arc<MemoryStore>,
    pub(crate) faulty: Arc<Faulty>,
    plan: Arc<Mutex<(usize, Plan)>>,
    sessions: [SessionId; 3],
    later: Arc<Registry>,
    /// A replica with which nothing ever goes wrong, and its clock.
    observer: Arc<Registry>,
    today: Arc<Day>,
    /// What was seen last, and of which objects: as long as nothing changes nothing need be asked.
    seen: Mutex<(Objects, View)>,
    /// The objects of which nothing was found wrong.
    sound: Mutex<Objects>,
}

/// What clients can see: a line for each question, with its answer.
pub(crate) type View = BTreeMap<String, Outcome>;

/// A clock that stands so many days after the beginning.
#[derive(Debug)]
struct Day(AtomicU32);

impl Clock for Day {
    fn now(&self) -> SystemTime {
        let days = self.0.load(Ordering::Relaxed);
        SystemTime::UNIX_EPOCH + Duration::from_hours(24) * (20_000 + days)
    }
}

impl World {
    /// A store on which all this has been done, and the client who did it.
    pub(crate) async fn after(limits: Limits, done: &[Op]) -> (Self, Client) {
        let memory = Arc::new(MemoryStore::new(limits));
        let plan: Arc<Mutex<(usize, Plan)>> = Arc::new(Mutex::new((0, Box::new(|_| Fault::None))));
        let planned = Arc::clone(&plan);
        let faulty = Arc::new(Faulty::new(memory.clone(), move |call: &Call| {
            let plan = planned.lock().unwrap();
            call.index.checked_sub(plan.0).map_or(Fault::None, &plan.1)
        }));
        let today = Arc::new(Day(AtomicU32::new(0)));
        let observer = open(memory.clone(), Arc::clone(&today)).await;
        let later = open(faulty.clone(), Arc::new(Day(AtomicU32::new(3)))).await;
        let sessions = Session::ALL.map(|session| observer.start_upload(&repository("a"), session.announced()));
        let (seen, sound) = (Mutex::default(), Mutex::default());
        let world = Self { memory, faulty, plan, sessions, later, observer, today, seen, sound };
        let client = world.client().await;
        for op in done {
            let outcome = client.run(op).await;
            assert!(matches!(outcome, Outcome::Done(_)) || op.is_torn(), "{op:?}: {outcome:?}");
        }
        client.settle().await;
        (world, client)
    }

    /// A client of another replica.
    pub(crate) async fn client(&self) -> Client {
        let registry = open(self.faulty.clone(), Arc::new(Day(AtomicU32::new(0)))).await;
        Client { registry, later: Arc::clone(&self.later), sessions: self.sessions }
    }

    /// From here on this goes wrong, with calls counted from 0.
    pub(crate) fn plan(&self, plan: impl Fn(usize) -> Fault + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = (self.faulty.calls().len(), Box::new(plan));
    }

    pub(crate) fn heal(&self) {
        self.plan(|_| Fault::None);
    }

    /// The calls made since the plan.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.faulty.calls().split_off(self.plan.lock().unwrap().0)
    }

    /// What a client of yet another replica sees.
    pub(crate) async fn view(&self) -> View {
        let mut objects = walk::objects(&self.memory).await;
        // Queues are nothing that a client can see.
        objects.retain(|key, _| !["pending/", "dropped/", "gc/"].iter().any(|queue| key.starts_with(queue)));
        let (before, view) = self.seen.lock().unwrap().clone();
        if objects == before {
            return view;
        }
        let registry = Arc::clone(&self.observer);
        let client = Client { later: registry.clone(), registry, sessions: self.sessions };
        let mut view = View::new();
        let blobs = ["a", "b"].iter().flat_map(|repo| [SMALL, BIG, LONG].map(|blob| (*repo, blob)));
        let blobs = blobs.map(|(repo, blob)| Op::Read(repo, blob));
        let docs = Doc::ALL.iter().flat_map(|&doc| [Op::Get(doc), Op::Referrers(doc)]);
        let tags = ["t", "u", "v"].iter().map(|tag| Op::GetTag(tag));
        for op in blobs.chain(docs).chain(tags).chain([Op::Tags, Op::Catalog]) {
            view.insert(format!("{op:?}"), client.run(&op).await);
        }
        // How far a session has come is asked by what follows; here only whether it is open.
        for session in Session::ALL {
            let open = match client.run(&Op::Status(session)).await {
                Outcome::Done(_) => Outcome::Done("open".to_owned()),
                other => other,
            };
            view.insert(session_line(session), open);
        }
        *self.seen.lock().unwrap() = (objects, view.clone());
        view
    }

    /// What is wrong with what is stored.
    pub(crate) async fn findings(&self) -> Vec<String> {
        let objects = walk::objects(&self.memory).await;
        if *self.sound.lock().unwrap() == objects {
            return Vec::new();
        }
        let findings = walk::findings(&self.memory, &objects).await;
        if findings.is_empty() {
            *self.sound.lock().unwrap() = objects;
        }
        findings
    }

    /// The same when everything that is to expire has: then no upload and no reference in flight is left.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        // Twice, as one round may have to wait for another; the last one much later, when marks of sessions go as well.
        for day in [3, 3, 10] {
            self.today.0.store(day, Ordering::Relaxed);
            self.observer.expire().await.unwrap();
            self.observer.settle().await;
        }
        self.today.0.store(0, Ordering::Relaxed);
        let mut left = self.findings().await;
        for prefix in ["uploads/", "pending/"] {
            let entries = self.memory.list(prefix, None, usize::MAX).await.unwrap();
            left.extend(entries.into_iter().map(|entry| format!("{} is left", entry.key)));
        }
        left
    }
}

pub(crate) fn session_line(session: Session) -> String {
    format!("{session:?}")
}

/// A view without what expires.
pub(crate) fn lasting(mut view: View) -> View {
    for session in Session::ALL {
        view.remove(&session_line(session));
    }
    view
}

async fn open(store: Arc<dyn Store>, clock: Arc<Day>) -> Arc<Registry> {
    Registry::open_with(store, Settings::default(), clock).await.unwrap()
}
