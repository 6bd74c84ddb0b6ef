//! Many writers at once, over all replicas: every write that was acknowledged is there.

use std::thread;

use serde_json::Value;

use crate::{
    fleet::{self, Fleet},
    load::{
        content::{self, Blob, MANIFEST},
        http::Reply,
    },
    minio::Minio,
};

const WRITERS: usize = 50;
/// How often two clients race for one chunk.
const RACES: usize = 50;

#[test]
fn of_many_writers_over_three_replicas_nobody_is_forgotten() {
    let store = Minio::start();
    let fleet = Fleet::start(store.address);
    let config = Blob { digest: content::sha256(b"{}"), bytes: b"{}".to_vec() };
    let path = format!("/v2/races/blobs/uploads/?digest={}", config.digest);
    assert_eq!(fleet.send("POST", &path, "", &config.bytes).status, 201);
    on_one_tag(&fleet, &config);
    on_many_tags(&fleet, &config);
    on_many_referrers(&fleet, &config);
    on_one_digest(&fleet);
    let judged = (0..RACES).filter(|&race| on_one_chunk(&fleet, race)).count();
    assert!(judged > RACES / 2, "{judged} of {RACES} races had an end");
    fleet::check(store.address);
}

/// All at the same time, through the balancer.
fn together<T: Send>(writers: usize, write: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let write = &write;
        let writing: Vec<_> = (0..writers).map(|n| scope.spawn(move || write(n))).collect();
        writing.into_iter().map(|writing| writing.join().unwrap()).collect()
    })
}

/// An image, told from others by its number.
fn push_image(fleet: &Fleet, config: &Blob, number: usize, subject: Option<&str>, reference: Option<&str>) -> String {
    let image = content::image(config, &[], subject, number);
    let digest = content::sha256(image.as_bytes());
    let path = format!("/v2/races/manifests/{}", reference.unwrap_or(&digest));
    let reply = fleet.send("PUT", &path, &format!("Content-Type: {MANIFEST}\r\n"), image.as_bytes());
    assert_eq!(reply.status, 201, "{}", reply.text());
    digest
}

fn get(fleet: &Fleet, path: &str) -> Reply {
    let reply = fleet.send("GET", path, "", b"");
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply
}

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn on_one_tag(fleet: &Fleet, config: &Blob) {
    let pushed = together(WRITERS, |n| push_image(fleet, config, n, None, Some("one")));
    let tag = content::sha256(&get(fleet, "/v2/races/manifests/one").body);
    assert!(pushed.contains(&tag));
    for digest in &pushed {
        assert_eq!(content::sha256(&get(fleet, &format!("/v2/races/manifests/{digest}")).body), *digest);
    }
    // The tag is done with for all of them, and not only for who came last.
    let last = push_image(fleet, config, WRITERS, None, Some("one"));
    for _ in 0..fleet.len() {
        assert_eq!(content::sha256(&get(fleet, "/v2/races/manifests/one").body), last);
    }
}

fn on_many_tags(fleet: &Fleet, config: &Blob) {
    let tag = |n: usize| format!("tag-{n:02}");
    let pushed = together(WRITERS, |n| push_image(fleet, config, 100 + n, None, Some(&tag(n))));
    let listed = json(&get(fleet, "/v2/races/tags/list?n=1000"));
    for (n, digest) in pushed.iter().enumerate() {
        assert!(listed["tags"].as_array().unwrap().contains(&tag(n).into()));
        assert_eq!(content::sha256(&get(fleet, &format!("/v2/races/manifests/{}", tag(n))).body), *digest);
    }
}

fn on_many_referrers(fleet: &Fleet, config: &Blob) {
    let subject = push_image(fleet, config, 200, None, None);
    let pushed = together(WRITERS, |n| push_image(fleet, config, 300 + n, Some(&subject), None));
    let listed = json(&get(fleet, &format!("/v2/races/referrers/{subject}")));
    let mut listed: Vec<_> = listed["manifests"].as_array().unwrap().iter().map(|it| it["digest"].clone()).collect();
    let mut pushed: Vec<Value> = pushed.into_iter().map(Value::from).collect();
    listed.sort_by_key(Value::to_string);
    pushed.sort_by_key(Value::to_string);
    assert_eq!(listed, pushed);
}

fn on_one_digest(fleet: &Fleet) {
    let bytes = vec![42; 100_000];
    let digest = content::sha256(&bytes);
    let path = format!("/v2/races/blobs/uploads/?digest={digest}");
    for reply in together(WRITERS, |_| fleet.send("POST", &path, "", &bytes)) {
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    assert!(get(fleet, &format!("/v2/races/blobs/{digest}")).body == bytes);
}

/// Whose bytes are appended is known, since they differ. `false`: the store did not say whose.
fn on_one_chunk(fleet: &Fleet, race: usize) -> bool {
    let started = fleet.send("POST", "/v2/races/blobs/uploads/", "", b"");
    let location = started.header("location");
    // Now and then large enough for a part.
    let length = if race.is_multiple_of(10) { 9 << 20 } else { 1000 };
    let chunk = |writer: usize| vec![u8::try_from(1 + writer).unwrap(); length];
    let range = format!("Content-Range: 0-{}\r\n", length - 1);
    let replies = together(2, |writer| fleet.send_once("PATCH", location, &range, &chunk(writer)));
    if replies.iter().any(Reply::is_put_off) {
        return false;
    }
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    let winner = statuses.iter().position(|status| *status == 202).unwrap();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 416]);
    let digest = content::sha256(&chunk(winner));
    let done = fleet.send("PUT", &format!("{location}?digest={digest}"), "", b"");
    assert_eq!(done.status, 201, "{}", done.text());
    assert!(get(fleet, &format!("/v2/races/blobs/{digest}")).body == chunk(winner));
    true
}
