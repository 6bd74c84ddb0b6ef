//! What many, large, slow and silent clients may cost: memory that is bounded, and nothing for the others.
//!
//! `MEMORY_FULL=1` for the full sizes; without it they are just large enough to show the same.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use marina_distribution::oci::{Algorithm, Hasher};

use crate::{
    load::http,
    server::{MIB, Process},
};

/// The most memory that the registry may ever have had.
const BOUND: usize = 64 * MIB;
/// What of that a release build's program takes. That of a debug build takes twice as much, which nobody runs.
const PROGRAM: usize = 11 * MIB;
/// Of which each takes about as much, while it is parsed.
const MANIFESTS: usize = 16;
const CLIENTS: usize = 100;
/// No test waits for it.
const PATIENT: [&str; 2] = ["--idle-timeout", "1h"];

fn full() -> bool {
    env::var_os("MEMORY_FULL").is_some()
}

#[track_caller]
fn assert_bounded(server: &Process) {
    assert_peak_below(server, BOUND);
}

/// Of the most memory that the process has had at any time, as if it were a release build.
#[track_caller]
fn assert_peak_below(server: &Process, bound: usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let bytes = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        1024 * line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap()
    };
    let (all, program) = (bytes("VmHWM:"), bytes("RssFile:"));
    eprintln!("peak: {} KiB, of which {} are of the program", all / 1024, program / 1024);
    assert!(all - program + PROGRAM < bound, "{} KiB", all / 1024);
}

/// The one byte over and over that tells this blob from others.
fn digest_of(byte: u8, length: usize) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let piece = vec![byte; MIB];
    (0..length / MIB).for_each(|_| hasher.update(&piece));
    hasher.digest().to_string()
}

fn start_upload(server: &Process) -> String {
    server.send("POST", "/v2/a/blobs/uploads/", "", b"").header("location").to_owned()
}

/// A connection on which a request was begun, whose body is still to come.
fn begin(server: &Process, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n").unwrap();
    stream
}

fn push(server: &Process, byte: u8, length: usize) {
    let (location, digest) = (start_upload(server), digest_of(byte, length));
    let mut stream = begin(server, &format!("PUT {location}?digest={digest}"));
    write!(stream, "Content-Length: {length}\r\n\r\n").unwrap();
    let piece = vec![byte; MIB];
    (0..length / MIB).for_each(|_| stream.write_all(&piece).unwrap());
    let reply = http::receive(&mut stream, "PUT").unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text());
}

#[test]
fn a_hundred_pushes_at_once_take_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let length = if full() { 16 * MIB } else { 4 * MIB };
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || push(server, u8::try_from(n).unwrap(), length));
        }
    });
    assert_bounded(&server);
}

/// An index of nearly 4 MiB, most of it annotations that are as small as can be.
fn annotated() -> Vec<u8> {
    let index = r#""mediaType":"application/vnd.oci.image.index.v1+json""#;
    let mut text = format!(r#"{{"schemaVersion":2,{index},"manifests":[],"annotations":{{"":"""#);
    for n in 0.. {
        write!(text, r#","{n:x}":"""#).unwrap();
        if text.len() > 4 * MIB - 100 {
            break;
        }
    }
    (text + "}}").into_bytes()
}

// MAN-6
#[test]
fn pushes_of_the_largest_manifests_at_once_take_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start_with(directory.path(), &PATIENT);
    let manifest = annotated();
    thread::scope(|scope| {
        for n in 0..MANIFESTS {
            let (server, manifest) = (&server, &manifest);
            scope.spawn(move || {
                let mut stream = begin(server, &format!("PUT /v2/a/manifests/t{n}"));
                write!(stream, "Content-Length: {}\r\n\r\n", manifest.len()).unwrap();
                stream.write_all(manifest).unwrap();
                let reply = http::receive(&mut stream, "PUT").unwrap();
                assert_eq!(reply.status, 201, "{}", reply.text());
            });
        }
    });
    assert_peak_below(&server, 6 * BOUND);
}

#[test]
fn a_large_push_and_a_pull_by_a_slow_reader_take_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let length = if full() { 2048 * MIB } else { 256 * MIB };
    let digest = digest_of(7, length);
    let location = start_upload(&server);
    let mut stream = begin(&server, &format!("PATCH {location}"));
    stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").unwrap();
    let piece = http::chunked(&vec![7; MIB], MIB);
    let piece = piece.strip_suffix(b"0\r\n\r\n").unwrap();
    (0..length / MIB).for_each(|_| stream.write_all(piece).unwrap());
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(http::receive(&mut stream, "PATCH").unwrap().status, 202);
    assert_eq!(server.send("PUT", &format!("{location}?digest={digest}"), "", b"").status, 201);
    assert_bounded(&server);

    let mut stream = begin(&server, &format!("GET /v2/a/blobs/{digest}"));
    stream.write_all(b"\r\n").unwrap();
    let (mut piece, mut read) = (vec![0; 256 * 1024], 0);
    loop {
        // Slow for a while: what is sent ahead piles up somewhere.
        if read < 32 * MIB {
            thread::sleep(Duration::from_millis(2));
        }
        match stream.read(&mut piece).unwrap() {
            0 => break,
            more => read += more,
        }
    }
    assert!(read > length);
    assert_bounded(&server);
}

// GEN-11
#[test]
fn a_hundred_clients_that_stop_sending_do_not_stop_another() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start_with(directory.path(), &PATIENT);
    let stalled: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let mut stream = begin(&server, &format!("PATCH {}", start_upload(&server)));
            write!(stream, "Content-Length: {}\r\n\r\n", 16 * MIB).unwrap();
            // Some sent a little, some almost a part.
            stream.write_all(&vec![1; 1 + n * 10_000]).unwrap();
            stream
        })
        .collect();
    push(&server, 2, 32 * MIB);
    assert_bounded(&server);
    drop(stalled);
}

/// Clients that ask for this, and read no more than the beginning.
fn stop_reading(server: &Process, path: &str) -> Vec<TcpStream> {
    let stops_reading = |_| {
        let mut stream = begin(server, &format!("GET {path}"));
        stream.write_all(b"\r\n").unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        stream
    };
    (0..CLIENTS).map(stops_reading).collect()
}

// GEN-11
#[test]
fn a_hundred_clients_that_stop_reading_take_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start_with(directory.path(), &PATIENT);
    push(&server, 3, 64 * MIB);
    let stalled = stop_reading(&server, &format!("/v2/a/blobs/{}", digest_of(3, 64 * MIB)));
    push(&server, 4, 8 * MIB);
    assert_bounded(&server);
    drop(stalled);
}

// GEN-11
#[test]
fn a_hundred_clients_that_stop_reading_the_largest_manifest_take_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start_with(directory.path(), &PATIENT);
    // Text that is parsed at no cost: what is measured is what comes after.
    let index = r#""mediaType":"application/vnd.oci.image.index.v1+json""#;
    let note = "x".repeat(4 * MIB - 200);
    let manifest = format!(r#"{{"schemaVersion":2,{index},"manifests":[],"annotations":{{"x":"{note}"}}}}"#);
    assert_eq!(server.send("PUT", "/v2/a/manifests/x", "", manifest.as_bytes()).status, 201);
    let stalled = stop_reading(&server, "/v2/a/manifests/x");
    assert_bounded(&server);
    drop(stalled);
}
