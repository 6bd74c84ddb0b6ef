//! The real command as a child process, and a client that is ready for it to die at any moment.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use marina_distribution::{registry, store::fs::FsStore};

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
        send(self.address, method, path, headers, body).unwrap()
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

/// `Err` if there was no whole answer: then nobody knows whether the request took effect.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    let length = if headers.contains("Transfer-Encoding") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n");
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    match (sent, receive(&mut stream, method)) {
        // An answer may come before the body was heard out.
        (_, Ok(reply)) => Ok(reply),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// Reads one answer to the end of the connection.
pub(crate) fn receive(stream: &mut TcpStream, method: &str) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).map_err(io::Error::other)?;
    let reply = Reply { status: head[9..12].parse().map_err(io::Error::other)?, head, body };
    let length = reply.find("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if method != "HEAD" && reply.body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(reply)
}

/// A body in chunked coding.
pub(crate) fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut coded = Vec::new();
    for piece in body.chunks(piece) {
        write!(coded, "{:x}\r\n", piece.len()).unwrap();
        coded.extend_from_slice(piece);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// The offset behind a `Range: 0-N`, which says 0 both of nothing and of one byte.
    pub(crate) fn received(&self) -> usize {
        let last: usize = self.header("range").strip_prefix("0-").unwrap().parse().unwrap();
        if last == 0 { 0 } else { last + 1 }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
