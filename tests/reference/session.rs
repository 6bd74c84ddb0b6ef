//! Upload sessions: what was acknowledged, and what a torn body left beyond it.

use super::{
    answer::Answer,
    ask::{At, Chunk, Claim, Finish, Sent},
    content::{sha256, sha512},
    registry::Reference,
};

/// As the store of this test has them.
const PART: usize = 5;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    name: &'static str,
    accepted: Received,
    /// What is durable beyond that: whole parts.
    ahead: Option<Received>,
    end: End,
}

/// Bytes from the first on, and whether they are hashed by sha512.
#[derive(Clone, Debug)]
struct Received {
    bytes: Vec<u8>,
    is_long: bool,
}

impl Received {
    fn are(&self, digest: &str) -> bool {
        digest == if self.is_long { sha512(&self.bytes) } else { sha256(&self.bytes) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    Cancelled,
    /// The digest, and the bytes if they can be published again without being sent again: those that came as parts.
    Finished(String, Option<Vec<u8>>),
}

impl Session {
    pub(crate) fn new(name: &'static str, is_long: bool) -> Self {
        let accepted = Received { bytes: Vec::new(), is_long };
        Self { id: String::new(), name, accepted, ahead: None, end: End::Open }
    }

    /// What a client knows when it sends a chunk.
    pub(crate) fn at(&self, chunk: Option<Chunk>) -> At {
        let mut at = At {
            url: format!("/v2/{}/blobs/uploads/{}", self.name, self.id),
            offset: self.received(),
            whole: Vec::new(),
        };
        if let Some(chunk) = chunk {
            at.whole.clone_from(&self.from(chunk).unwrap_or(&self.accepted).bytes);
            at.whole.extend(chunk.bytes());
        }
        at
    }

    pub(crate) fn stands(&self) -> Answer {
        if self.end != End::Open {
            return unknown();
        }
        standing(Answer::new(204), self.name, &self.id, self.received())
    }

    pub(crate) fn cancel(&mut self) -> Answer {
        if self.end != End::Open {
            return unknown();
        }
        self.end = End::Cancelled;
        Answer::new(204)
    }

    fn received(&self) -> u64 {
        self.ahead.as_ref().unwrap_or(&self.accepted).bytes.len() as u64
    }

    /// The bytes that a chunk follows, if it fits.
    fn from(&self, chunk: Chunk) -> Option<&Received> {
        let Claim::Range(start, _) = chunk.claims(self.received()) else { return Some(&self.accepted) };
        let fits = |received: &&Received| received.bytes.len() as u64 == start;
        Some(&self.accepted).filter(fits).or_else(|| self.ahead.as_ref().filter(fits))
    }

    /// What a chunk makes of the session's bytes; or why it is not taken, and what it leaves all the same. The first bytes of
    /// all are hashed as the digest is by which they are to be finished.
    fn take(&mut self, chunk: Chunk, finish: Option<&str>) -> Result<Received, Answer> {
        let size_invalid = || Answer::refusal(400, "SIZE_INVALID");
        let declared = match chunk.claims(self.received()) {
            Claim::Range(start, end) => Some(end + 1 - start),
            _ => None,
        };
        let is_wrong = declared.is_some_and(|declared| declared != chunk.bytes().len() as u64);
        if is_wrong && chunk.body == Sent::Whole {
            return Err(size_invalid());
        }
        let Some(from) = self.from(chunk) else {
            let refusal = Answer::refusal(416, "BLOB_UPLOAD_INVALID");
            return Err(standing(refusal, self.name, &self.id, self.received()));
        };
        let is_long = match finish {
            Some(digest) if from.bytes.is_empty() => digest.starts_with("sha512:"),
            _ => from.is_long,
        };
        let mut whole = Received { bytes: [from.bytes.as_slice(), chunk.bytes()].concat(), is_long };
        if chunk.body == Sent::Torn {
            let durable = whole.bytes.len() / PART * PART;
            if durable as u64 > self.received() {
                whole.bytes.truncate(durable);
                self.ahead = Some(whole);
            }
            return Err(size_invalid());
        }
        if is_wrong { Err(size_invalid()) } else { Ok(whole) }
    }
}

impl Reference {
    pub(crate) fn append(&mut self, session: usize, chunk: Chunk) -> Answer {
        let session = &mut self.sessions[session];
        if session.end != End::Open {
            return unknown();
        }
        if matches!(chunk.claims(session.received()), Claim::Malformed) {
            return Answer::refusal(400, "BLOB_UPLOAD_INVALID");
        }
        let whole = match session.take(chunk, None) {
            Ok(whole) => whole,
            Err(refusal) => return refusal,
        };
        let received = whole.bytes.len() as u64;
        if !chunk.bytes().is_empty() {
            (session.accepted, session.ahead) = (whole, None);
        }
        standing(Answer::new(202).measured(), session.name, &session.id, received)
    }

    pub(crate) fn close(&mut self, index: usize, digest: Finish, chunk: Chunk) -> Answer {
        let session = &self.sessions[index];
        let name = session.name;
        let refusal = match (chunk.claims(session.received()), digest.text(&session.at(Some(chunk)))) {
            (Claim::Malformed, _) => Err("BLOB_UPLOAD_INVALID"),
            (_, Some(digest)) if !digest.starts_with("blake3:") && digest != "sha256:0" => Ok(digest),
            _ => Err("DIGEST_INVALID"),
        };
        let digest = match refusal {
            Ok(digest) => digest,
            Err(_) if session.end != End::Open => return unknown(),
            Err(code) => return Answer::refusal(400, code),
        };
        let is_there = |it: &Self| it.repositories.get(name).and_then(|it| it.blobs.get(&digest)).cloned();
        match &session.end {
            End::Open => {}
            // The reply to an earlier finish may have been lost.
            _ if let Some(bytes) = is_there(self) => return self.store(name, &digest, bytes),
            End::Finished(as_what, Some(bytes)) if *as_what == digest => {
                let bytes = bytes.clone();
                return self.store(name, &digest, bytes);
            }
            End::Finished(as_what, None) if *as_what == digest => {}
            End::Finished(..) | End::Cancelled => return unknown(),
        }
        let session = &mut self.sessions[index];
        let mut whole = match session.take(chunk, Some(&digest)) {
            Ok(whole) => whole.bytes,
            Err(refusal) => return refusal,
        };
        // Nothing more comes: then the digest may tell that it is what a torn body left that is meant.
        if let (true, Sent::Whole, Some(ahead)) = (chunk.bytes().is_empty(), chunk.body, &session.ahead)
            && !matches!(chunk.claims(session.received()), Claim::Range(..))
            && !session.accepted.are(&digest)
        {
            whole.clone_from(&ahead.bytes);
        }
        if ![sha256(&whole), sha512(&whole)].contains(&digest) {
            if session.end != End::Open {
                return unknown();
            }
            session.end = End::Cancelled;
            return Answer::refusal(400, "DIGEST_INVALID");
        }
        session.end = End::Finished(digest.clone(), (whole.len() >= PART).then(|| whole.clone()));
        self.store(name, &digest, whole)
    }
}

fn unknown() -> Answer {
    Answer::refusal(404, "BLOB_UPLOAD_UNKNOWN")
}

/// Says where a session stands.
pub(crate) fn standing(answer: Answer, name: &str, id: &str, received: u64) -> Answer {
    answer
        .with("location", format!("/v2/{name}/blobs/uploads/{id}"))
        .with("range", format!("0-{}", received.saturating_sub(1)))
        .with("docker-upload-uuid", id)
}
