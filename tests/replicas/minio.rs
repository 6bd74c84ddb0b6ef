//! A real store, as a process that can be stopped and made to hang.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    fleet,
    load::{content::Random, http},
};

pub(crate) const KEY_ID: &str = "testkey";
pub(crate) const SECRET: &str = "testsecret";
pub(crate) const BUCKET: &str = "registry";
pub(crate) const PREFIX: &str = "images";

pub(crate) struct Minio {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    child: Child,
}

impl Minio {
    /// With one bucket, empty.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let address = free_address();
        let child = spawn(address, &directory);
        Self { address, directory, child }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On what was left.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.address, &self.directory);
    }

    /// From now on it takes connections and says nothing.
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns once it answers.
fn spawn(address: SocketAddr, directory: &TempDir) -> Child {
    let mut child = Command::new(env::var_os("MINIO").unwrap_or_else(|| "minio".into()))
        .arg("server")
        .arg(directory.path())
        .args(["--address", &address.to_string()])
        .envs([("MINIO_ROOT_USER", KEY_ID), ("MINIO_ROOT_PASSWORD", SECRET), ("MINIO_BROWSER", "off")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    fleet::wait_until("MinIO is ready", || {
        assert!(child.try_wait().unwrap().is_none(), "MinIO ended");
        http::send(address, "GET", "/minio/health/ready", "", b"").is_ok_and(|reply| reply.status == 200)
    });
    child
}

/// Below the ports of outgoing connections, so that it can be had again, and never the same for two tests.
fn free_address() -> SocketAddr {
    static RANDOM: Mutex<Option<Random>> = Mutex::new(None);
    let mut random = RANDOM.lock().unwrap();
    let random = random.get_or_insert_with(|| Random(std::process::id().into()));
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + u16::try_from(random.below(10_000)).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
