//! What holds for the API as a whole: sections 2 to 5 of the requirements.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::http::Version;
use marina_distribution::store::faulty::{Fault, Faulty};
use serde_json::json;

use super::support::{
    Reply, Server, Settings, everywhere,
    images::{NOWHERE, OCI_MANIFEST, bytes, digest, image, sha256},
    in_memory, memory, raw,
};

// PING-1, GEN-2, GEN-14
#[tokio::test]
async fn a_ping_says_that_this_is_a_registry() {
    everywhere(async |server| {
        for url in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
            let reply = server.get(url).await;
            reply.is(200).has("content-type", "application/json").has("content-length", "2").body_is("{}");
            server.head(url).await.is(200).has("content-length", "2").has("content-type", "application/json");
        }
    })
    .await;
}

// GEN-1, CAT-4, NAME-4
#[tokio::test]
async fn an_unknown_path_is_not_found_and_the_extensions_are_none() {
    let server = in_memory().await;
    for path in ["/", "/v1/", "/v2/a", "/v2/a/tags", "/v2/_unknown", "/v2/a/_ext/x/y", "/v2//", "/metrics", "//"] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            server.request(method, path).await.refuses(404, "UNSUPPORTED");
        }
        server.head(path).await.is(404);
    }
    let reply = server.get("/v2/_oci/ext/discover").await;
    reply.is(200).has("content-type", "application/json").json_is(&json!({ "extensions": [] }));
}

// GEN-1, GEN-3: every path takes the methods of its Allow and no other
#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = in_memory().await;
    for (path, allow) in [
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/_oci/ext/discover", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        ("/v2/a/blobs/uploads/", "POST"),
        ("/v2/a/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"),
        (&format!("/v2/a/blobs/{NOWHERE}"), "GET, HEAD, DELETE"),
        (&format!("/v2/a/referrers/{NOWHERE}"), "GET, HEAD"),
        ("/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
    ] {
        let allowed: Vec<_> = allow.split(", ").collect();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let reply = server.request(method, path).await;
            if allowed.contains(&method) {
                assert_ne!(reply.status, 405, "{method} {path}");
            } else {
                reply.is(405).has("allow", allow);
                assert!(method == "HEAD" || reply.errors()[0]["code"] == "UNSUPPORTED");
            }
        }
    }
}

// GEN-3: byte by byte, for HEAD is where frameworks lie
#[tokio::test]
async fn a_head_has_the_headers_of_a_get_and_not_a_byte_of_body() {
    everywhere(async |server| {
        let pushed = server.push_image("a", "v1", "layer").await;
        let digest = digest(&pushed);
        for path in [
            "/v2/",
            "/v2/_catalog",
            "/v2/a/tags/list",
            "/v2/a/manifests/v1",
            "/v2/a/manifests/gone",
            &format!("/v2/a/blobs/{}", sha256("layer")),
            &format!("/v2/a/blobs/{NOWHERE}"),
            &format!("/v2/a/referrers/{digest}"),
            "/v2/A/tags/list",
            "/livez",
        ] {
            let mut wire = server.raw().await;
            wire.say(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let head = wire.head().await;
            // What comes next on the connection is the next answer.
            wire.say(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            let (get, body) = wire.reply().await;
            assert!(wire.rest().await.is_empty());
            let comparable = |head: &str| {
                let own = ["date", "x-request-id", "connection"];
                let lines = head.lines().filter(|it| !own.iter().any(|name| it.starts_with(&format!("{name}:"))));
                let mut lines: Vec<_> = lines.map(ToOwned::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(comparable(&head), comparable(&get), "{path}");
            assert_eq!(raw::header(&head, "content-length"), Some(body.len().to_string().as_str()));
        }
    })
    .await;
}

// GEN-5
#[tokio::test]
async fn nothing_is_ever_compressed() {
    everywhere(async |server| {
        let content = vec![b'a'; 100_000];
        let digest = server.push_blob("a", &content).await;
        server.push_image("a", "v1", "layer").await;
        for encoding in ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "br", "identity;q=0"] {
            for path in [&format!("blobs/{digest}"), "manifests/v1", "tags/list", &format!("referrers/{digest}")] {
                let reply = server.get(&format!("/v2/a/{path}")).header("accept-encoding", encoding).await;
                reply.is(200).lacks("content-encoding");
            }
            let reply = server.get(&format!("/v2/a/blobs/{digest}")).header("accept-encoding", encoding).await;
            reply.has("content-length", "100000").body_is(&content);
        }
    })
    .await;
}

// GEN-6, GEN-7, PROXY-1
#[tokio::test]
async fn what_a_request_says_beyond_what_it_means_is_ignored() {
    everywhere(async |server| {
        let post = server.post("/v2/a/blobs/uploads/?ns=docker.io&origin=index.docker.io&x");
        let reply = post.header("content-type", "application/json").header("x-anything", "\u{ff}").await;
        reply.is(202).lacks("oci-namespace");
        let session = reply.location();
        let put = server.put(&format!("{session}?digest={}&ns=docker.io", sha256("{}"))).body("{}");
        put.header("content-type", "application/json; charset=nonsense").await.is(201);
        let put = server.put("/v2/a/manifests/v1?ns=docker.io").header("content-type", OCI_MANIFEST);
        put.body(image(&[]).to_string()).await.is(201);
        for path in ["manifests/v1?ns=docker.io&ns=x", "tags/list?ns=%ff&foo", "manifests/v1?&&=&%", "manifests/v1?"] {
            server.get(&format!("/v2/a/{path}")).header("cookie", "a=b").await.is(200).lacks("oci-namespace");
        }
    })
    .await;
}

// GEN-8, GEN-14
#[tokio::test]
async fn paths_may_be_encoded_and_end_in_a_slash_and_are_never_redirected() {
    everywhere(async |server| {
        let digest = server.push_blob("a/b", "x").await;
        let encoded = digest.replace(':', "%3A");
        for path in [
            format!("/v2/a/b/blobs/{encoded}"),
            format!("/v2/a%2Fb/blobs/{encoded}"),
            format!("/v2/a/b/blobs/{digest}/"),
        ] {
            server.get(&path).await.is(200).body_is("x").has("docker-content-digest", &digest);
        }
        server.push_blob("a/b", "{}").await;
        let put = server.put("/v2/a/b/manifests/v1/").header("content-type", OCI_MANIFEST);
        put.body(image(&[]).to_string()).await.is(201);
        server.get("/v2/a/b/tags/list/").await.is(200).json_is(&json!({ "name": "a/b", "tags": ["v1"] }));
    })
    .await;
}

// NAME-1, NAME-2, NAME-3, NAME-8
#[tokio::test]
async fn a_repository_may_be_called_anything_that_the_grammar_allows() {
    everywhere(async |server| {
        let longest = format!("{}/b", "a".repeat(200));
        for name in [
            "a",
            "0",
            "a__b",
            "a---b",
            "a.b",
            "a_b-c.d",
            "foo/tags",
            "blobs/uploads",
            "x/manifests/y",
            "tags/list",
            "referrers/blobs/manifests",
            "v2",
            &longest,
        ] {
            let blob = server.push_blob(name, "{}").await;
            server.get(&format!("/v2/{name}/blobs/{blob}")).await.is(200).body_is("{}");
            let pushed = server.push_manifest(name, "uploads", &image(&[])).await;
            let digest = digest(&pushed);
            server.get(&format!("/v2/{name}/manifests/uploads")).await.is(200).has("docker-content-digest", digest);
            server.get(&format!("/v2/{name}/tags/list")).await.json_is(&json!({ "name": name, "tags": ["uploads"] }));
            server.get(&format!("/v2/{name}/referrers/{digest}")).await.is(200);
        }
    })
    .await;
}

// NAME-1, NAME-2
#[tokio::test]
async fn what_is_no_name_is_invalid_everywhere() {
    let server = in_memory().await;
    let long = "a".repeat(256);
    for name in
        ["A", "a..b", "a___b", "-a", "a-", "_a", "a//b", "a%20b", "..", "a%00b", "%C3%A9", "a/-", ".", "a._b", &long]
    {
        let digest = sha256("x");
        for (method, path) in [
            ("GET", "tags/list"),
            ("POST", "blobs/uploads/"),
            ("GET", "blobs/uploads/x"),
            ("PATCH", "blobs/uploads/x"),
            ("GET", &format!("blobs/{digest}")),
            ("DELETE", &format!("blobs/{digest}")),
            ("GET", "manifests/v1"),
            ("PUT", "manifests/v1"),
            ("GET", &format!("referrers/{digest}")),
        ] {
            server.request(method, &format!("/v2/{name}/{path}")).await.refuses(400, "NAME_INVALID");
        }
    }
}

// NAME-5
#[tokio::test]
async fn the_case_of_a_tag_counts() {
    everywhere(async |server| {
        let lower = server.push_image("a", "latest", "layer").await;
        let upper = server.push_manifest("a", "Latest", &image(&[])).await;
        for (tag, pushed) in [("latest", &lower), ("Latest", &upper)] {
            let reply = server.get(&format!("/v2/a/manifests/{tag}")).await;
            reply.is(200).has("docker-content-digest", digest(pushed));
        }
        server.get("/v2/a/manifests/LATEST").await.refuses(404, "MANIFEST_UNKNOWN");
        server.delete("/v2/a/manifests/latest").await.is(202);
        server.get("/v2/a/manifests/Latest").await.is(200);
    })
    .await;
}

// GEN-12
#[tokio::test]
async fn http_2_is_spoken() {
    everywhere(async |server| {
        let content = bytes(200_000);
        let session = server.post("/v2/a/blobs/uploads/").http2().await.is(202).location();
        let digest = sha256(&content);
        let put = server.put(&format!("{session}?digest={digest}")).chunked(content.clone()).http2().await;
        put.is(201).has("content-length", "0").has("docker-content-digest", &digest);
        assert_eq!(put.version, Version::HTTP_2);
        let url = format!("/v2/a/blobs/{digest}");
        server.get(&url).http2().await.is(200).body_is(&content);
        server.head(&url).http2().await.is(200).has("content-length", "200000");
        server.get(&format!("/v2/a/blobs/{NOWHERE}")).http2().await.refuses(404, "BLOB_UNKNOWN");
    })
    .await;
}

// GEN-12
#[tokio::test]
async fn a_connection_takes_one_request_after_the_other() {
    let server = in_memory().await;
    let mut wire = server.raw().await;
    for _ in 0..10 {
        wire.say("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = wire.reply().await;
        assert!(head.starts_with("HTTP/1.1 200") && body == b"{}");
        wire.say(format!("GET /v2/a/blobs/{NOWHERE} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(wire.reply().await.0.starts_with("HTTP/1.1 404"));
    }
}

/// A registry whose store answers nothing once it is told so.
async fn failing(fault: impl Fn() -> Fault + Send + Sync + 'static) -> (Server, Arc<AtomicBool>) {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let plan = move |_: &_| if is_down.load(Ordering::Relaxed) { fault() } else { Fault::None };
    let store = Faulty::new(memory(), plan);
    (Server::start(Arc::new(store), Settings::default()).await, down)
}

/// Each endpoint that asks the store for something.
async fn everything(server: &Server, session: &str) -> Vec<Reply> {
    let manifest = image(&[]).to_string();
    vec![
        server.get("/v2/_catalog").await,
        server.get("/v2/a/tags/list").await,
        server.get("/v2/a/manifests/v1").await,
        server.get(&format!("/v2/a/manifests/{NOWHERE}")).await,
        server.put_manifest("a", "v1", OCI_MANIFEST, &manifest).await,
        server.delete("/v2/a/manifests/v1").await,
        server.get(&format!("/v2/a/blobs/{}", sha256("layer"))).await,
        server.delete(&format!("/v2/a/blobs/{}", sha256("layer"))).await,
        server.post(&format!("/v2/a/blobs/uploads/?digest={}", sha256("x"))).body("x").await,
        server.post(&format!("/v2/a/blobs/uploads/?mount={NOWHERE}&from=b")).await,
        server.get(session).await,
        server.patch(session).body("x").await,
        server.put(&format!("{session}?digest={}", sha256("x"))).body("x").await,
        server.delete(session).await,
        server.get(&format!("/v2/a/referrers/{NOWHERE}")).await,
    ]
}

// GEN-16, STATE-7
#[tokio::test]
async fn a_store_that_is_down_is_to_be_tried_again_and_nothing_of_it_is_told() {
    for (fault, status, why) in [
        (Fault::NotApplied, 503, "store unavailable\n"),
        (Fault::Refused, 503, "store refuses\n"),
        (Fault::Throttled, 429, "store throttled\n"),
    ] {
        let (server, down) = failing(move || fault).await;
        server.push_image("a", "v1", "layer").await;
        let session = server.start_upload("a").await;
        down.store(true, Ordering::Relaxed);
        for reply in everything(&server, &session).await {
            reply.refuses(status, "TOOMANYREQUESTS").has("retry-after", "1").has("content-type", "application/json");
            let message = reply.errors()[0]["message"].to_string();
            assert!(message.contains(reply.header("x-request-id")), "{message}");
            assert!(!message.contains("blobs/") && !message.contains("planned"), "{message}");
        }
        server.get("/readyz").await.is(503).has("retry-after", "1").body_is(why);
        // PING-1: nobody needs the store to say that this is a registry.
        server.get("/v2/").await.is(200);
        server.get("/livez").await.is(200).body_is("ok\n");
        down.store(false, Ordering::Relaxed);
        server.get("/readyz").await.is(200).body_is("ok\n");
        server.get("/v2/a/manifests/v1").await.is(200);
    }
}

// STATE-7
#[tokio::test]
async fn a_manifest_that_was_read_is_served_by_its_digest_while_the_store_is_down_and_no_longer() {
    for fault in [Fault::NotApplied, Fault::Refused] {
        let (server, down) = failing(move || fault).await;
        let read = server.push_image("a", "v1", "layer").await;
        let never_read = server.push_image("a", "v2", "another").await;
        let url = |image| format!("/v2/a/manifests/{}", digest(image));
        let before = server.get(&url(&read)).await;
        before.lacks("cache-status");
        let replica = server.replica().await;
        down.store(true, Ordering::Relaxed);

        let reply = server.get(&url(&read)).await;
        let from_memory = "marina-distribution; hit; detail=store-unavailable";
        reply.is(200).has("content-type", OCI_MANIFEST).has("cache-status", from_memory);
        assert_eq!(reply.body, before.body);
        let head = server.head(&url(&read)).await;
        head.is(200).has("content-length", &before.body.len().to_string()).has("cache-status", from_memory);
        server.get("/v2/a/manifests/v1").await.is(503);
        server.head("/v2/a/manifests/v1").await.is(503);
        server.get(&url(&never_read)).await.is(503);
        server.get(&url(&read).replace("/a/", "/b/")).await.is(503);
        replica.get(&url(&read)).await.is(503);

        down.store(false, Ordering::Relaxed);
        replica.delete(&url(&read)).await.is(202);
        down.store(true, Ordering::Relaxed);
        // It cannot know, and says that it does not.
        server.get(&url(&read)).await.is(200).has("cache-status", from_memory);

        down.store(false, Ordering::Relaxed);
        server.get(&url(&read)).await.is(404);
        down.store(true, Ordering::Relaxed);
        server.get(&url(&read)).await.is(503);
    }
}

// GEN-16
#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_server_goes_on() {
    let (server, down) = failing(|| panic!("of this test")).await;
    server.push_image("a", "v1", "layer").await;
    let session = server.start_upload("a").await;
    down.store(true, Ordering::Relaxed);
    for reply in everything(&server, &session).await {
        reply.refuses(500, "UNKNOWN").has("content-type", "application/json").lacks("retry-after");
        let message = reply.errors()[0]["message"].to_string();
        assert!(message.contains(reply.header("x-request-id")) && !message.contains("of this test"), "{message}");
    }
    down.store(false, Ordering::Relaxed);
    server.get("/v2/a/manifests/v1").await.is(200);
}
