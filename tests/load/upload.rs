//! An upload session as its client sees it.

use std::{net::SocketAddr, ops::Range, sync::Arc};

use super::{
    client::{Client, Gone, present},
    http::{self, Reply},
};

pub(crate) struct Upload {
    location: String,
    /// Which blob it is of.
    blob: usize,
    /// The offset that was acknowledged.
    acknowledged: usize,
    /// That is still where the session stands: no chunk went unanswered.
    certain: bool,
    /// The offset from which a client may go on: it was said so after a crash.
    promised: usize,
    /// How much was ever sent.
    sent: usize,
    pub(crate) finishing: bool,
    cancelling: bool,
}

impl Upload {
    pub(crate) fn new(location: String, blob: usize) -> Self {
        Self {
            location,
            blob,
            acknowledged: 0,
            certain: true,
            promised: 0,
            sent: 0,
            finishing: false,
            cancelling: false,
        }
    }

    /// Sends some more: with a range, with a length, or neither.
    pub(crate) fn append(&mut self, client: &mut Client, server: SocketAddr) -> Result<(), Gone> {
        let total = client.blobs[self.blob].bytes.len();
        let more = client.random.below(total + 1);
        let end = |from: usize| total.min(from + more);
        let path = self.location.clone();
        let Some((reply, to)) = self.send(client, server, "PATCH", &path, end)? else { return Ok(()) };
        assert_eq!(reply.status, 202, "{}", reply.text());
        assert_eq!(reply.header("range"), format!("0-{}", to - 1));
        (self.acknowledged, self.promised, self.certain) = (to, to, true);
        Ok(())
    }

    /// Sends the rest and ends it.
    pub(crate) fn finish(&mut self, client: &mut Client, server: SocketAddr) -> Result<(), Gone> {
        let blobs = Arc::clone(&client.blobs);
        let blob = &blobs[self.blob];
        let effect = [present(&blob.digest)];
        let path = format!("{}?digest={}", self.location, blob.digest);
        client.ledger.sent(&effect);
        self.finishing = true;
        let reply = match self.send(client, server, "PUT", &path, |_| blob.bytes.len())? {
            Some((reply, _)) => reply,
            None => client.ask(server, "PUT", &path, "", b"")?,
        };
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
        client.ledger.acknowledged(&effect);
        Ok(())
    }

    pub(crate) fn cancel(&mut self, client: &mut Client, server: SocketAddr) -> Result<(), Gone> {
        self.cancelling = true;
        let location = self.location.clone();
        let reply = client.ask(server, "DELETE", &location, "", b"")?;
        assert!(reply.status == 204 || client.repeated && reply.status == 404, "{} {}", reply.status, reply.text());
        assert_eq!(client.ask(server, "GET", &location, "", b"")?.status, 404);
        Ok(())
    }

    /// Sends a chunk up to where `end` says, from wherever it may begin; the answer and where the chunk ended. `None`
    /// if it would be empty. What is out of order is sent again from where the answer says.
    fn send(
        &mut self,
        client: &mut Client,
        server: SocketAddr,
        method: &str,
        path: &str,
        end: impl Fn(usize) -> usize,
    ) -> Result<Option<(Reply, usize)>, Gone> {
        let mut from = if client.random.one_in(2) { self.promised } else { self.acknowledged };
        loop {
            let to = end(from);
            if from == to {
                return Ok(None);
            }
            let reply = self.send_chunk(client, server, (method, path), from..to)?;
            if reply.status != 416 || from == self.promised && self.certain {
                return Ok(Some((reply, to)));
            }
            // The range of one byte reads like that of none, which nobody refuses who begins there.
            let received = if from == 0 { reply.received().max(1) } else { reply.received() };
            assert!((self.acknowledged..=self.sent).contains(&received) && received != from);
            (from, self.promised) = (received, received);
        }
    }

    /// Only with a range can it begin elsewhere than at what was acknowledged.
    fn send_chunk(
        &mut self,
        client: &mut Client,
        server: SocketAddr,
        (method, path): (&str, &str),
        chunk: Range<usize>,
    ) -> Result<Reply, Gone> {
        let blobs = Arc::clone(&client.blobs);
        let bytes = &blobs[self.blob].bytes[chunk.clone()];
        self.sent = self.sent.max(chunk.end);
        self.promised = self.promised.min(chunk.end);
        let ranged = chunk.start != self.acknowledged || !self.certain;
        let sent = if ranged || client.random.one_in(3) {
            let range = format!("Content-Range: {}-{}\r\n", chunk.start, chunk.end - 1);
            client.ask(server, method, path, &range, bytes)
        } else if client.random.one_in(2) {
            let piece = 1 + client.random.below(100_000);
            client.ask(server, method, path, "Transfer-Encoding: chunked\r\n", &http::chunked(bytes, piece))
        } else {
            client.ask(server, method, path, "", bytes)
        };
        // Nobody knows whether it was appended.
        self.certain &= sent.is_ok();
        sent
    }

    /// After a restart: it stands where it said. `false`: it is over.
    pub(crate) fn verify(&mut self, client: &mut Client, server: SocketAddr) -> Result<bool, Gone> {
        let location = self.location.clone();
        let status = client.ask(server, "GET", &location, "", b"")?;
        match status.status {
            204 => {
                // The range of one byte reads like that of none.
                let received = status.received().max(usize::from(self.promised == 1));
                let least = self.promised.max(self.acknowledged);
                assert!((least..=self.sent).contains(&received), "{received} of {least} to {}", self.sent);
                let is_clear = received > 0 || self.sent == 0;
                self.certain = is_clear && received == self.acknowledged;
                self.promised = received;
                self.cancelling = false;
            }
            404 => assert!(self.finishing || self.cancelling, "an open upload is gone"),
            other => panic!("GET {location}: {other}"),
        }
        if self.finishing {
            // The answer was lost: asked again, whatever became of it, it is done.
            self.finish(client, server)?;
            let digest = client.blobs[self.blob].digest.clone();
            let path = format!("/v2/{}/blobs/{digest}", client.repository);
            assert!(client.ask(server, "GET", &path, "", b"")?.body == client.blobs[self.blob].bytes);
            return Ok(false);
        }
        Ok(status.status == 204)
    }
}
