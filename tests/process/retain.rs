//! The real command retains: by itself, and asked to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    collect::{keys, push},
    server::{Process, REGISTRY, check},
};

const RULES: &str = "
[[retention]]
repositories = [\"a\"]
tags = [\"stable\"]

[[retention]]
repositories = [\"a\"]
keep_semver_majors = 1
untagged_older = \"1s\"
";

fn rules(data: &Path) -> PathBuf {
    let path = data.with_extension("toml");
    fs::write(&path, RULES).unwrap();
    path
}

/// The standard output.
fn run(data: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(REGISTRY);
    command.args(["retain", "--grace", "1ms", "--config"]).arg(rules(data));
    let output = command.args(arguments).arg("--data-dir").arg(data).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn tags(server: &Process) -> String {
    server.send("GET", "/v2/a/tags/list", "", b"").text().rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn a_dry_run_says_what_a_walk_then_deletes_and_changes_nothing_and_a_deleted_tag_can_be_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let data = &directory.path().join("data");
    let server = Process::start_with(data, &["--gc=false"]);
    let (old, _) = push(&server, "1.0.0", b"old");
    for (tag, content) in [("1.0.1", b"new"), ("stable", b"kpt"), ("other", b"oth")] {
        push(&server, tag, content);
    }
    // What is of the same second is as young as can be.
    thread::sleep(Duration::from_millis(1100));
    let before = keys(data);
    let dry = run(data, &["--dry-run"]);
    let line = format!("- a:1.0.0 ({old}, ");
    assert!(
        dry.lines().next().is_some_and(|first| first.starts_with(&line) && first.contains(", rule 2: set 20")),
        "{dry}"
    );
    assert_eq!(dry.lines().filter(|line| line.starts_with('-')).count(), 1, "{dry}");
    assert!(dry.contains("  a:stable (") && !dry.contains("a:other"), "{dry}");
    assert!(dry.ends_with("Nothing was changed.\n"), "{dry}");
    assert_eq!(keys(data), before);
    assert_eq!(run(data, &["--once"]), dry.replace("Nothing was changed.\n", ""));
    let listed = tags(&server);
    assert!(!listed.contains("1.0.0") && listed.contains("1.0.1") && listed.contains("other"), "{listed}");
    let restored =
        Command::new(REGISTRY).args(["tags", "restore", "a:1.0.0", "--data-dir"]).arg(data).output().unwrap();
    assert_eq!(restored.status.code(), Some(0));
    assert!(tags(&server).contains("1.0.0"));
    server.kill();
    check(data);
}

#[test]
fn a_server_carries_out_the_rules_by_itself_and_its_collector_follows() {
    let directory = tempfile::tempdir().unwrap();
    let data = &directory.path().join("data");
    let config = rules(data);
    let often = ["--gc-interval", "1s", "--retention-interval", "1s", "--grace", "1s", "--undelete", "0s"];
    let server = Process::start_with(data, &[&["--config", config.to_str().unwrap()], &often[..]].concat());
    let (old, blob) = push(&server, "1.0.0", b"old");
    let (new, _) = push(&server, "1.0.1", b"new");
    let get = |path: String| server.send("GET", &path, "", b"").status;
    while get(format!("/v2/a/blobs/{blob}")) != 404 {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(get(format!("/v2/a/manifests/{old}")), 404);
    assert_eq!(get(format!("/v2/a/manifests/{new}")), 200);
    server.kill();
    check(data);
}
