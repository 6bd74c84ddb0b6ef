//! The real command as a child process.

use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use marina_distribution::{registry, store::fs::FsStore};

use crate::load::http::{self, Reply};

pub(crate) const MIB: usize = 1 << 20;
pub(crate) const REGISTRY: &str = env!("CARGO_BIN_EXE_marina-distribution");

/// A running registry. Killed with `kill -9` when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Returns once it listens.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub(crate) fn start_with(data: &Path, settings: &[&str]) -> Self {
        Self::start_by(Command::new(REGISTRY), data, settings)
    }

    /// By a command that takes over from the process that is started.
    pub(crate) fn start_by(command: Command, data: &Path, settings: &[&str]) -> Self {
        let mut child = spawn_by(command, data, settings);
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("listening") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "it ended before it listened: {said}");
        }
        let line: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let address = line["address"].as_str().unwrap().parse().unwrap();
        // The log must be read on, or the registry would wait for it.
        thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Self { child, address }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(self) {
        drop(self);
    }

    /// A whole request on a connection of its own, and the whole answer.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        http::send(self.address, method, path, headers, body).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the command without waiting for anything.
pub(crate) fn spawn(data: &Path, settings: &[&str]) -> Child {
    spawn_by(Command::new(REGISTRY), data, settings)
}

fn spawn_by(mut command: Command, data: &Path, settings: &[&str]) -> Child {
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
        .arg(data)
        .args(settings)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Checks what is in a directory, and demands that nothing is found.
pub(crate) fn check(data: &Path) {
    let store = Arc::new(FsStore::open(data).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut findings = Vec::new();
    runtime.block_on(registry::check::check(store, |finding| findings.push(finding.to_string()))).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}
