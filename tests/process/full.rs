//! A disk without room and a process without file descriptors: refused in the registry's own words, nothing lost, and
//! well again, without a restart, as soon as there is enough.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use marina_distribution::oci::{Algorithm, Digest, ManifestType};
use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};
use serde_json::json;

use crate::{
    load::http::{Reply, chunked},
    server::{self, MIB, Process},
};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
/// How large the disk is.
const DISK: usize = 8 * MIB;
/// How many clients fight over how many descriptors.
const CLIENTS: u8 = 48;
const DESCRIPTORS: usize = 16;

fn digest(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

/// Where a blob is pushed in one request.
fn whole(blob: &[u8]) -> String {
    format!("/v2/a/blobs/uploads/?digest={}", digest(blob))
}

fn blob(content: &[u8]) -> String {
    format!("/v2/a/blobs/{}", digest(content))
}

fn get(on: &Process, path: &str) -> Reply {
    on.send("GET", path, "", b"")
}

fn start_upload(on: &Process) -> String {
    on.send("POST", "/v2/a/blobs/uploads/", "", b"").header("location").to_owned()
}

/// An image of one blob, told from others by its annotation.
fn image(blob: &[u8], name: &str) -> Vec<u8> {
    let config = json!({"mediaType": "a/b", "digest": digest(blob), "size": blob.len()});
    let kind = ManifestType::Image.as_str();
    let image =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [], "annotations": {"name": name}});
    image.to_string().into_bytes()
}

/// A registry, and nothing else but a ballast, on a small disk of its own: that of a mount namespace, which goes with the
/// process and takes root, or else a user namespace.
struct SmallDisk {
    process: Process,
    disk: PathBuf,
    mounted_at: tempfile::TempDir,
}

impl SmallDisk {
    fn start() -> Self {
        let mounted_at = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount").args((!geteuid().is_root()).then_some("--map-root-user"));
        let mount = format!("mount -t tmpfs -o size={DISK} disk \"$0\" && exec \"$@\"");
        unshare.args(["sh", "-c", &mount]).arg(mounted_at.path()).arg(server::REGISTRY);
        let process = Process::start_by(unshare, &mounted_at.path().join("registry"), &[]);
        let inside = mounted_at.path().strip_prefix("/").unwrap();
        let disk = Path::new("/proc").join(process.id().to_string()).join("root").join(inside);
        Self { process, disk, mounted_at }
    }

    fn fill(&self) {
        let mut ballast = File::create(self.disk.join("ballast")).unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.disk.join("ballast")).unwrap();
    }

    /// By the command itself, which sees the disk only from where the registry is.
    fn check(&self) {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--target", &self.process.id().to_string()]);
        nsenter.args(if geteuid().is_root() { &[][..] } else { &["--user", "--preserve-credentials"] });
        nsenter.args([server::REGISTRY, "check", "--data-dir"]).arg(self.mounted_at.path().join("registry"));
        let output = nsenter.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[track_caller]
fn assert_full(reply: &Reply) {
    assert_eq!(reply.status, 507, "{}", reply.text());
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["errors"][0]["code"], "DENIED", "{body}");
}

/// A request, and the status by which it is acknowledged.
struct Change<'a>(&'static str, String, &'static str, &'a [u8], u16);

impl Change<'_> {
    fn send(&self, on: &Process) -> Reply {
        let Self(method, path, headers, body, _) = self;
        let coded = if *headers == CHUNKED { chunked(body, MIB / 16) } else { body.to_vec() };
        on.send(method, path, headers, &coded)
    }
}

#[test]
fn a_full_disk_refuses_every_write_loses_nothing_and_heals_by_itself() {
    let small = SmallDisk::start();
    let on = &small.process;
    let (one, other, chunks) = (vec![1; MIB / 4], vec![2; MIB / 4], vec![3; 3 * MIB]);
    let (first, rest) = chunks.split_at(MIB * 3 / 2);
    let (old, new) = (image(&one, "old"), image(&one, "new"));
    assert_eq!(on.send("POST", &whole(&one), "", &one).status, 201);
    for tag in ["latest", "doomed"] {
        assert_eq!(on.send("PUT", &format!("/v2/a/manifests/{tag}"), "", &old).status, 201);
    }
    let (session, cancelled, upload) = (start_upload(on), start_upload(on), start_upload(on));
    for session in [&session, &cancelled] {
        assert_eq!(on.send("PATCH", session, "", first).status, 202);
    }
    let changes = [
        Change("POST", whole(&other), "", &other, 201),
        Change("PUT", format!("{upload}?digest={}", digest(&other)), CHUNKED, &other, 201),
        Change("PATCH", session.clone(), CHUNKED, rest, 202),
        Change("PUT", format!("/v2/a/manifests/{}", digest(&new)), "", &new, 201),
        Change("PUT", "/v2/a/manifests/latest".into(), "", &new, 201),
        Change("PUT", "/v2/a/manifests/other".into(), "", &old, 201),
        Change("DELETE", "/v2/a/manifests/doomed".into(), "", b"", 202),
        Change("DELETE", cancelled, "", b"", 204),
    ];

    small.fill();
    for change in &changes {
        assert_full(&change.send(on));
        assert_eq!(get(on, &blob(&one)).body, one);
        assert_eq!(get(on, "/v2/a/manifests/latest").body, old);
        assert_eq!(get(on, "/v2/a/manifests/doomed").body, old);
        assert_eq!(get(on, "/v2/a/manifests/other").status, 404);
        assert_eq!(get(on, &session).received(), first.len());
    }

    small.free();
    for change in &changes {
        let reply = change.send(on);
        assert_eq!(reply.status, change.4, "{}", reply.text());
    }
    assert_eq!(on.send("PUT", &format!("{session}?digest={}", digest(&chunks)), "", b"").status, 201);
    for content in [&one, &other, &chunks] {
        assert_eq!(get(on, &blob(content)).body, *content);
    }
    assert_eq!(get(on, "/v2/a/manifests/latest").body, new);
    assert_eq!(get(on, "/v2/a/manifests/other").body, old);
    assert_eq!(get(on, "/v2/a/manifests/doomed").status, 404);
    small.check();
}

#[test]
fn an_upload_that_does_not_fit_gives_its_room_back() {
    let small = SmallDisk::start();
    let on = &small.process;
    let (large, fitting) = (vec![1; 2 * DISK], vec![2; DISK / 2]);
    for _ in 0..2 {
        assert_full(&on.send("POST", &whole(&large), CHUNKED, &chunked(&large, MIB)));
        // What came of a session is kept for it to go on, until it is cancelled.
        let session = start_upload(on);
        assert_full(&on.send("PATCH", &session, CHUNKED, &chunked(&large, MIB)));
        let reply = on.send("DELETE", &session, "", b"");
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    assert_eq!(on.send("POST", &whole(&fitting), "", &fitting).status, 201);
    small.check();
}

/// Leaves the process this many descriptors that it may still open.
fn leave(process: &Process, spare: usize) {
    let open = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let open: HashSet<u64> = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let last = (0..).filter(|number| !open.contains(number)).nth(spare - 1).unwrap();
    let limit = Rlimit { current: Some(last + 1), ..getrlimit(Resource::Nofile) };
    let pid = Pid::from_raw(process.id().try_into().unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[test]
fn without_file_descriptors_requests_are_refused_or_wait_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let first = vec![0; MIB / 16];
    assert_eq!(Process::start(directory.path()).send("POST", &whole(&first), "", &first).status, 201);
    let server = Process::start(directory.path());
    let push = |blob: &[u8]| server.send("POST", &whole(blob), "", blob);

    // Enough for a connection and for nothing else. Nobody has connected yet: so none is about to be closed.
    leave(&server, 1);
    for reply in [push(&first), get(&server, &blob(&first))] {
        assert_eq!(reply.status, 503, "{}", reply.text());
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(body["errors"][0]["code"].is_string(), "{body}");
    }

    leave(&server, DESCRIPTORS);
    let blobs: Vec<Vec<u8>> = (1..=CLIENTS).map(|n| vec![n; MIB / 16]).collect();
    thread::scope(|scope| {
        for blob in &blobs {
            scope.spawn(|| {
                while let reply = push(blob)
                    && reply.status != 201
                {
                    assert_eq!(reply.status, 503, "{}", reply.text());
                }
            });
        }
    });
    for content in blobs.iter().chain([&first]) {
        assert_eq!(get(&server, &blob(content)).body, *content);
    }
    drop(server);
    server::check(directory.path());
}
