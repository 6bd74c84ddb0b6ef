//! The real command collects: beside clients, by itself, and killed with `kill -9` in the middle.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use marina_distribution::{
    oci::{Algorithm, Digest},
    store::{Store, fs::FsStore},
};

use crate::server::{Process, check};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) fn keys(data: &Path) -> Vec<String> {
    let store = FsStore::open(data).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let entries = runtime.block_on(store.list("", None, usize::MAX)).unwrap();
    entries.into_iter().map(|entry| entry.key.to_string()).collect()
}

fn bytes_left(data: &Path) -> usize {
    keys(data).iter().filter(|key| key.starts_with("data/")).count()
}

/// Pushes an image of one blob, and returns the digests of the manifest and of the blob.
pub(crate) fn push(server: &Process, tag: &str, content: &[u8]) -> (Digest, Digest) {
    let blob = Digest::of(Algorithm::Sha256, content);
    let pushed = server.send("POST", &format!("/v2/a/blobs/uploads/?digest={blob}"), "", content);
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    let config = format!(r#"{{"mediaType":"application/x","digest":"{blob}","size":{}}}"#, content.len());
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[]}}"#);
    let header = format!("Content-Type: {IMAGE}\r\n");
    let pushed = server.send("PUT", &format!("/v2/a/manifests/{tag}"), &header, manifest.as_bytes());
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    (Digest::of(Algorithm::Sha256, manifest.as_bytes()), blob)
}

fn delete(server: &Process, manifest: &Digest) {
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{manifest}"), "", b"").status, 202);
}

/// The command, with graces that are over at once.
fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marina-distribution"));
    command.args(arguments).args(["--grace", "1ms", "--undelete", "0s", "--data-dir"]).arg(data);
    command
}

/// The exit code and the standard output.
fn run(data: &Path, arguments: &[&str]) -> (i32, String) {
    let output = command(data, arguments).output().unwrap();
    let code = output.status.code().unwrap();
    assert!(code < 2, "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    (code, String::from_utf8(output.stdout).unwrap())
}

fn spawn(data: &Path, arguments: &[&str]) -> Child {
    command(data, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_server_with_graces_of_seconds_takes_the_bytes_of_a_deleted_image_and_leaves_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let settings = ["--grace", "1s", "--undelete", "0s", "--gc-interval", "1s"];
    let server = Process::start_with(directory.path(), &settings);
    let (gone, gone_blob) = push(&server, "gone", b"gone");
    let (_, kept_blob) = push(&server, "kept", b"kept");
    delete(&server, &gone);
    while bytes_left(directory.path()) > 1 {
        thread::sleep(Duration::from_millis(100));
    }
    let blob = |digest: &Digest| server.send("GET", &format!("/v2/a/blobs/{digest}"), "", b"");
    assert_eq!(blob(&gone_blob).status, 404);
    assert_eq!(blob(&kept_blob).body, b"kept");
    server.kill();
    check(directory.path());
}

#[test]
fn a_dry_run_says_what_a_round_then_does_and_why_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let server = Process::start_with(data, &["--gc=false", "--grace", "1ms", "--undelete", "0s"]);
    let (manifest, blob) = push(&server, "t", b"layer");
    delete(&server, &manifest);
    server.kill();
    let before = keys(data);
    let (code, dry) = run(data, &["gc", "--dry-run"]);
    assert_eq!(code, 0);
    let condemned = dry.lines().find(|line| line.starts_with(&format!("a@{blob} of 5 bytes condemned"))).unwrap();
    assert!(condemned.contains(&format!("manifest {manifest} was deleted at 20")), "{dry}");
    assert!(dry.ends_with("Nothing was changed.\n"), "{dry}");
    assert_eq!(keys(data), before);
    let summary = |output: &str| output.lines().find(|line| line.contains("holders condemned")).unwrap().to_owned();
    let (_, wet) = run(data, &["gc", "--once"]);
    assert_eq!(summary(&wet), summary(&dry));
    assert_eq!(bytes_left(data), 0, "{wet}");
    check(data);
}

#[test]
fn explain_says_who_refers_to_it_and_exits_with_1_where_nobody_does() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let server = Process::start_with(data, &["--gc=false", "--undelete", "1h"]);
    let (manifest, blob) = push(&server, "t", b"layer");
    let (code, said) = run(data, &["explain", &blob.to_string()]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("  named by manifest {manifest}, tagged t\n")), "{said}");
    assert!(said.contains("  announced by an upload or a mount, until "), "{said}");
    let (code, said) = run(data, &["explain", "a:t"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("a:t points to {manifest}\n")) && said.contains("  tagged t\n"), "{said}");
    delete(&server, &manifest);
    let (code, said) = run(data, &["explain", &format!("a@{blob}")]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("  named by manifest {manifest}, deleted at 20")), "{said}");
    let (code, said) = run(data, &["explain", "a:t"]);
    assert_eq!((code, said.as_str()), (1, "it is not there\n"));
    let wrong = command(data, &["explain", "a"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_round_killed_at_any_moment_leaves_all_sound_and_the_next_ones_end_clean() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let server = Process::start_with(data, &["--gc=false", "--grace", "1ms", "--undelete", "0s"]);
    let (_, kept) = push(&server, "kept", b"kept");
    for image in 0..12_u8 {
        let (manifest, _) = push(&server, "t", &[image; 100]);
        delete(&server, &manifest);
    }
    server.kill();
    // Slow rounds, of which each is killed a little later than the one before.
    for moment in 0..10 {
        let mut round = spawn(data, &["gc", "--gc-rate", "100"]);
        thread::sleep(Duration::from_millis(100 + 150 * moment));
        let _ = round.kill();
        round.wait().unwrap();
        check(data);
    }
    // What a collector that died had only announced waits for its hour; a walk does not.
    while bytes_left(data) > 1 {
        run(data, &["gc", "--full"]);
    }
    check(data);
    let server = Process::start(data);
    assert_eq!(server.send("GET", &format!("/v2/a/blobs/{kept}"), "", b"").body, b"kept");
}

#[test]
fn restore_puts_back_what_was_deleted_and_says_what_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let server = Process::start(data);
    let (manifest, _) = push(&server, "t", b"layer");
    delete(&server, &manifest);
    assert_eq!(server.send("GET", "/v2/a/manifests/t", "", b"").status, 404);
    let marina = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_marina-distribution"));
        command.args(words).arg("--data-dir").arg(data).output().unwrap()
    };
    let restore = |tag: &str| marina(&["tags", "restore", tag]);
    let done = restore(&format!("a:t@{manifest}"));
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(said, format!("a:t points to {manifest}\n1 manifests put back\n"));
    assert!(done.status.success());
    assert_eq!(server.send("GET", "/v2/a/manifests/t", "", b"").status, 200);

    let (next, _) = push(&server, "t", b"another");
    let history = |tag: &str| marina(&["tags", "history", tag]);
    let told = String::from_utf8(history("a:t").stdout).unwrap();
    let told: Vec<_> = told.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let expected = [
        format!("moved from {manifest} to {next} by 127.0.0.1"),
        format!("set to {manifest} by restore"),
        format!("deleted, was {manifest} by 127.0.0.1"),
        format!("set to {manifest} by 127.0.0.1"),
    ];
    assert_eq!(told, expected);
    assert!(restore("a:t").status.success());
    let back = server.send("GET", "/v2/a/manifests/t", "", b"");
    assert_eq!(Digest::of(Algorithm::Sha256, &back.body), manifest);
    assert_eq!(history("a:never").status.code(), Some(2));
    assert_eq!(history("a").status.code(), Some(2));

    delete(&server, &manifest);
    let whole = marina(&["restore", &format!("a@{manifest}")]);
    assert_eq!(String::from_utf8(whole.stdout).unwrap(), said, "with the tag that it had");

    let never = marina(&["restore", &format!("a@{}", Digest::of(Algorithm::Sha256, b"never"))]);
    assert_eq!(never.status.code(), Some(2));
    assert!(String::from_utf8(never.stderr).unwrap().contains("neither in a nor among what can be put back"));
    for wrong in [
        &["tags", "restore", "a"][..],
        &["tags", "restore", &format!("a:t@{manifest}"), "--at", "2026-01-31T12:00:00Z"],
        &["tags"],
        &["restore", "a:t"],
        &["restore", &format!("a:t@{manifest}")],
    ] {
        let told = marina(wrong);
        assert_eq!(told.status.code(), Some(2), "{wrong:?}");
        assert!(!told.stderr.is_empty(), "{wrong:?}");
    }
}
