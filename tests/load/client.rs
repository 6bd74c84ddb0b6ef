//! A client with a repository of its own: what it does, and how it sees after a crash that nothing is lost.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{
    content::{self, Blob, INDEX, MANIFEST, Random},
    http::{self, Reply},
    ledger::{Ledger, Moves, State, Thing},
    upload::Upload,
};

/// The server went away before it had answered, or it says that it cannot now.
#[derive(Debug)]
pub(crate) struct Gone;

pub(crate) const SHARED: &str = "shared";
const TAGS: [&str; 5] = ["latest", "Latest", "v1", "v1.1", "edge"];
const NOTES: usize = 3;
const OPEN_UPLOADS: usize = 3;
/// How long a client that was put off waits.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Client {
    pub(crate) repository: String,
    peers: Vec<String>,
    pub(crate) blobs: Arc<Vec<Blob>>,
    pub(crate) random: Random,
    pub(crate) ledger: Ledger,
    /// Media type and bytes of all manifests that were ever sent.
    manifests: BTreeMap<String, (&'static str, String)>,
    uploads: Vec<Upload>,
    moves: Arc<Mutex<Moves>>,
    /// What is not answered is asked again until it is, as clients do in front of several servers.
    patient: bool,
    /// The last request was sent more than once.
    pub(crate) repeated: bool,
    /// How many requests were answered.
    pub(crate) answers: u64,
}

impl Client {
    pub(crate) fn new(
        (n, of): (usize, usize),
        seed: u64,
        patient: bool,
        blobs: Arc<Vec<Blob>>,
        moves: Arc<Mutex<Moves>>,
    ) -> Self {
        let name = |n: usize| format!("client/{n}");
        Self {
            repository: name(n),
            peers: (0..of).filter(|peer| *peer != n).map(name).collect(),
            blobs,
            random: Random(seed),
            ledger: Ledger::default(),
            manifests: BTreeMap::new(),
            uploads: Vec::new(),
            moves,
            patient,
            repeated: false,
            answers: 0,
        }
    }

    /// Does one thing after the other until it is enough, or until the server is gone and that is not to be endured.
    pub(crate) fn work(&mut self, server: SocketAddr, enough: impl Fn() -> bool) {
        while !enough() {
            if self.step(server).is_err() {
                if !self.patient {
                    return;
                }
                self.end_uploads(server);
            }
        }
    }

    /// Of what is to be ended it must be known whether it was.
    fn end_uploads(&mut self, server: SocketAddr) {
        let (ending, open) = std::mem::take(&mut self.uploads).into_iter().partition(|upload| upload.finishing);
        self.uploads = open;
        let ending: Vec<Upload> = ending;
        for mut upload in ending {
            while upload.finish(self, server).is_err() {}
        }
    }

    fn step(&mut self, server: SocketAddr) -> Result<(), Gone> {
        match self.random.below(24) {
            0..=2 => self.push_whole(server),
            3..=5 => self.push_in_session(server),
            6 | 7 => self.go_on_with_an_upload(server),
            8 => self.cancel_an_upload(server),
            9 => self.mount(server),
            10..=12 => self.push_image(server),
            13 => self.push_index(server),
            14 | 15 => self.move_tag(server),
            16 => self.move_the_shared_tag(server),
            17 => self.delete_a_tag(server),
            18 => self.delete_a_manifest(server),
            19 => self.delete_a_blob(server),
            _ => self.pull(server),
        }
    }

    pub(crate) fn ask(
        &mut self,
        server: SocketAddr,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Reply, Gone> {
        self.repeated = false;
        loop {
            match http::send(server, method, path, headers, body) {
                Ok(reply) if self.patient && reply.is_put_off() => {}
                Ok(reply) => {
                    assert!(reply.status < 500, "{method} {path}: {} {}", reply.status, reply.text());
                    self.answers += 1;
                    return Ok(reply);
                }
                Err(_) => {}
            }
            // A chunk that may have been appended is not sent again without looking.
            if !self.patient || is_chunk(method, path, body) {
                return Err(Gone);
            }
            self.repeated = true;
            thread::sleep(PAUSE);
        }
    }

    /// A request that is known to succeed, and changes this.
    pub(crate) fn change(
        &mut self,
        server: SocketAddr,
        effects: &[(Thing, State)],
        request: (&str, &str, &str, &[u8]),
        status: u16,
    ) -> Result<Reply, Gone> {
        let (method, path, headers, body) = request;
        self.ledger.sent(effects);
        let reply = self.ask(server, method, path, headers, body)?;
        // What was deleted is not there the second time.
        let again = self.repeated && method == "DELETE" && reply.status == 404;
        assert!(reply.status == status || again, "{method} {path}: {} {}", reply.status, reply.text());
        self.ledger.acknowledged(effects);
        Ok(reply)
    }

    fn push_whole(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let blobs = Arc::clone(&self.blobs);
        let Some(Blob { digest, .. }) = self.random.pick(&blobs) else { return Ok(()) };
        self.push_blob(server, digest)
    }

    /// Whether it is there or not, it is after that.
    fn push_blob(&mut self, server: SocketAddr, digest: &str) -> Result<(), Gone> {
        let blobs = Arc::clone(&self.blobs);
        let bytes = blobs.iter().find(|blob| blob.digest == digest).map_or(&[][..], |blob| &blob.bytes);
        let path = format!("/v2/{}/blobs/uploads/?digest={digest}", self.repository);
        self.change(server, &[present(digest)], ("POST", &path, "", bytes), 201).map(drop)
    }

    /// In one go, or in a few chunks, or only a few chunks.
    fn push_in_session(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let started = self.ask(server, "POST", &path, "", b"")?;
        assert_eq!(started.status, 202);
        let blob = self.random.below(self.blobs.len());
        let mut upload = Upload::new(started.header("location").to_owned(), blob);
        let done = (0..self.random.below(4)).try_for_each(|_| upload.append(self, server));
        let leave = self.uploads.len() < OPEN_UPLOADS && self.random.one_in(3);
        let done = done.and_then(|()| if leave { Ok(()) } else { upload.finish(self, server) });
        if done.is_err() || leave {
            self.uploads.push(upload);
        }
        done
    }

    fn go_on_with_an_upload(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let Some(mut upload) = self.take_an_upload() else { return Ok(()) };
        let finish = self.random.one_in(2);
        let done = if finish { upload.finish(self, server) } else { upload.append(self, server) };
        if done.is_err() || !finish {
            self.uploads.push(upload);
        }
        done
    }

    fn cancel_an_upload(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let Some(mut upload) = self.take_an_upload() else { return Ok(()) };
        let done = upload.cancel(self, server);
        if done.is_err() {
            self.uploads.push(upload);
        }
        done
    }

    fn take_an_upload(&mut self) -> Option<Upload> {
        if self.uploads.is_empty() {
            None
        } else {
            Some(self.uploads.swap_remove(self.random.below(self.uploads.len())))
        }
    }

    fn mount(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let blobs = Arc::clone(&self.blobs);
        let (Some(blob), Some(peer)) = (self.random.pick(&blobs), self.random.pick(&self.peers)) else { return Ok(()) };
        let digest = &blob.digest;
        let before = self.ledger.known(&Thing::Blob(digest.clone()));
        let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={peer}", self.repository);
        self.ledger.sent(&[present(digest)]);
        let reply = self.ask(server, "POST", &path, "", b"")?;
        match reply.status {
            201 => self.ledger.acknowledged(&[present(digest)]),
            // An earlier request may have found it at the peer, and mount it yet.
            202 if self.repeated => return self.push_blob(server, digest),
            // The peer does not have it.
            202 => self.ledger.acknowledged(&[(Thing::Blob(digest.clone()), before)]),
            status => panic!("{path}: {status} {}", reply.text()),
        }
        Ok(())
    }

    fn push_image(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let known = self.ledger.known_blobs();
        let blobs = Arc::clone(&self.blobs);
        let mut choice = || {
            let digest = self.random.pick(&known)?;
            blobs.iter().find(|blob| blob.digest == *digest)
        };
        let (Some(config), Some(one), Some(two)) = (choice(), choice(), choice()) else { return Ok(()) };
        let subject = match self.random.below(4) {
            0 => self.random.pick(&self.ledger.known_manifests()).cloned(),
            // It need not exist.
            1 => Some(blobs[0].digest.clone()),
            _ => None,
        };
        let bytes = content::image(config, &[one, two], subject.as_deref(), self.random.below(NOTES));
        let mut effects = Vec::new();
        if let Some(subject) = subject {
            let digest = content::sha256(bytes.as_bytes());
            effects.push((Thing::Referrer { subject, digest: digest.clone() }, Some(digest)));
        }
        self.push_manifest(server, MANIFEST, &bytes, effects)
    }

    fn push_index(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let known = self.ledger.known_manifests();
        let children: Vec<_> = (0..2).filter_map(|_| self.random.pick(&known)).cloned().collect();
        // Indexes of indexes of indexes would grow for ever.
        let images = children.iter().filter_map(|digest| Some((digest.as_str(), self.manifests.get(digest)?)));
        let images: Vec<_> =
            images.filter(|(_, (kind, _))| *kind == MANIFEST).map(|(it, (_, bytes))| (it, bytes.len())).collect();
        let bytes = content::index(&images);
        self.push_manifest(server, INDEX, &bytes, Vec::new())
    }

    /// By its digest, by a tag, or by its digest with several tags.
    fn push_manifest(
        &mut self,
        server: SocketAddr,
        media_type: &'static str,
        bytes: &str,
        mut effects: Vec<(Thing, State)>,
    ) -> Result<(), Gone> {
        let digest = content::sha256(bytes.as_bytes());
        let some_tags: Vec<_> = (0..self.random.below(4)).filter_map(|_| self.random.pick(&TAGS)).collect();
        let reference = match some_tags.as_slice() {
            [] => digest.clone(),
            [tag] => (*tag).to_string(),
            tags => format!("{digest}?tag={}", tags.iter().map(|it| **it).collect::<Vec<_>>().join("&tag=")),
        };
        effects.push((Thing::Manifest(digest.clone()), Some(digest.clone())));
        effects.extend(some_tags.iter().map(|tag| (Thing::Tag((**tag).to_owned()), Some(digest.clone()))));
        let path = format!("/v2/{}/manifests/{reference}", self.repository);
        let headers = format!("Content-Type: {media_type}\r\n");
        self.manifests.insert(digest, (media_type, bytes.to_owned()));
        self.change(server, &effects, ("PUT", &path, &headers, bytes.as_bytes()), 201).map(drop)
    }

    /// To a manifest that is there.
    fn move_tag(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let known = self.ledger.known_manifests();
        let Some(digest) = self.random.pick(&known) else { return Ok(()) };
        let Some((media_type, bytes)) = self.manifests.get(digest).cloned() else { return Ok(()) };
        // What it names may have been deleted since, and then it cannot be pushed again.
        let names: serde_json::Value = serde_json::from_str(&bytes).unwrap();
        let blobs = names["layers"].as_array().into_iter().flatten().chain(names.get("config"));
        let held = blobs.clone().all(|it| self.knows(&Thing::Blob(it["digest"].as_str().unwrap().to_owned())));
        let children = names["manifests"].as_array().into_iter().flatten();
        let all = children.clone().all(|it| self.knows(&Thing::Manifest(it["digest"].as_str().unwrap().to_owned())));
        if !held || !all {
            return Ok(());
        }
        let subject = names["subject"]["digest"].as_str().map(str::to_owned);
        let referrer =
            subject.map(|subject| (Thing::Referrer { subject, digest: digest.clone() }, Some(digest.clone())));
        self.push_manifest(server, media_type, &bytes, referrer.into_iter().collect())
    }

    fn knows(&self, thing: &Thing) -> bool {
        self.ledger.known(thing).is_some()
    }

    fn move_the_shared_tag(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let blobs = Arc::clone(&self.blobs);
        let bytes = content::image(&blobs[0], &[], None, self.random.below(1000));
        let path = format!("/v2/{SHARED}/manifests/moving");
        let number = self.moves.lock().unwrap().sent(&content::sha256(bytes.as_bytes()));
        let headers = format!("Content-Type: {MANIFEST}\r\n");
        let reply = self.ask(server, "PUT", &path, &headers, bytes.as_bytes())?;
        assert_eq!(reply.status, 201, "{}", reply.text());
        self.moves.lock().unwrap().acknowledged(number);
        Ok(())
    }

    fn delete_a_tag(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let Some(tag) = self.random.pick(&self.ledger.known_tags()).cloned() else { return Ok(()) };
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        self.change(server, &[(Thing::Tag(tag), None)], ("DELETE", &path, "", b""), 202).map(drop)
    }

    fn delete_a_manifest(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let Some(digest) = self.random.pick(&self.ledger.known_manifests()).cloned() else { return Ok(()) };
        let path = format!("/v2/{}/manifests/{digest}", self.repository);
        let mut effects: Vec<_> = self.ledger.hanging_on(&digest).into_iter().map(|thing| (thing, None)).collect();
        effects.push((Thing::Manifest(digest), None));
        self.change(server, &effects, ("DELETE", &path, "", b""), 202).map(drop)
    }

    fn delete_a_blob(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let Some(digest) = self.random.pick(&self.ledger.known_blobs()).cloned() else { return Ok(()) };
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        self.change(server, &[(Thing::Blob(digest), None)], ("DELETE", &path, "", b""), 202).map(drop)
    }

    /// What is known is so, to the last byte.
    fn pull(&mut self, server: SocketAddr) -> Result<(), Gone> {
        let things = self.ledger.things();
        let Some(thing) = self.random.pick(&things) else { return Ok(()) };
        let seen = self.look(server, thing)?;
        self.ledger.observed(thing, seen);
        Ok(())
    }

    /// After a restart: everything that is known is so, and what is not known becomes so.
    pub(crate) fn verify(&mut self, server: SocketAddr) -> Result<(), Gone> {
        for thing in self.ledger.things() {
            let seen = self.look(server, &thing)?;
            self.ledger.observed(&thing, seen);
        }
        let path = format!("/v2/{}/tags/list", self.repository);
        let listed = self.ask(server, "GET", &path, "", b"")?;
        let tags: Vec<String> = match listed.status {
            200 => serde_json::from_value(json(&listed)["tags"].clone()).unwrap(),
            // Nothing was pushed here yet.
            _ => Vec::new(),
        };
        assert_eq!(tags, self.ledger.known_tags());
        for mut upload in std::mem::take(&mut self.uploads) {
            match upload.verify(self, server) {
                Ok(true) => self.uploads.push(upload),
                Ok(false) => {}
                Err(gone) => {
                    self.uploads.push(upload);
                    return Err(gone);
                }
            }
        }
        Ok(())
    }

    /// Reads a thing to its last byte, until it is the store that says whether it is there. What a replica remembers while
    /// the store gives no answer may have been deleted by way of another one, but must be the right bytes.
    fn look(&mut self, server: SocketAddr, thing: &Thing) -> Result<State, Gone> {
        loop {
            let (reply, state) = self.read(server, thing)?;
            if reply.find("cache-status").is_none() {
                return Ok(state);
            }
            assert!(self.patient && matches!(thing, Thing::Manifest(_)), "{thing:?} from memory");
            thread::sleep(PAUSE);
        }
    }

    fn read(&mut self, server: SocketAddr, thing: &Thing) -> Result<(Reply, State), Gone> {
        let path = match thing {
            Thing::Blob(digest) => format!("/v2/{}/blobs/{digest}", self.repository),
            Thing::Manifest(of) | Thing::Tag(of) => format!("/v2/{}/manifests/{of}", self.repository),
            Thing::Referrer { subject, .. } => format!("/v2/{}/referrers/{subject}", self.repository),
        };
        let reply = self.ask(server, "GET", &path, "", b"")?;
        if reply.status == 404 {
            return Ok((reply, None));
        }
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
        if let Thing::Referrer { digest, .. } = thing {
            let listed = json(&reply);
            let mut referrers = listed["manifests"].as_array().unwrap().iter();
            let state = referrers.any(|it| it["digest"] == **digest).then(|| digest.clone());
            return Ok((reply, state));
        }
        let digest = content::sha256(&reply.body);
        assert_eq!(reply.header("docker-content-digest"), digest, "GET {path}");
        if !matches!(thing, Thing::Blob(_)) {
            assert_eq!(reply.header("content-type"), self.manifests[&digest].0, "GET {path}");
        }
        Ok((reply, Some(digest)))
    }
}

fn is_chunk(method: &str, path: &str, body: &[u8]) -> bool {
    path.contains("/blobs/uploads/") && (method == "PATCH" || method == "PUT" && !body.is_empty())
}

pub(crate) fn present(blob: &str) -> (Thing, State) {
    (Thing::Blob(blob.to_owned()), Some(blob.to_owned()))
}

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_slice(&reply.body).unwrap()
}
