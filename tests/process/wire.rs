//! The requests of a history, as a client makes them over HTTP.

use std::{io, net::SocketAddr};

use marina_distribution::oci::{Algorithm, Digest};

use crate::{
    history::{
        content::{
            self, BLOBS, CHUNKS, MANIFESTS, OCI_IMAGE, OCI_INDEX, REFERRER, TAGS, manifest, manifest_of, need_of,
        },
        request::{Answer, Condition, Request},
    },
    load::http::{Reply, send},
};

/// What one history is about: two repositories that nobody else uses, and a session of the first.
pub(crate) struct Wire {
    repositories: [String; 2],
    session: String,
}

/// How many bytes stand for one of a session's, so that some of its chunks are worth a part.
const GRAIN: usize = 13_200;

impl Wire {
    pub(crate) fn open(registry: SocketAddr, name: &str) -> Self {
        let repositories = ["a", "b"].map(|repository| format!("/v2/{name}/{repository}"));
        let started = send(registry, "POST", &format!("{}/blobs/uploads/", repositories[0]), "", b"").unwrap();
        assert_eq!(started.status, 202, "{}", started.text());
        let session = started.header("location").to_owned();
        Self { repositories, session }
    }

    /// [`Answer::Unclear`] also where there was no answer.
    pub(crate) fn perform(&self, registry: SocketAddr, request: Request) -> Answer {
        match self.ask(registry, request) {
            Ok(reply) => answer(request, &reply),
            Err(_) => Answer::Unclear,
        }
    }

    fn ask(&self, registry: SocketAddr, request: Request) -> io::Result<Reply> {
        let ask = |method, path: &str| send(registry, method, path, "", b"");
        let [first, second] = &self.repositories;
        let by_tag = |tag: usize| format!("{first}/manifests/{}", TAGS[tag]);
        let by_digest = |manifest| format!("{first}/manifests/{}", content::digest(manifest));
        let of_blob = |repository: usize, index| format!("{}/blobs/{}", self.repositories[repository], blob(index));
        match request {
            Request::Push { manifest, tag, condition } => push(registry, &by_tag(tag), manifest, condition),
            Request::PushByDigest { manifest, tags } => {
                let tags = TAGS.iter().enumerate().filter(|(tag, _)| tags & (1 << tag) != 0);
                let tags: Vec<_> = tags.map(|(_, name)| format!("tag={name}")).collect();
                push(registry, &format!("{}?{}", by_digest(manifest), tags.join("&")), manifest, None)
            }
            Request::DeleteManifest(manifest) => ask("DELETE", &by_digest(manifest)),
            Request::DeleteTag(tag) => ask("DELETE", &by_tag(tag)),
            Request::Pull(manifest) => ask("GET", &by_digest(manifest)),
            Request::PullTag(tag) => ask("GET", &by_tag(tag)),
            Request::HeadTag(tag) => ask("HEAD", &by_tag(tag)),
            Request::ListTags => ask("GET", &format!("{first}/tags/list")),
            Request::ListReferrers => ask("GET", &format!("{first}/referrers/{}", content::digest(0))),
            Request::Upload { repository, blob: index } => {
                let path = format!("{}/blobs/uploads/?digest={}", self.repositories[repository], blob(index));
                send(registry, "POST", &path, "", &bytes(index))
            }
            Request::Stat { repository, blob } => ask("HEAD", &of_blob(repository, blob)),
            Request::DeleteBlob { repository, blob } => ask("DELETE", &of_blob(repository, blob)),
            Request::Mount(index) => {
                let from = first.trim_start_matches("/v2/");
                ask("POST", &format!("{second}/blobs/uploads/?mount={}&from={from}", blob(index)))
            }
            Request::Append(chunk) => {
                let (start, bytes) = (CHUNKS[chunk].0 * GRAIN as u64, grown(CHUNKS[chunk].1));
                let range = format!("Content-Range: {start}-{}\r\n", start + bytes.len() as u64 - 1);
                send(registry, "PATCH", &self.session, &range, &bytes)
            }
            Request::Status => ask("GET", &self.session),
            Request::Finish(index) => ask("PUT", &format!("{}?digest={}", self.session, blob(index))),
            Request::Cancel => ask("DELETE", &self.session),
            Request::Expire => unreachable!("no client can ask for it"),
        }
    }
}

fn push(registry: SocketAddr, path: &str, index: usize, condition: Option<Condition>) -> io::Result<Reply> {
    let condition = match condition {
        None => String::new(),
        Some(Condition::Absent) => "If-None-Match: *\r\n".to_owned(),
        Some(Condition::Is(manifest)) => format!("If-Match: \"{}\"\r\n", content::digest(manifest)),
    };
    let media_type = if index == content::INDEX { OCI_INDEX } else { OCI_IMAGE };
    let headers = format!("Content-Type: {media_type}\r\n{condition}");
    send(registry, "PUT", path, &headers, manifest(index).as_bytes())
}

fn answer(request: Request, reply: &Reply) -> Answer {
    match (request, reply.status) {
        (_, 503) => Answer::Unclear,
        (Request::Push { .. } | Request::PushByDigest { .. }, 400) => Answer::Missing(
            errors(reply).iter().map(|error| need_of(&digest(&error["detail"]["digest"])).unwrap()).collect(),
        ),
        (Request::Push { .. }, 412) => Answer::Refused,
        (Request::Finish(_), 400) => Answer::WrongDigest,
        (Request::Append(_), 416) => Answer::OutOfOrder(received(reply)),
        (Request::Append(_), 202) | (Request::Status, 204) => Answer::Received(received(reply)),
        // The client is offered a session instead.
        (_, 404) | (Request::Mount(_), 202) => Answer::Absent,
        (Request::Pull(_) | Request::PullTag(_) | Request::HeadTag(_), 200) => Answer::Manifest(found(request, reply)),
        (Request::ListTags, 200) => {
            let tags = TAGS.iter().enumerate();
            let is_listed = |name: &str| json(reply)["tags"].as_array().unwrap().iter().any(|tag| tag == name);
            Answer::Listed(tags.filter(|(_, name)| is_listed(name)).map(|(tag, _)| 1 << tag).sum())
        }
        (Request::ListReferrers, 200) => {
            let listed = json(reply)["manifests"].as_array().unwrap().clone();
            assert!(listed.iter().all(|entry| digest(&entry["digest"]) == content::digest(REFERRER)), "{listed:?}");
            Answer::Listed(listed.len())
        }
        (_, 200 | 201 | 202 | 204) => Answer::Done,
        (request, status) => panic!("{request:?}: {status} {}", reply.text()),
    }
}

/// The manifest that was answered, all of it.
fn found(request: Request, reply: &Reply) -> usize {
    let named = manifest_of(&Digest::parse(reply.header("docker-content-digest")).unwrap()).unwrap();
    assert!(named < MANIFESTS && (matches!(request, Request::HeadTag(_)) || reply.body == manifest(named).as_bytes()));
    named
}

/// Where a session stands, in the bytes of the model.
fn received(reply: &Reply) -> u64 {
    assert_eq!(reply.received() % GRAIN, 0, "{request} is amid a chunk", request = reply.header("range"));
    (reply.received() / GRAIN) as u64
}

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn errors(reply: &Reply) -> Vec<serde_json::Value> {
    json(reply)["errors"].as_array().unwrap().clone()
}

fn digest(text: &serde_json::Value) -> Digest {
    Digest::parse(text.as_str().unwrap()).unwrap()
}

/// The blobs of sessions are larger than in the model.
fn bytes(index: usize) -> Vec<u8> {
    if CHUNKS.iter().any(|(.., blob)| *blob == index) { grown(BLOBS[index]) } else { BLOBS[index].to_vec() }
}

fn grown(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [*byte; GRAIN]).collect()
}

fn blob(index: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &bytes(index))
}
