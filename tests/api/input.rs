//! No input is ever our fault: properties of requests made of words that mean something somewhere.

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::support::{
    Reply, Server,
    images::{NOWHERE, OCI_INDEX, OCI_MANIFEST, bytes, sha256},
    in_memory,
};

/// Words that mean something somewhere, and any others.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "v2", "a", "b", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog", "_oci", "ext", "discover",
            "", ".", "..", "latest", "sha256", "sha512:", "mount", "from", "digest", "tag", "n", "last", "artifactType", "%", "%2F",
            "%00", "%ff", NOWHERE, "123e4567-e89b-42d3-a456-426614174000", "bytes=0-1", "0-5", "-1", "18446744073709551615",
            "99999999999999999999", "bytes=-0", "bytes=1-0,5-", "*", "\"x\"",
        ]).prop_map(ToOwned::to_owned),
        1 => "[ -~]{0,20}",
        1 => "\\PC{0,8}",
    ]
}

fn encoded(text: &str, extra: &str) -> String {
    let keep = |byte: u8| {
        byte.is_ascii_alphanumeric() || "-._~:%*,=".contains(char::from(byte)) || extra.contains(char::from(byte))
    };
    text.bytes().map(|it| if keep(it) { char::from(it).to_string() } else { format!("%{it:02x}") }).collect()
}

prop_compose! {
    fn url()(
        rooted in prop::bool::weighted(0.9),
        path in prop::collection::vec(word(), 0..7),
        query in prop::collection::vec((word(), word()), 0..4),
    ) -> String {
        let path: Vec<_> = path.iter().map(|it| encoded(it, "")).collect();
        let query: Vec<_> = query.iter().map(|(key, value)| format!("{}={}", encoded(key, "+"), encoded(value, "+/?"))).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        format!("/{}{}{query}", if rooted { "v2/" } else { "" }, path.join("/"))
    }
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let names = vec![
        "range",
        "if-range",
        "content-range",
        "if-match",
        "if-none-match",
        "accept",
        "content-type",
        "expect",
        "host",
    ];
    prop::collection::vec((prop::sample::select(names), word().prop_map(|it| encoded(&it, " \"/<>"))), 0..4)
        .prop_map(|headers| headers.into_iter().filter(|(name, _)| *name != "expect" && *name != "host").collect())
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
}

/// Bodies that are somewhat like manifests.
fn body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(|it| json!(it)),
        Just(json!(2)),
        word().prop_map(|it| json!(it)),
        Just(json!(OCI_MANIFEST)),
    ];
    let keys = vec![
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "digest",
        "size",
        "subject",
        "artifactType",
        "annotations",
        "data",
        "urls",
        "blobs",
        "platform",
    ];
    let json = leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((prop::sample::select(keys.clone()), inner), 0..6)
                .prop_map(|entries| entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    });
    prop_oneof![3 => json.prop_map(|it| it.to_string()), 1 => "\\PC{0,40}", 1 => Just(String::new())]
}

/// What every answer to anything is: `Reply` has checked the form of the error already.
fn is_sound(reply: &Reply) {
    assert!(!reply.status.is_server_error(), "{reply:?}");
    assert!(!reply.status.is_redirection() || reply.status == 304, "{reply:?}");
}

/// Runs a property against one server, over its connections.
fn property<S: Strategy>(cases: u32, strategy: S, test: &impl AsyncFn(&Server, S::Value)) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = in_memory().await;
        server.push_image("a", "latest", "layer").await;
        server
    });
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let tested = TestRunner::new(config).run(&strategy, |value| {
        runtime.block_on(test(&server, value));
        Ok(())
    });
    let _inside = runtime.enter();
    tested.unwrap();
}

// GEN-1, GEN-6, GEN-8, ERR-1: paths, names, digests, queries, ranges, conditions
#[test]
fn no_request_is_ever_our_fault() {
    property(1500, (method(), url(), headers(), body()), &async |server, (method, url, headers, body)| {
        let request = headers.iter().fold(server.request(method, &url), |it, (name, value)| it.header(name, value));
        let request = if ["GET", "HEAD"].contains(&method) { request } else { request.body(body) };
        is_sound(&request.await);
    });
}

// TYPE-2 to TYPE-15
#[test]
fn no_manifest_is_ever_our_fault() {
    let content_type = prop::sample::select(vec![OCI_MANIFEST, OCI_INDEX, "application/json", "x"]);
    property(600, (content_type, body()), &async |server, (content_type, body)| {
        let reply = server.put_manifest("a", "fuzzed", content_type, &body).await;
        is_sound(&reply);
        if reply.status == 201 {
            server.get("/v2/a/manifests/fuzzed").await.is(200).body_is(&body);
        }
    });
}

// CHUNK-4, CHUNK-5, CHUNK-7: whatever a chunk says of itself, the session stands where it stood or where it says
#[test]
fn no_chunk_is_ever_our_fault() {
    let range = prop_oneof![word(), (0..20_u64, 0..20_u64).prop_map(|(from, to)| format!("{from}-{to}"))];
    property(300, prop::collection::vec((range, "[a-z]{0,10}"), 1..5), &async |server, chunks| {
        let session = server.start_upload("a").await;
        let mut content = String::new();
        for (range, chunk) in chunks {
            let patch = server.patch(&session).header("content-range", &encoded(&range, " ")).body(chunk.clone());
            let reply = patch.await;
            is_sound(&reply);
            if reply.status == 202 {
                content.push_str(&chunk);
            }
            let last = content.len().saturating_sub(1);
            server.get(&session).await.is(204).has("range", &format!("0-{last}"));
        }
        let digest = sha256(&content);
        server.put(&format!("{session}?digest={digest}")).await.is(201);
        server.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
    });
}

// RANGE-1 to RANGE-6
#[test]
fn no_range_is_ever_our_fault() {
    let range = prop_oneof![
        (0..3000_u64, 0..3000_u64).prop_map(|(from, to)| format!("bytes={from}-{to}")),
        (0..3000_u64).prop_map(|from| format!("bytes={from}-")),
        (0..3000_u64).prop_map(|last| format!("bytes=-{last}")),
        prop::collection::vec((0..200_u64, 0..200_u64), 1..6).prop_map(|runs| {
            let runs: Vec<_> = runs.iter().map(|(from, to)| format!("{from}-{to}")).collect();
            format!("bytes={}", runs.join(","))
        }),
        word().prop_map(|it| encoded(&it, " \"/")),
    ];
    let content = bytes(2048);
    let digest = sha256(&content);
    property(400, range, &async |server, range| {
        server.post(&format!("/v2/a/blobs/uploads/?digest={digest}")).body(content.clone()).await.is(201);
        let reply = server.get(&format!("/v2/a/blobs/{digest}")).header("range", &range).await;
        is_sound(&reply);
        match reply.status.as_u16() {
            200 => reply.body_is(&content).lacks("content-range"),
            206 if reply.headers.contains_key("content-range") => {
                let (run, size) = reply.header("content-range").trim_start_matches("bytes ").split_once('/').unwrap();
                let (from, to) = run.split_once('-').unwrap();
                assert_eq!(size, "2048");
                reply.body_is(&content[from.parse().unwrap()..=to.parse().unwrap()])
            }
            206 => &reply,
            _ => reply.refuses(416, "UNSUPPORTED").has("content-range", "bytes */2048"),
        };
    });
}
