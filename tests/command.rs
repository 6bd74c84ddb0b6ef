//! The command as an operator meets it: the real binary, its arguments, its environment and its signals.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Repository},
    registry::{Chunk, Registry, Settings},
    store::fs::FsStore,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tokio::runtime::Runtime;

/// The binary, in an empty directory and with no variables but its own.
fn marina(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marina-distribution"));
    command.env_clear().current_dir(dir).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A server that runs until the test is over.
struct Server {
    child: Child,
    address: SocketAddr,
    /// What was logged, from the line after the first.
    log: BufReader<ChildStderr>,
    first_line: serde_json::Value,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["serve", "--listen", "127.0.0.1:0"].iter().chain(arguments);
        let mut child = marina(dir.path()).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let first_line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        let address = first_line["address"].as_str().unwrap().parse().unwrap();
        Self { child, address, log, first_line, dir }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// A connection that has sent the half of a request, and the server has read it.
    fn begin(&self) -> TcpStream {
        let mut client = self.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n").unwrap();
        // Nothing tells when a part of a header was read; but what comes later was answered.
        for _ in 0..20 {
            assert!(ask(self.connect()).starts_with("HTTP/1.1 "));
        }
        client
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Reads the log up to the line with this message.
    fn wait_for(&mut self, message: &str) {
        let mut lines = String::new();
        loop {
            let before = lines.len();
            assert_ne!(self.log.read_line(&mut lines).unwrap(), 0, "the log ended without {message:?}: {lines}");
            if lines[before..].contains(&format!("\"message\":\"{message}\"")) {
                return;
            }
        }
    }

    /// The line of the next request with this method.
    fn logged(&mut self, method: &str) -> serde_json::Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the log ended without a {method}");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["method"] == method {
                return line;
            }
        }
    }

    fn exit_code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request and reads until the server closes the connection.
fn ask(client: TcpStream) -> String {
    ask_for(client, "GET /")
}

fn ask_for(mut client: TcpStream, what: &str) -> String {
    write!(client, "{what} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_help_names_commands_settings_and_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let (code, help, _) = run(marina(dir.path()).arg("--help"));
    assert_eq!(code, 0);
    for part in [
        "serve",
        "check",
        "doctor",
        "health",
        "config",
        "--listen <ADDR>",
        "127.0.0.1:5000",
        "./registry-data",
        "MARINA_LISTEN",
    ] {
        assert!(help.contains(part), "{part} is missing:\n{help}");
    }
    let (code, version, _) = run(marina(dir.path()).arg("--version"));
    assert_eq!((code, version.as_str()), (0, concat!("marina-distribution ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn what_cannot_run_exits_with_2_and_one_line_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(marina(dir.path()).args(["config", "--config", "none.toml"]));
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: cannot read the configuration file none.toml: No such file"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    let (code, _, stderr) = run(marina(dir.path()).env("MARINA_LISTN", "x"));
    assert_eq!(code, 2);
    assert_eq!(stderr, "error: MARINA_LISTN: there is no setting listn; did you mean MARINA_LISTEN?\n");

    std::fs::write(dir.path().join("ca.pem"), "no").unwrap();
    let (code, _, stderr) = run(marina(dir.path()).args(["serve", "--store", "s3://b", "--s3-ca-file", "ca.pem"]));
    assert_eq!((code, stderr.as_str()), (2, "error: s3_ca_file ca.pem: there is no certificate in it\n"));

    let secret = ["--s3-access-key-id", "id", "--s3-secret-access-key-file", "none"];
    let (code, _, stderr) = run(marina(dir.path()).args(["serve", "--store", "s3://b"]).args(secret));
    assert!(code == 2 && stderr.starts_with("error: s3_secret_access_key_file none: No such file"), "{stderr}");

    for command in [&["serve"][..], &["doctor"], &["check"]] {
        let (code, _, stderr) = run(marina(dir.path()).args(command).args(["--store", "ca.pem"]));
        assert!(code == 2 && stderr.ends_with(": it is not a directory\n"), "{command:?}: {stderr}");
    }
    for (command, why) in [
        (&["explain", "sha256:abc"][..], "sha256:abc: not a digest"),
        (&["explain", "a@sha256:12"], "sha256:12: not a digest"),
        (&["restore", "a@sha256:12"], "sha256:12: not a digest"),
        (&["tags", "restore", "a:b", "--at", "noon"], "expected a time such as 2026-01-31T12:00:00Z, in UTC"),
        (&["tags", "restore", "a:b", "--at", "2999-01-31T12:00:00Z"], "that time is yet to come"),
    ] {
        let (code, _, stderr) = run(marina(dir.path()).args(command));
        assert!(code == 2 && stderr.contains(why), "{command:?}: {stderr}");
    }

    let (code, _, stderr) = run(marina(dir.path()).arg("--listn"));
    assert_eq!(code, 2);
    assert!(stderr.contains("'--listen'"), "{stderr}");
}

#[test]
fn config_prints_the_strongest_of_four_sources_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = "upload_expiry = '3h'\ndrain = '3s'\nidle_timeout = '3m'\n";
    fs::write(dir.path().join("marina.toml"), file).unwrap();
    let command = || {
        let mut command = marina(dir.path());
        command.env("MARINA_CONFIG", "marina.toml").env("MARINA_DRAIN", "2s").env("MARINA_UPLOAD_EXPIRY", "2h");
        command.args(["config", "--upload-expiry", "1h"]);
        command
    };
    let (code, printed, stderr) = run(&mut command());
    assert_eq!((code, stderr.as_str()), (0, ""));
    for line in [
        "upload_expiry = \"1h\"  # --upload-expiry",
        "drain = \"2s\"  # MARINA_DRAIN",
        "idle_timeout = \"3m\"  # marina.toml:3",
        "memory = \"32MiB\"  # default",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is missing:\n{printed}");
    }

    fs::write(dir.path().join("printed.toml"), &printed).unwrap();
    let (code, again, _) = run(marina(dir.path()).args(["config", "--config", "printed.toml"]));
    let values = |printed: &str| printed.parse::<toml::Table>().unwrap();
    assert_eq!((code, values(&again)), (0, values(&printed)));
}

#[test]
fn the_doctor_says_of_a_directory_that_it_is_safe_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (code, report, stderr) = run(marina(dir.path()).arg("doctor"));
    assert_eq!((code, stderr.as_str()), (0, ""), "{report}");
    assert!(report.contains("racing creates") && report.contains("1 of 20 won"), "{report}");
    assert!(report.ends_with("This store is safe for any number of replicas.\n"), "{report}");
    let (code, _, stderr) = run(marina(dir.path()).args(["check", "--store", "registry-data"]));
    assert_eq!((code, stderr.as_str()), (2, "error: there is no registry at registry-data\n"));
}

#[test]
fn only_a_server_begins_a_registry_and_all_else_says_that_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::create_dir_all(dir.path().join("documents/data/00")).unwrap();
    fs::write(dir.path().join("documents/data/00/letter"), "x").unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"");
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(dir.path().join(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for command in [
        &["check"][..],
        &["check", "--repair"],
        &["gc"],
        &["gc", "--dry-run"],
        &["gc", "--full"],
        &["retain"],
        &["explain", "a:b"],
        &["tags", "history", "a:b"],
        &["tags", "restore", "a:b"],
        &["restore", &format!("a@{digest}")],
    ] {
        for at in ["typo", "empty", "documents"] {
            let (code, out, stderr) = run(marina(dir.path()).args(command).args(["--store", at]));
            let expected = format!("error: there is no registry at {at}\n");
            assert_eq!((code, out.as_str(), stderr), (2, "", expected), "{command:?}");
        }
    }
    assert_eq!((names("."), names("empty")), (vec!["documents".into(), "empty".into()], vec![]));
    assert_eq!((names("documents"), names("documents/data")), (vec!["data".into()], vec!["00".into()]));
}

#[test]
fn a_registry_that_lost_its_session_key_or_came_without_its_locks_is_one() {
    let dir = tempfile::tempdir().unwrap();
    push_blob(dir.path(), vec![7]);
    fs::remove_dir_all(dir.path().join("fleet")).unwrap();
    fs::remove_dir_all(dir.path().join(".locks")).unwrap();
    let (code, summary, stderr) = run(marina(dir.path()).args(["check", "--store", "."]));
    assert_eq!((code, stderr.as_str()), (0, ""), "{summary}");
    assert!(summary.contains("1 blobs"), "{summary}");
}

#[test]
fn a_round_that_leaves_an_entry_as_it_is_says_so() {
    let dir = tempfile::tempdir().unwrap();
    begin(dir.path());
    let damaged = "dropped/a/00000000-0000-8000-8000-000000000000";
    fs::create_dir_all(dir.path().join("dropped/a")).unwrap();
    fs::write(dir.path().join(damaged), "x").unwrap();
    let (_, _, stderr) = run(marina(dir.path()).args(["gc", "--store", "."]));
    assert!(stderr.contains("left as it is") && stderr.contains(damaged), "{stderr}");
}

#[test]
fn nothing_is_written_to_a_bucket_in_which_there_is_no_registry() {
    let (dir, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let store = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            answer(&client.unwrap(), |request| {
                tell.send(request.to_owned()).unwrap();
                let is_list = request.contains("list-type=2");
                if is_list {
                    ("200 OK", "<ListBucketResult/>")
                } else {
                    ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>")
                }
            });
        }
    });
    for command in ["check", "gc", "retain"] {
        let (code, _, stderr) = run(&mut on_bucket(dir.path(), command, store));
        assert_eq!((code, stderr.as_str()), (2, "error: there is no registry at s3://bucket\n"));
    }
    let asked: Vec<String> = asked.try_iter().collect();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.starts_with("GET ")), "{asked:?}");
}

#[test]
fn a_check_exits_with_1_while_something_is_wrong_and_tells_it_in_lines_of_json_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str]| {
        let (code, out, stderr) = run(marina(dir.path()).args(["check", "--store", "."]).args(arguments));
        assert_eq!(stderr, "", "no line of progress but on a terminal");
        (code, out)
    };
    begin(dir.path());
    assert_eq!(check(&[]).0, 0);
    fs::write(dir.path().join("stray"), "x").unwrap();
    let (code, out) = check(&["--deep", "--repair", "--json", "--rate", "1GiB", "--sample", "1/2"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(code, 1);
    let reason = "is not a key of this registry";
    assert_eq!(lines[0], serde_json::json!({"finding": {"invariant": "key", "key": "stray", "reason": reason}}));
    assert_eq!((&lines[1]["summary"]["findings"], lines.len()), (&serde_json::json!(1), 2));
    // Behind it there is nothing.
    assert_eq!(check(&["--after", "stray"]).0, 0);
    for wrong in [
        &["--rate", "1MiB"][..],
        &["--deep", "--rate", "fast"],
        &["--deep", "--sample", "0%"],
        &["--after", "/"],
        // All keys of a registry sort before it.
        &["--after", "zzz"],
    ] {
        let (code, _, stderr) = run(marina(dir.path()).args(["check", "--store", "."]).args(wrong));
        assert_eq!(code, 2, "{wrong:?}");
        assert!(stderr.starts_with("error: "), "{wrong:?}: {stderr}");
    }
}

#[test]
fn a_check_that_is_stopped_says_where_to_go_on_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    // A page of findings.
    let child = long_check(dir.path(), (0..100).map(|n| format!("a{n:02}")));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(2), "error: stopped; to go on from there: --after a99\n"));
}

#[test]
fn a_check_that_nobody_reads_ends_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    let mut child = long_check(dir.path(), (0..3000).map(|n| format!("a{n:04}")));
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), stderr.as_slice()), (Some(128 + 13), &b""[..]));
}

/// A check that has told the first of these findings. Behind them is a blob that takes it a month to read.
fn long_check(dir: &Path, findings: impl Iterator<Item = String>) -> Child {
    push_blob(dir, vec![7; 1 << 20]);
    let findings: Vec<_> = findings.inspect(|name| fs::write(dir.join(name), "x").unwrap()).collect();
    let mut marina = marina(dir);
    marina.args(["check", "--store", ".", "--deep", "--rate", "1B"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = marina.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with(&format!("key  {}  ", findings[0])), "{line}");
    child
}

/// An empty registry.
fn begin(dir: &Path) {
    let store = Arc::new(FsStore::open(dir).unwrap());
    Runtime::new().unwrap().block_on(Registry::open(store, Settings::default())).unwrap();
}

/// Into a directory, without a server.
fn push_blob(dir: &Path, bytes: Vec<u8>) {
    let pushing = async {
        let registry = Registry::open(Arc::new(FsStore::open(dir).unwrap()), Settings::default()).await.unwrap();
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let length = Some(bytes.len() as u64);
        let body = Box::pin(stream::iter([Ok(Bytes::from(bytes))]));
        let chunk = Chunk { start: None, declared: None, length, body };
        registry.upload_whole(&Repository::parse("a").unwrap(), &digest, chunk).await.unwrap();
        registry.settle().await;
    };
    Runtime::new().unwrap().block_on(pushing);
}

#[test]
fn what_is_damaged_ends_no_round_and_no_check_and_shows_in_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    push_blob(dir.path(), vec![7]);
    let (code, out, _) = run(marina(dir.path()).args(["gc", "--store", "."]));
    assert_eq!(code, 0, "{out}");
    let folder = dir.path().join("dropped/a");
    fs::create_dir_all(&folder).unwrap();
    let name = "01900000-0000-7000-8000-000000000001";
    // One of whose segments is lost, and one that was never an entry.
    fs::create_dir(folder.join(format!("{name}#"))).unwrap();
    fs::write(folder.join(format!("{name}#/0000000000000001-1")), "x").unwrap();
    fs::write(folder.join(name.replace("1900", "1901")), "no entry").unwrap();
    for _ in 0..2 {
        let (code, out, stderr) = run(marina(dir.path()).args(["gc", "--store", "."]));
        assert!(code == 1 && out.ends_with(", 2 steps given up\n"), "{code} {out}");
        assert!(stderr.contains("segments are missing"), "{stderr}");
    }
    let (code, out, _) = run(marina(dir.path()).args(["check", "--deep", "--store", "."]));
    let damaged = format!("dropped/a/{name}  ");
    assert!(code == 1 && out.contains(&damaged) && out.contains("is no readable entry\n"), "{code} {out}");
}

#[test]
fn a_store_that_cannot_be_reached_is_not_judged() {
    let dir = tempfile::tempdir().unwrap();
    for (command, first) in [("check", "read fleet/session-key"), ("doctor", "put doctor/")] {
        let (code, _, stderr) = run(&mut on_bucket(dir.path(), command, SocketAddr::from(([127, 0, 0, 1], 1))));
        assert_eq!(code, 2, "{command}: {stderr}");
        let why = format!("error: store unavailable: bucket bucket at http://127.0.0.1:1: {first}");
        assert!(stderr.starts_with(&why), "{command}: {stderr}");
        assert!(!stderr.contains("the-secret"), "{command}: {stderr}");
    }
}

/// A command on a bucket at this address.
fn on_bucket(dir: &Path, command: &str, store: SocketAddr) -> Command {
    let mut marina = marina(dir);
    marina.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "the-secret");
    marina.args([command, "--store", "s3://bucket", "--s3-endpoint", &format!("http://{store}")]);
    marina
}

fn serve_at(store: SocketAddr, dir: &Path) -> (Child, BufReader<ChildStderr>) {
    let mut marina = on_bucket(dir, "serve", store);
    let mut child = marina.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    (child, log)
}

/// An address at which nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

// ERR-2, STATE-7
#[test]
fn a_server_starts_before_its_store_and_puts_requests_off_until_it_comes() {
    let (dir, store) = (tempfile::tempdir().unwrap(), nowhere());
    let (child, mut log) = serve_at(store, dir.path());
    let (mut why, mut line) = (String::new(), String::new());
    log.read_line(&mut why).unwrap();
    assert!(why.contains("\"ERROR\"") && why.contains("the store cannot be used yet"), "{why}");
    assert!(why.contains(&format!("bucket bucket at http://{store}: put doctor/")), "{why}");
    assert!(why.contains(&format!("no answer from http://{store}: ")) && why.contains("Connection refused"), "{why}");
    log.read_line(&mut line).unwrap();
    let first_line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = first_line["address"].as_str().unwrap().parse().unwrap();
    let server = Server { child, address, log, first_line, dir };
    let answer = |path| ask_for(server.connect(), &format!("GET {path}"));
    assert!(answer("/livez").starts_with("HTTP/1.1 200 "));
    assert!(answer("/v2/").starts_with("HTTP/1.1 200 "));
    for path in ["/readyz", "/v2/a/tags/list", "/v2/a/manifests/latest"] {
        let answer = answer(path);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: "), "{path}: {answer}");
        assert!(!answer.contains("doctor") && !answer.contains(&address.port().to_string()), "{path}: {answer}");
    }
    assert!(answer("/readyz").ends_with("store unavailable\n"));
    let listen = address.to_string();
    let health =
        |arguments: &[&str]| run(marina(server.dir.path()).args(["health", "--listen", &listen]).args(arguments));
    assert_eq!(health(&[]), (1, String::new(), format!("error: {listen}: store unavailable\n")));
    assert_eq!(health(&["--live"]).0, 0);
}

#[test]
fn a_bucket_that_is_not_there_or_not_ours_is_named_with_the_reason_at_once() {
    for (status, code) in [("404 Not Found", "NoSuchBucket"), ("403 Forbidden", "AccessDenied")] {
        let (dir, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let store = listener.local_addr().unwrap();
        let refusal = format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
        thread::spawn(move || listener.incoming().for_each(|client| answer(&client.unwrap(), |_| (status, &refusal))));
        let mut doctor = on_bucket(dir.path(), "doctor", store);
        let (exit, _, why) = run(&mut doctor);
        assert_eq!(exit, 2, "{why}");
        let reason = format!(": {code}: so it is");
        assert!(why.contains(&format!("bucket bucket at http://{store}: ")), "{why}");
        assert!(why.ends_with(&format!("{reason}\n")), "{why}");

        let (mut child, mut log) = serve_at(store, dir.path());
        let mut why = String::new();
        log.read_line(&mut why).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(why.contains("\"ERROR\""), "{why}");
        assert!(why.contains(&format!("bucket bucket at http://{store}: ")), "{why}");
        assert!(why.contains(&format!("{reason}\"")), "{why}");
    }
}

#[test]
fn where_there_are_no_credentials_one_line_says_which_settings_give_them() {
    let (dir, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let host = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(|client| answer(&client.unwrap(), |_| ("403 Forbidden", ""))));
    let mut doctor = on_bucket(dir.path(), "doctor", nowhere());
    doctor.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let (exit, _, why) = run(doctor.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", host));
    assert_eq!((exit, why.lines().count()), (2, 1), "{why}");
    assert!(why.contains("no credentials: set s3_access_key_id and s3_secret_access_key_file, or AWS_"), "{why}");
}

#[test]
fn a_store_that_comes_late_is_said_to_have_come() {
    let (dir, store) = (tempfile::tempdir().unwrap(), nowhere());
    let mut marina = on_bucket(dir.path(), "serve", store);
    marina.args(["--listen", "127.0.0.1:0", "--single-writer"]).stderr(Stdio::piped());
    let mut child = marina.spawn().unwrap();
    let (mut log, mut line) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    log.read_line(&mut line).unwrap();
    assert!(line.contains("the store cannot be used yet"), "{line}");
    let listener = TcpListener::bind(store).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            answer(&client.unwrap(), |request| match request {
                key if key.contains("session-key") => ("200 OK", "this is a key, it has 32 bytes!!"),
                list if list.starts_with("GET") => ("200 OK", "<ListBucketResult/>"),
                _ => ("200 OK", ""),
            });
        }
    });
    while !line.contains("\"message\":\"the store can be used now\"") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
        assert!(!line.contains("is not a key"), "{line}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_store_that_comes_late_and_ignores_conditions_is_refused_all_the_same() {
    let (dir, store) = (tempfile::tempdir().unwrap(), nowhere());
    let (mut child, mut log) = serve_at(store, dir.path());
    let mut line = String::new();
    while !line.contains("\"message\":\"listening\"") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it listened");
    }
    let listener = TcpListener::bind(store).unwrap();
    thread::spawn(move || listener.incoming().for_each(|client| agree(&client.unwrap())));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{rest}");
    assert!(rest.lines().last().unwrap().starts_with("error: ") && rest.contains("--single-writer"), "{rest}");
}

/// A store that does whatever it is asked to, and lists nothing.
fn agree(client: &TcpStream) {
    answer(client, |request| ("200 OK", if request.starts_with("GET") { "<ListBucketResult/>" } else { "" }));
}

/// What a store answers to the first line of a request.
fn answer<'a>(mut client: &TcpStream, to: impl Fn(&str) -> (&'a str, &'a str)) {
    let mut head = BufReader::new(client).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let (status, body) = to(&head.next().unwrap());
    head.for_each(drop);
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

#[test]
fn health_says_by_its_exit_code_whether_the_server_is_ready() {
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let everywhere = format!("0.0.0.0:{}", server.address.port());
    for listen in [server.address.to_string(), everywhere] {
        assert_eq!(run(marina(dir.path()).args(["health", "--listen", &listen])).0, 0, "{listen}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, stderr) = run(marina(dir.path()).args(["health", "--listen", &nobody]));
    assert_eq!(code, 1);
    assert!(stderr.starts_with(&format!("error: {nobody}: Connection refused")), "{stderr}");
}

#[test]
fn a_taken_address_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(marina(dir.path()).args(["serve", "--listen", &address]));
    assert_eq!(code, 2);
    let expected = format!("error: cannot listen on {address}: Address already in use");
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn the_first_line_says_version_address_and_directory() {
    let server = Server::start(&[]);
    assert_eq!(server.first_line["message"], "listening");
    assert_eq!(server.first_line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server.first_line["store"], "./registry-data");
    assert_ne!(server.address.port(), 0);
}

// DEL-5, ERR-3
#[test]
fn a_server_told_not_to_let_clients_delete_says_that_it_does_not() {
    let tag = "DELETE /v2/a/manifests/latest";
    let asked = |arguments: &[&str]| ask_for(Server::start(arguments).connect(), tag);
    assert!(asked(&["--deletes=false"]).starts_with("HTTP/1.1 405 "));
    assert!(asked(&[]).starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_request_in_flight_is_finished_after_sigterm_or_sigint() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&["--drain", "1h"]);
        let mut client = server.begin();
        server.signal(signal);
        server.wait_for("draining");
        client.write_all(b"\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        assert_eq!(server.exit_code(), 0);
    }
}

#[test]
fn a_drain_that_does_not_end_in_time_is_cut_and_exits_with_1() {
    let server = Server::start(&["--drain", "1ms"]);
    let _client = server.begin();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), 1);
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain", "1h"]);
    let _client = server.begin();
    server.signal(Signal::TERM);
    server.wait_for("draining");
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(), 1);
}

#[test]
fn a_second_signal_ends_at_once_also_when_only_what_a_client_left_behind_still_runs() {
    let mut server = Server::start(&["--drain", "1h"]);
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[]}}"#);
    let push = |more: &str| {
        let mut client = server.connect();
        let head = format!("PUT /v2/a/manifests/t HTTP/1.1\r\nHost: h\r\nContent-Type: {media_type}\r\n{more}");
        write!(client, "{head}Content-Length: {}\r\n\r\n{index}", index.len()).unwrap();
        client
    };
    let mut answer = String::new();
    push("Connection: close\r\n").read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    // Nothing is written over any more: the same push does not come to its end.
    let locks = server.dir.path().join("registry-data/.locks");
    let lock = |shard: u8| {
        let file = fs::File::create(locks.join(format!("{shard:02x}"))).unwrap();
        file.lock().unwrap();
        file
    };
    let _locked: Vec<fs::File> = (0..=u8::MAX).map(lock).collect();
    let client = push("");
    // Nothing tells when it came to the lock; but what comes later was answered.
    for _ in 0..20 {
        assert!(ask(server.connect()).starts_with("HTTP/1.1 "));
    }
    drop(client);
    server.signal(Signal::TERM);
    server.wait_for("draining");
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(), 1);
}

#[test]
fn the_log_names_the_client_behind_a_proxy_that_is_trusted() {
    for (proxies, client) in [("127.0.0.1", "203.0.113.7"), ("none", "127.0.0.1")] {
        let mut server = Server::start(&["--trusted-proxies", proxies]);
        let mut connection = server.connect();
        let remote = connection.local_addr().unwrap().to_string();
        connection.write_all(b"GET /v2/ HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").unwrap();
        let line = server.logged("GET");
        assert_eq!((&line["client"], &line["remote"]), (&client.into(), &remote.into()), "{line}");
    }
}

#[test]
fn a_client_that_never_ends_its_header_is_cut() {
    let server = Server::start(&["--idle-timeout", "100ms"]);
    let mut client = server.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n").unwrap();
    let mut answer = String::new();
    // What it was sent last may have come when it had closed already.
    let _ = client.read_to_string(&mut answer);
    assert_eq!(answer, "");
}

#[test]
fn running_out_of_file_descriptors_is_outlived() {
    let mut server = Server::start(&[]);
    let none_left = Rlimit { current: Some(0), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(server.pid()), Resource::Nofile, none_left).unwrap();
    let client = server.connect();
    server.wait_for("cannot accept connections");
    prlimit(Some(server.pid()), Resource::Nofile, before).unwrap();
    assert!(ask(client).starts_with("HTTP/1.1 "));
}
