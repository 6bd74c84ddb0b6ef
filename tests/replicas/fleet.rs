//! Replicas of the real command on one bucket, with clocks of their own, behind a balancer.

use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use marina_distribution::store::{
    Entry, Span, Store,
    s3::{Credentials, ListOrder, S3Settings, S3Store},
};
use tokio::runtime::Builder;

use crate::{
    balancer::Balancer,
    load::http::{self, Reply},
    minio::{BUCKET, KEY_ID, PREFIX, SECRET},
};

/// How often a client that is put off comes back.
pub(crate) const COMES_BACK: usize = 20;
/// How often it is asked whether something has come about: for two minutes at least.
const ASKS: usize = 2400;

pub(crate) struct Fleet {
    /// Where the replicas reach the store.
    store: SocketAddr,
    setup: Setup,
    pub(crate) replicas: Vec<Replica>,
    balancer: Balancer,
}

/// Killed with `kill -9` when dropped.
pub(crate) struct Replica {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// How the replicas run.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// How far the clock of each is off.
    pub(crate) clocks: [Option<&'static str>; 3],
    pub(crate) options: &'static [&'static str],
}

impl Fleet {
    pub(crate) fn start(store: SocketAddr) -> Self {
        Self::start_as(store, Setup { clocks: [Some("-1h"), Some("+1h"), None], options: &[] })
    }

    pub(crate) fn start_as(store: SocketAddr, setup: Setup) -> Self {
        let replicas: Vec<_> = (0..setup.clocks.len()).map(|number| Replica::start(store, setup, number)).collect();
        let balancer = Balancer::start(replicas.iter().map(|replica| replica.address).collect());
        Self { store, setup, replicas, balancer }
    }

    /// Of the balancer.
    pub(crate) fn address(&self) -> SocketAddr {
        self.balancer.address
    }

    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.replicas[number].kill();
        self.balancer.replace(number, None);
    }

    /// Returns once it listens.
    pub(crate) fn start_again(&mut self, number: usize) {
        self.replicas[number] = Replica::start(self.store, self.setup, number);
        self.balancer.replace(number, Some(self.replicas[number].address));
    }

    /// Returns once all replicas are ready.
    pub(crate) fn wait_until_ready(&self) {
        for replica in &self.replicas {
            let is_ready = || http::send(replica.address, "GET", "/readyz", "", b"").unwrap().status == 200;
            wait_until("a replica is ready", is_ready);
        }
    }

    /// A whole request through the balancer, again if it is put off.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        send(self.address(), method, path, headers, body)
    }

    pub(crate) fn send_once(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        http::send(self.address(), method, path, headers, body).unwrap()
    }
}

impl Replica {
    fn start(store: SocketAddr, setup: Setup, number: usize) -> Self {
        let mut child = spawn(store, setup, number);
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut lines, mut line) = (String::new(), String::new());
        while !line.contains("\"listening\"") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it listened: {lines}");
            lines.push_str(&line);
        }
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap().parse().unwrap();
        // The log must be read on, or the replica would wait for it.
        let mut kept: Box<dyn io::Write + Send> = match env::var_os("REPLICAS_LOGS") {
            Some(directory) => {
                Box::new(File::create(Path::new(&directory).join(format!("{}.log", child.id()))).unwrap())
            }
            None => Box::new(io::sink()),
        };
        thread::spawn(move || io::copy(&mut log, &mut kept));
        Self { child, address }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The most memory that it has had at any time, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// A whole request to this replica, again if it is put off.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        send(self.address, method, path, headers, body)
    }

    pub(crate) fn send_once(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        http::send(self.address, method, path, headers, body).unwrap()
    }
}

/// A whole request, again if it is put off, as clients do: a real store now and then has too much to do for a moment.
pub(crate) fn send(server: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let mut reply = http::send(server, method, path, headers, body).unwrap();
    for _ in 0..COMES_BACK {
        if !reply.is_put_off() {
            break;
        }
        thread::sleep(Duration::from_secs(reply.header("retry-after").parse().unwrap()));
        reply = http::send(server, method, path, headers, body).unwrap();
    }
    reply
}

/// Asks now and then, and in the end gives up: what never comes must not be waited for until CI is cut.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..ASKS {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("in vain was it waited until {what}");
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(store: SocketAddr, setup: Setup, number: usize) -> Child {
    let mut command = marina("serve", store);
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).args(setup.options).stderr(Stdio::piped());
    if let Some(offset) = setup.clocks[number] {
        set_clock(&mut command, offset);
    }
    command.spawn().unwrap()
}

fn set_clock(command: &mut Command, offset: &str) {
    let library = env::var("FAKETIME_LIBRARY").expect("FAKETIME_LIBRARY: where libfaketimeMT.so.1 is");
    // What passes is the same for all: a process trusts its monotonic clock.
    command.envs([("LD_PRELOAD", &*library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
}

/// One round of the collector, by the command and with its clock this far off.
pub(crate) fn collect(store: SocketAddr, offset: &str) {
    let mut command = marina("gc", store);
    set_clock(command.arg("--once"), offset);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Puts back what was deleted, by the command. What it says, or why it did not.
pub(crate) fn restore(store: SocketAddr, options: &[&str], what: &str) -> Result<String, String> {
    let output = marina("restore", store).arg(what).args(options).output().unwrap();
    let [said, why] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    if output.status.success() { Ok(said) } else { Err(why) }
}

fn marina(command: &str, store: SocketAddr) -> Command {
    let mut marina = Command::new(env!("CARGO_BIN_EXE_marina-distribution"));
    marina.arg(command).args(["--store", &format!("s3://{BUCKET}/{PREFIX}")]);
    marina.args(["--s3-endpoint", &format!("http://{store}")]);
    marina.envs([("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    marina
}

/// Demands that the command `check` finds nothing, and that all bytes are named by something that leads to them.
pub(crate) fn check(store: SocketAddr) {
    let output = marina("check", store).arg("--deep").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(walk(store));
}

/// Everything in the bucket.
pub(crate) fn objects(store: SocketAddr) -> Vec<Entry> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { list(&*open(store).await, "").await })
}

async fn open(store: SocketAddr) -> Arc<dyn Store> {
    let settings = S3Settings {
        prefix: PREFIX.into(),
        endpoint: Some(format!("http://{store}")),
        path_style: true,
        credentials: Credentials::Static {
            access_key_id: KEY_ID.into(),
            secret_access_key: SECRET.into(),
            session_token: None,
        },
        list_order: if env::var_os("COLLECT_STORE").is_some() { ListOrder::Paths } else { ListOrder::Bytes },
        ..S3Settings::new(BUCKET)
    };
    Arc::new(S3Store::open(settings).await)
}

async fn list(store: &dyn Store, prefix: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let page = store.list(prefix, entries.last().map(|entry| &entry.key), 1000).await.unwrap();
        if page.is_empty() {
            return entries;
        }
        entries.extend(page);
    }
}

/// What nothing names is garbage that nobody would ever find. Names are read in the order in which a collector at work
/// hands them on.
async fn walk(store: SocketAddr) {
    let store = open(store).await;
    let mut named = Vec::new();
    for prefix in ["blobs/", "uploads/", "pending/", "dropped/", "gc/bytes/"] {
        for entry in list(&*store, prefix).await {
            // What the first bytes do not name, the rest does not: journals name their place before their tail.
            if let Some(object) = store.open(&entry.key, Span::first(64 << 10)).await.unwrap() {
                let mut body = object.body.into_stream();
                while let Some(bytes) = body.next().await {
                    named.extend_from_slice(&bytes.unwrap());
                }
                named.push(b'\n');
            }
        }
    }
    let named = String::from_utf8_lossy(&named);
    let data = list(&*store, "data/").await;
    let unnamed: Vec<_> = data.iter().filter(|entry| !named.contains(entry.key.as_str())).collect();
    assert!(unnamed.is_empty(), "nothing leads to {unnamed:?}");
}
