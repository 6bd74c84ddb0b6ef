//! Uploads that are large, torn, made of many chunks, and many at once.
//!
//! `LARGE_MIB` and `LARGE_CHUNKS` say how much, where less shows the same.

use std::{
    env,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use marina_distribution::oci::{Algorithm, Hasher};

use crate::{
    fleet::{self, COMES_BACK, Fleet},
    load::{
        content::Random,
        http::{self, Reply},
    },
    minio::Minio,
};

const MIB: usize = 1 << 20;
/// What of a torn body may be lost: the parts since the last checkpoint, and what the sockets hold.
const LOST: usize = 16 * 8 * MIB + 32 * MIB;
/// The bytes of bodies that a replica holds (`memory`), and all else that it needs, in KiB.
const PEAK: u64 = MEMORY + (64 << 10);
const MEMORY: u64 = 32 << 10;
const PUSHES: usize = 100;
const SLOW: u64 = 20;

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Bytes of any length that differ from piece to piece, and none of which is ever all in memory.
struct Content {
    piece: Vec<u8>,
    length: usize,
}

impl Content {
    fn new(seed: u64, length: usize) -> Self {
        let mut random = Random(seed);
        let piece = (0..MIB / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { piece, length }
    }

    fn pieces(&self, from: usize, to: usize, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = self.piece.clone();
        let mut at = from;
        while at < to {
            piece[..8].copy_from_slice(&(at / MIB).to_le_bytes());
            let start = at % MIB;
            let end = MIB.min(start + to - at);
            take(&piece[start..end])?;
            at += end - start;
        }
        Ok(())
    }

    fn digest(&self) -> String {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        self.pieces(0, self.length, |piece| {
            hasher.update(piece);
            Ok(())
        })
        .unwrap();
        hasher.digest().to_string()
    }

    /// A request whose body is what lies between `from` and `end`, of which what comes before `to` is sent.
    fn begin(&self, server: SocketAddr, request: &str, from: usize, end: usize, to: usize) -> io::Result<TcpStream> {
        let mut stream = head(server, request, from, end)?;
        self.pieces(from, to, |piece| stream.write_all(piece))?;
        Ok(stream)
    }

    /// A request with this much of it, and the answer, which may come before all of it was sent. `None`: it was put off.
    fn send(&self, server: SocketAddr, request: &str, from: usize, end: usize) -> Option<Reply> {
        let mut stream = head(server, request, from, end).unwrap();
        let sent = self.pieces(from, end, |piece| stream.write_all(piece));
        match (http::receive(&mut stream, "PUT"), sent) {
            (Ok(reply), _) => Some(reply).filter(|reply| !reply.is_put_off()),
            // Who does not stop sending may not hear that it was put off.
            (Err(_), Err(_)) => None,
            (Err(error), Ok(())) => panic!("{request}: {error}"),
        }
    }

    /// Adds this much of it to a session; if that is put off, what is not there yet, as clients do.
    fn append(&self, server: SocketAddr, location: &str, mut from: usize, end: usize) {
        for _ in 0..COMES_BACK {
            if let Some(reply) = self.send(server, &format!("PATCH {location}"), from, end) {
                assert_eq!((reply.status, reply.received()), (202, end), "{}", reply.text());
                return;
            }
            let received = received(server, location);
            assert!((from..=end).contains(&received), "{received} of {from} to {end}");
            if received == end {
                return;
            }
            from = received;
        }
        panic!("{location} was put off again and again");
    }

    /// All of it in one request, and if that is put off, in another one.
    fn push(&self, server: SocketAddr) {
        let digest = self.digest();
        let mut tries = (0..COMES_BACK).map(|_| {
            let request = format!("PUT {}?digest={digest}", start_upload(server));
            self.send(server, &request, 0, self.length)
        });
        let done = tries.find_map(|reply| reply).unwrap();
        assert_eq!(done.status, 201, "{}", done.text());
    }
}

fn head(server: SocketAddr, request: &str, from: usize, end: usize) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")?;
    if request.starts_with("PATCH") {
        write!(stream, "Content-Range: {from}-{}\r\n", end - 1)?;
    }
    write!(stream, "Content-Length: {}\r\n\r\n", end - from)?;
    Ok(stream)
}

fn start_upload(server: SocketAddr) -> String {
    let started = fleet::send(server, "POST", "/v2/large/blobs/uploads/", "", b"");
    assert_eq!(started.status, 202, "{}", started.text());
    started.header("location").to_owned()
}

fn received(server: SocketAddr, location: &str) -> usize {
    let status = fleet::send(server, "GET", location, "", b"");
    assert_eq!(status.status, 204, "{}", status.text());
    status.received()
}

fn finish(server: SocketAddr, location: &str, digest: &str) {
    let done = fleet::send(server, "PUT", &format!("{location}?digest={digest}"), "", b"");
    assert_eq!(done.status, 201, "{}", done.text());
}

/// What a pull gets, hashed as it comes.
fn digest_of_pull(server: SocketAddr, digest: &str) -> String {
    let (mut hasher, mut piece) = (Hasher::new(Algorithm::Sha256), vec![0; MIB]);
    let mut stream = pull(server, digest);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => return hasher.digest().to_string(),
            more => hasher.update(&piece[..more]),
        }
    }
}

/// The bytes, from the first one on.
fn pull(server: SocketAddr, digest: &str) -> TcpStream {
    for _ in 0..COMES_BACK {
        let mut stream = TcpStream::connect(server).unwrap();
        write!(stream, "GET /v2/large/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend_from_slice(&byte);
        }
        if head.starts_with(b"HTTP/1.1 200 ") {
            return stream;
        }
        assert!(head.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&head));
        thread::sleep(Duration::from_secs(1));
    }
    panic!("a pull was put off again and again");
}

// STATE-1, STATE-4
#[test]
fn a_large_torn_upload_goes_on_at_another_replica_at_its_last_durable_part() {
    let store = Minio::start();
    let mut fleet = Fleet::start(store.address);
    let content = Content::new(1, number("LARGE_MIB", 1024) * MIB);
    let digest = content.digest();
    let [first, second, third] = [0, 1, 2].map(|n: usize| fleet.replicas[n].address);
    let location = start_upload(first);
    let sent = content.length * 7 / 10;
    let torn = content.begin(first, &format!("PATCH {location}"), 0, content.length, sent).unwrap();
    fleet.kill(0);
    drop(torn);

    let received = received(second, &location);
    eprintln!("{} MiB sent, goes on at {} MiB", sent / MIB, received / MIB);
    assert!((sent.saturating_sub(LOST)..=sent).contains(&received), "{received}");
    content.append(third, &location, received, content.length);
    finish(second, &location, &digest);
    assert_eq!(digest_of_pull(third, &digest), digest);
    fleet::check(store.address);
}

#[test]
fn small_chunks_however_many_become_a_blob_whichever_replica_gets_them() {
    const CHUNK: usize = 100 << 10;
    let store = Minio::start();
    let fleet = Fleet::start(store.address);
    let content = Content::new(2, number("LARGE_CHUNKS", 500) * CHUNK);
    let digest = content.digest();
    let location = start_upload(fleet.address());
    for from in (0..content.length).step_by(CHUNK) {
        content.append(fleet.address(), &location, from, from + CHUNK);
    }
    finish(fleet.address(), &location, &digest);
    assert_eq!(digest_of_pull(fleet.address(), &digest), digest);
    fleet::check(store.address);
}

// GEN-11
#[test]
fn a_hundred_pushes_at_once_take_bounded_memory_and_do_not_wait_for_slow_clients() {
    let store = Minio::start();
    let fleet = Fleet::start(store.address);
    let replica = &fleet.replicas[0];
    let server = replica.address;
    // More than there is memory for. They say nothing more, and are not cut for that before the others are done.
    let slow = |n| {
        let content = Content::new(n, 16 * MIB);
        let request = format!("PUT {}?digest={}", start_upload(server), content.digest());
        content.begin(server, &request, 0, content.length, MIB).unwrap()
    };
    let slow: Vec<_> = (0..SLOW).map(slow).collect();
    thread::scope(|scope| {
        for n in 0..PUSHES {
            scope.spawn(move || Content::new(100 + n as u64, 16 * MIB).push(server));
        }
    });
    drop(slow);
    eprintln!("{PUSHES} pushes of 16 MiB: peak {} MiB", replica.peak() / 1024);
    assert!(replica.peak() < PEAK, "{} KiB", replica.peak());
}

// GEN-11
#[test]
fn silent_clients_that_go_on_with_sessions_take_bounded_memory_and_keep_nobody_waiting() {
    let store = Minio::start();
    let fleet = Fleet::start(store.address);
    let replica = &fleet.replicas[0];
    let server = replica.address;
    let begin = |n| {
        let location = start_upload(server);
        Content::new(n, 16 * MIB).append(server, &location, 0, 7 * MIB);
        location
    };
    // What the sessions have already is more than there is memory for.
    let sessions: Vec<_> = (0..SLOW).map(|n| (n, begin(n))).collect();
    let before = replica.peak();
    let go_on = |(n, location): (u64, String)| {
        let content = Content::new(n, 16 * MIB);
        content.begin(server, &format!("PATCH {location}"), 7 * MIB, content.length, 7 * MIB).unwrap()
    };
    let silent: Vec<_> = sessions.into_iter().map(go_on).collect();
    Content::new(100, 16 * MIB).push(server);
    drop(silent);
    eprintln!("{SLOW} silent clients: peak {} MiB, {} before", replica.peak() / 1024, before / 1024);
    // Without a bound it would be four times the memory more.
    assert!(replica.peak() < before + 2 * MEMORY, "{} KiB, {before} before", replica.peak());
}
