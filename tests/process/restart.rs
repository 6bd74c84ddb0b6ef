//! The real command, killed with `kill -9` in the middle of an upload, and started again on the same directory.

use std::{io::Write, net::TcpStream};

use crate::server::{MIB, Process};
use marina_distribution::oci::{Algorithm, Digest};

/// Bytes that differ everywhere.
fn blob(length: usize) -> Vec<u8> {
    (0..length as u64 / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

// STATE-1, STATE-4
#[test]
fn an_upload_goes_on_after_kill_9_where_its_last_durable_part_ended() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let bytes = blob(48 * MIB);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let start = server.send("POST", "/v2/a/blobs/uploads/", "", b"");
    assert_eq!(start.status, 202);
    let location = start.header("location").to_owned();
    // An acknowledged chunk, and a second one of which 40 MiB arrive before the power goes.
    let first = server.send("PATCH", &location, "Content-Range: 0-1048575\r\n", &bytes[..MIB]);
    assert_eq!((first.status, first.received()), (202, MIB));
    let mut torn = TcpStream::connect(server.address).unwrap();
    write!(torn, "PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 47 * MIB).unwrap();
    torn.write_all(&bytes[MIB..41 * MIB]).unwrap();
    // What was written was received, but for what the two sockets hold.
    server.kill();

    let server = Process::start(directory.path());
    let status = server.send("GET", &location, "", b"");
    assert_eq!(status.status, 204);
    let received = status.received();
    // At most a checkpoint's worth of parts and the socket buffers are lost.
    assert!((17 * MIB..=41 * MIB).contains(&received), "{received}");
    let range = format!("Content-Range: {received}-{}\r\n", bytes.len() - 1);
    let done = server.send("PUT", &format!("{location}?digest={digest}"), &range, &bytes[received..]);
    assert_eq!(done.status, 201, "{}", done.text());
    let read = server.send("GET", &format!("/v2/a/blobs/{digest}"), "", b"");
    assert_eq!(read.status, 200);
    assert!(read.body == bytes);
}

// STATE-4
#[test]
fn after_kill_9_the_whole_body_can_be_sent_again_to_the_same_url() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let bytes = blob(40 * MIB);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let location = server.send("POST", "/v2/a/blobs/uploads/", "", b"").header("location").to_owned();
    let put = format!("{location}?digest={digest}");
    let mut torn = TcpStream::connect(server.address).unwrap();
    write!(torn, "PUT {put} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len()).unwrap();
    torn.write_all(&bytes[..30 * MIB]).unwrap();
    server.kill();

    let server = Process::start(directory.path());
    assert_eq!(server.send("PUT", &put, "", &bytes).status, 201);
    let read = server.send("GET", &format!("/v2/a/blobs/{digest}"), "", b"");
    assert!(read.body == bytes);
    // PUSH-17: the reply may have been lost.
    assert_eq!(server.send("PUT", &put, "", &bytes).status, 201);
}

// STATE-5
#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::start(directory.path());
    let mut known = Vec::new();
    for round in 0..8 {
        let bytes = blob(1000 + 8 * round);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let pushed = server.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), "", &bytes);
        assert_eq!(pushed.status, 201);
        known.push((digest, bytes));
        server.kill();
        server = Process::start(directory.path());
        for (digest, bytes) in &known {
            assert!(server.send("GET", &format!("/v2/a/blobs/{digest}"), "", b"").body == *bytes, "round {round}");
        }
    }
}
