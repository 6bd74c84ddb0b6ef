//! Requests as bytes on a connection of their own, ready for the server to die at any moment.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// No answer ever takes so long, except from a server that hangs.
const HANG: Duration = Duration::from_mins(3);

/// `Err` if there was no whole answer: then nobody knows whether the request took effect.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HANG))?;
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
        (_, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => panic!("{method} {path}: no answer"),
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

    /// It cannot be done now, and says when to ask again, and nothing of why.
    pub(crate) fn is_put_off(&self) -> bool {
        let is_put_off = matches!(self.status, 429 | 503);
        if is_put_off {
            let text = self.text();
            assert!(self.find("retry-after").is_some(), "{}", self.head);
            assert!(self.body.is_empty() || text.contains("TOOMANYREQUESTS"), "{text}");
            assert!(["<Error>", "registry/", "data/", "images"].iter().all(|it| !text.contains(it)), "{text}");
        }
        is_put_off
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
