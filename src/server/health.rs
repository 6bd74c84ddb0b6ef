//! Asking a running server, from another process, whether it is ready, or alive at least.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether requests may be sent there.
    Ready,
    /// Whether it runs.
    Live,
}

/// Asks the server that listens there. An error says why the answer is no, or that it is not there.
pub fn ask(listen: SocketAddr, question: Question) -> io::Result<()> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    ask_at(address, question).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

fn ask_at(address: SocketAddr, question: Question) -> io::Result<()> {
    let path = match question {
        Question::Ready => "/readyz",
        Question::Live => "/livez",
    };
    let mut server = TcpStream::connect_timeout(&address, PATIENCE)?;
    server.set_read_timeout(Some(PATIENCE))?;
    write!(server, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let why = answer.lines().last().filter(|line| !line.is_empty());
    Err(io::Error::other(why.unwrap_or("no answer").to_owned()))
}

/// Who listens on every address listens on that of this host.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// What is made of an answer by a server that listens on every address.
    fn asked(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let request: Vec<String> = BufReader::new(&client).lines().map_while(Result::ok).take(4).collect();
            client.write_all(answer.as_bytes()).unwrap();
            assert_eq!((request[0].as_str(), request[3].as_str()), ("GET /readyz HTTP/1.1", ""));
        });
        let asked = ask(address, Question::Ready).map_err(|error| error.to_string());
        server.join().unwrap();
        asked
    }

    #[test]
    fn only_a_server_that_says_200_is_ready() {
        assert_eq!(asked("HTTP/1.1 200 OK\r\n\r\nok\n"), Ok(()));
        let red = "HTTP/1.1 503 Service Unavailable\r\n\r\nstore unavailable\n";
        let why = asked(red).unwrap_err();
        assert!(why.starts_with("127.0.0.1:") && why.ends_with(": store unavailable"), "{why}");
        assert!(asked("").is_err());
    }
}
