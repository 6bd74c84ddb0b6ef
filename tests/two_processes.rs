//! Two processes on one directory: nothing but the directory keeps them apart.
//!
//! Each test starts itself twice over, as the two writers, and then judges what they report.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use bytes::Bytes;
use marina_distribution::store::{Condition, Key, Put, Span, Store, fs::FsStore};
use tokio::time::Instant;

const ROUNDS: usize = 60;
const DIRECTORY: &str = "TWO_PROCESSES_DIRECTORY";
const WRITER: &str = "TWO_PROCESSES_WRITER";

/// One of the two.
struct Writer {
    number: usize,
    directory: PathBuf,
    store: FsStore,
}

impl Writer {
    /// Waits until the other has come as far: what both do next, they do at once.
    fn meet(&self, round: usize) {
        let at = |number: usize| self.directory.join(format!("met-{round}-{number}"));
        fs::write(at(self.number), "").unwrap();
        let start = Instant::now();
        while !at(1 - self.number).exists() {
            assert!(start.elapsed() < Duration::from_mins(1), "the other did not come to round {round}");
            thread::yield_now();
        }
    }
}

/// Runs the test of this name in two processes; what each reports, and the store as they leave it. In such a process it
/// does the work and ends there.
fn in_two_processes(test: &str, work: &impl AsyncFn(&Writer) -> String) -> ([String; 2], FsStore, tempfile::TempDir) {
    if let (Ok(directory), Ok(number)) = (env::var(DIRECTORY), env::var(WRITER)) {
        let (directory, number) = (PathBuf::from(directory), number.parse().unwrap());
        let store = FsStore::open(&directory.join("store")).unwrap();
        let writer = Writer { number, directory, store };
        let report = block_on(work(&writer));
        fs::write(report_of(&writer.directory, number), report).unwrap();
        std::process::exit(0);
    }
    let directory = tempfile::tempdir().unwrap();
    let start = |number: usize| {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(WRITER, number.to_string())
            .spawn()
            .unwrap()
    };
    let ends = [start(0), start(1)].map(|mut process| process.wait().unwrap());
    assert!(ends.iter().all(ExitStatus::success), "{ends:?}");
    let reports = [0, 1].map(|number| fs::read_to_string(report_of(directory.path(), number)).unwrap());
    let store = FsStore::open(&directory.path().join("store")).unwrap();
    (reports, store, directory)
}

fn report_of(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("report-{number}"))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn key(text: impl Into<String>) -> Key {
    Key::parse(text).unwrap()
}

/// What a writer puts: long enough to be torn, and telling whose it is.
fn bytes(seed: usize) -> Bytes {
    format!("{seed};").repeat(20_000 + seed).into()
}

async fn read(store: &FsStore, key: &Key) -> Bytes {
    store.read(key).await.unwrap().unwrap_or_else(|| panic!("{key} is absent")).bytes
}

#[test]
fn of_two_processes_that_create_one_wins() {
    let (reports, store, _kept) = in_two_processes("of_two_processes_that_create_one_wins", &async |writer| {
        let mut report = String::new();
        for round in 0..ROUNDS {
            writer.meet(round);
            // Every round in a new folder: making it is a race as well.
            let key = key(format!("folder-{round}/deep/object"));
            let put = writer.store.put(&key, bytes(writer.number), Condition::Create).await.unwrap();
            report.push(if put == Put::Lost { '-' } else { 'w' });
            let there = read(&writer.store, &key).await;
            assert!(there == bytes(0) || there == bytes(1), "torn");
        }
        report
    });
    for (round, outcome) in reports[0].chars().zip(reports[1].chars()).enumerate() {
        let winner = match outcome {
            ('w', '-') => 0,
            ('-', 'w') => 1,
            both => panic!("round {round}: {both:?}"),
        };
        let there = block_on(read(&store, &key(format!("folder-{round}/deep/object"))));
        assert!(there == bytes(winner), "round {round}: not what the winner wrote");
    }
    assert_eq!(reports[0].len(), ROUNDS);
}

#[test]
fn of_two_processes_that_replace_one_wins() {
    let (reports, store, _kept) = in_two_processes("of_two_processes_that_replace_one_wins", &async |writer| {
        let key = key("tags/latest");
        // One of them creates it, and whoever loses that goes on all the same.
        writer.store.put(&key, bytes(0), Condition::Create).await.unwrap();
        let mut report = String::new();
        for round in 0..ROUNDS {
            writer.meet(2 * round);
            let version = writer.store.read(&key).await.unwrap().unwrap().version;
            // Both have read the same.
            writer.meet(2 * round + 1);
            let next = bytes(1 + 2 * round + writer.number);
            let put = writer.store.put(&key, next, Condition::Replace(version)).await.unwrap();
            report.push(if put == Put::Lost { '-' } else { 'w' });
        }
        report
    });
    let mut last = None;
    for (round, outcome) in reports[0].chars().zip(reports[1].chars()).enumerate() {
        last = match outcome {
            ('w', '-') => Some(bytes(1 + 2 * round)),
            ('-', 'w') => Some(bytes(2 + 2 * round)),
            both => panic!("round {round}: {both:?}"),
        };
    }
    assert!(block_on(read(&store, &key("tags/latest"))) == last.unwrap(), "not what the last winner wrote");
}

#[test]
fn a_process_sees_whole_objects_and_full_listings_while_another_writes() {
    const LAST: &str = "tags/z-last";
    let name = "a_process_sees_whole_objects_and_full_listings_while_another_writes";
    let there = || (0..20).map(|index| key(format!("tags/there-{index}")));
    let (_, store, _kept) = in_two_processes(name, &async |writer| {
        let store = &writer.store;
        if writer.number == 0 {
            for key in there() {
                store.put(&key, bytes(0), Condition::Create).await.unwrap();
            }
        }
        writer.meet(0);
        if writer.number == 0 {
            for round in 1..=ROUNDS {
                let key = there().nth(round % 20).unwrap();
                let version = store.read(&key).await.unwrap().unwrap().version;
                assert_ne!(store.put(&key, bytes(round), Condition::Replace(version)).await.unwrap(), Put::Lost);
                let passing = self::key(format!("tags/passing-{round}"));
                store.put(&passing, bytes(round), Condition::Create).await.unwrap();
                store.delete(&passing).await.unwrap();
            }
            store.put(&key(LAST), bytes(0), Condition::Create).await.unwrap();
            return String::new();
        }
        loop {
            let listed = store.list("tags/", None, 1000).await.unwrap();
            for key in there() {
                assert!(listed.iter().any(|entry| entry.key == key), "{key} is not listed");
                let there = read(store, &key).await;
                let seed: usize = std::str::from_utf8(&there).unwrap().split(';').next().unwrap().parse().unwrap();
                assert!(there == bytes(seed), "{key} is torn");
                let size = store.open(&key, Span::ALL).await.unwrap().unwrap().size;
                assert!((0..=ROUNDS).any(|seed| bytes(seed).len() as u64 == size), "{key} has {size} bytes");
            }
            if listed.iter().any(|entry| entry.key.as_str() == LAST) {
                return String::new();
            }
        }
    });
    assert_eq!(block_on(store.list("tags/", None, 1000)).unwrap().len(), 21);
}
