//! Clients that are sent to the store, by replicas whose clocks are off.

use std::{io::Write, net::TcpStream};

use crate::{
    fleet::{Fleet, Setup},
    load::{content, http},
    minio::Minio,
};

// REDIR-1
#[test]
fn whatever_the_clock_of_a_replica_says_the_store_takes_its_urls() {
    const BYTES: &[u8] = b"what the store is asked for";
    let store = Minio::start();
    let options = &["--redirect", "all", "--redirect-min-size", "1B"];
    let fleet = Fleet::start_as(store.address, Setup { clocks: [Some("-1h"), Some("+1h"), None], options });
    let digest = content::sha256(BYTES);
    assert_eq!(fleet.send("POST", &format!("/v2/urls/blobs/uploads/?digest={digest}"), "", BYTES).status, 201);
    for replica in &fleet.replicas {
        let sent = replica.send("GET", &format!("/v2/urls/blobs/{digest}"), "", b"");
        assert_eq!(sent.status, 307, "{}", sent.text());
        let host = store.address.to_string();
        let path = sent.header("location").split_once(&host).unwrap().1;
        let mut stream = TcpStream::connect(store.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let found = http::receive(&mut stream, "GET").unwrap();
        assert_eq!((found.status, &*found.body), (200, BYTES), "{}", found.text());
    }
}
