//! Bodies that break off, wait, come too late or go to another replica: sections 2 and 20 of the requirements.

use std::time::Duration;

use super::support::{
    Settings, everywhere, everywhere_with,
    images::{bytes, sha256},
    in_memory, raw,
};

// STATE-4, PUSH-18, CHUNK-7; fifteen 4
#[tokio::test]
async fn a_torn_body_leaves_the_session_as_it_was_and_can_be_sent_again() {
    everywhere(async |server| {
        let content = bytes(40_000);
        let digest = sha256(&content);
        for (method, framing) in [
            ("PATCH", "Content-Length: 30000"),
            ("PATCH", "Transfer-Encoding: chunked"),
            ("PUT", "Content-Length: 30000"),
        ] {
            for reset in [false, true] {
                let session = server.start_upload("a").await;
                server.patch(&session).body(content[..10_000].to_vec()).await.is(202);
                let url = if method == "PUT" { format!("{session}?digest={digest}") } else { session.clone() };

                let mut wire = server.raw().await;
                wire.say(format!("{method} {url} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")).await;
                if framing.contains("chunked") {
                    wire.say("3e8\r\n").await.say(&content[10_000..11_000]).await.say("\r\n").await;
                } else {
                    wire.say(&content[10_000..11_000]).await;
                }
                if reset {
                    wire.reset();
                } else {
                    wire.hang_up().await;
                }

                // The replay goes to the same URL, from where the session stood before.
                let rest = &content[10_000..];
                if method == "PATCH" {
                    let again = server.patch(&url).header("content-range", "10000-39999").body(rest.to_vec()).await;
                    again.is(202).has("range", "0-39999");
                    server.put(&format!("{url}?digest={digest}")).await.is_created("a", &digest);
                } else {
                    server.put(&url).body(rest.to_vec()).await.is_created("a", &digest);
                }
                server.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
                server.delete(&format!("/v2/a/blobs/{digest}")).await.is(202);
            }
        }
    })
    .await;
}

// GEN-11
#[tokio::test]
async fn a_body_whose_sender_falls_silent_is_given_up() {
    // Long enough for all that is to be said before the silence.
    let settings = Settings { idle_timeout: Duration::from_secs(1), ..Settings::default() };
    everywhere_with(settings, async |server| {
        let session = server.start_upload("a").await;
        let mut wire = server.raw().await;
        wire.say(format!("PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")).await;
        let (head, body) = wire.reply().await;
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        assert!(String::from_utf8(body).unwrap().contains("SIZE_INVALID"));
        // What came after would poison the connection: it is closed.
        assert!(wire.rest().await.is_empty());
        server.patch(&session).header("content-range", "0-2").body("abc").await.is(202).has("range", "0-2");
    })
    .await;
}

// GEN-9
#[tokio::test]
async fn a_client_that_waits_to_be_told_is_told_to_go_on_only_when_its_body_is_wanted() {
    everywhere(async |server| {
        let session = server.start_upload("a").await;
        let digest = sha256("hello");
        let ask = |method: &str, url: &str, extra: &str| {
            format!("{method} {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n{extra}\r\n")
        };
        for (method, url, extra, status) in [
            ("PATCH", "/v2/a/blobs/uploads/123e4567-e89b-42d3-a456-426614174000", "", "404"),
            ("PATCH", session.as_str(), "Content-Range: 7-11\r\n", "416"),
            ("PATCH", session.as_str(), "Content-Range: zz\r\n", "400"),
            ("PUT", session.as_str(), "", "400"),
            ("PUT", "/v2/a/manifests/b%20c", "", "400"),
            ("PUT", "/v2/A/manifests/b", "", "400"),
            ("PUT", "/v2/a/tags/list", "", "405"),
        ] {
            let mut wire = server.raw().await;
            wire.say(ask(method, url, extra)).await;
            let (head, _) = wire.reply().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{method} {url}: {head}");
        }
        let mut wire = server.raw().await;
        wire.say(ask("PUT", &format!("{session}?digest={digest}"), "")).await;
        assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        let (head, _) = wire.say("hello").await.reply().await;
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        assert_eq!(raw::header(&head, "docker-content-digest"), Some(digest.as_str()));
    })
    .await;
}

// MAN-6, GEN-9
#[tokio::test]
async fn a_manifest_that_is_announced_as_too_large_is_refused_before_it_is_sent() {
    everywhere(async |server| {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut wire = server.raw().await;
            let put = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n";
            let (head, body) = wire.say(format!("{put}{expect}\r\n")).await.reply().await;
            assert!(head.starts_with("HTTP/1.1 413"), "{head}");
            assert!(String::from_utf8(body).unwrap().contains("MANIFEST_INVALID"));
        }
    })
    .await;
}

// GEN-10
#[tokio::test]
async fn a_refusal_comes_before_the_body_and_the_connection_goes_on_after_it() {
    everywhere(async |server| {
        let mut wire = server.raw().await;
        for _ in 0..3 {
            let gone = "/v2/a/blobs/uploads/123e4567-e89b-42d3-a456-426614174000";
            wire.say(format!("PATCH {gone} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")).await;
            let (head, _) = wire.reply().await;
            assert!(head.starts_with("HTTP/1.1 404"), "{head}");
            wire.say(bytes(2_000_000)).await;
        }
        wire.say("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = wire.reply().await;
        assert!(head.starts_with("HTTP/1.1 200") && body == b"{}", "{head}");
    })
    .await;
}

// GEN-10
#[tokio::test]
async fn a_refused_body_without_end_is_not_read_without_end() {
    let server = in_memory().await;
    let mut wire = server.raw().await;
    let gone = "/v2/a/blobs/uploads/123e4567-e89b-42d3-a456-426614174000";
    wire.say(format!("PATCH {gone} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    let (head, _) = wire.reply().await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let mut chunk = b"100000\r\n".to_vec();
    chunk.extend(bytes(0x10_0000));
    chunk.extend(b"\r\n");
    // It ends, or this test does not.
    while wire.try_to_say(&chunk).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// STATE-1: nothing about a session is only in one process
#[tokio::test]
async fn a_session_goes_on_at_another_replica() {
    everywhere(async |server| {
        let content = bytes(40_000);
        let digest = sha256(&content);
        let replicas = [server.replica().await, server.replica().await, server.replica().await];
        let session = server.start_upload("a").await;
        for (at, replica) in replicas.iter().enumerate() {
            let (from, to) = (at * 10_000, (at + 1) * 10_000);
            let range = format!("{from}-{}", to - 1);
            let chunk = content[from..to].to_vec();
            replica.patch(&session).header("content-range", &range).body(chunk).await.is(202);
            server.stands(&session, &format!("0-{}", to - 1)).await;
        }
        let reply = server.put(&format!("{session}?digest={digest}")).body(content[30_000..].to_vec()).await;
        reply.is_created("a", &digest);
        // MAN-16, STATE-8
        replicas[1].get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
        replicas[2].get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    })
    .await;
}
