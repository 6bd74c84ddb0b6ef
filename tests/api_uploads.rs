//! Pushing blobs: sections 8, 9, 10 and 20 of the requirements.

#[cfg(test)]
mod support;

use std::time::Duration;

use marina_distribution::http::Settings;
use support::{
    Reply, Server, everywhere, everywhere_with, id_of,
    images::{BLAKE3, EMPTY, NOWHERE, bytes, sha256, sha512},
    raw,
};

/// The session stands where it should: by any of its URLs, and asking changes nothing.
async fn stands(server: &Server, session: &str, range: &str) {
    let (path, _) = session.split_once('?').unwrap_or((session, ""));
    let id = id_of(path);
    for reply in [server.get(session).await, server.head(session).await] {
        reply.is(204).has("range", range).has("location", path).has("docker-upload-uuid", id);
    }
}

/// PUSH-12
#[track_caller]
fn is_created(reply: &Reply, repository: &str, digest: &str) {
    reply.is(201).has("location", &format!("/v2/{repository}/blobs/{digest}"));
    reply.has("docker-content-digest", digest).has("content-length", "0").body_is("");
}

// PUSH-1, PUSH-2, PUSH-3; fifteen 12
#[tokio::test]
async fn a_session_has_a_url_of_its_own_below_the_repository_and_no_host() {
    everywhere(async |server| {
        for url in ["/v2/a/b/blobs/uploads/", "/v2/a/b/blobs/uploads"] {
            let reply = server.post(url).header("x-forwarded-proto", "https").header("host", "elsewhere:99").await;
            reply.is(202).has("range", "0-0").has("content-length", "0").body_is("");
            let id = reply.header("docker-upload-uuid");
            assert_eq!(id.len(), 36);
            reply.has("location", &format!("/v2/a/b/blobs/uploads/{id}")).lacks("oci-chunk-min-length");
            stands(server, &reply.location(), "0-0").await;
        }
    })
    .await;
}

// PUSH-10, PUSH-12, BLOB-2: the whole in the closing PUT
#[tokio::test]
async fn a_blob_comes_in_one_put() {
    everywhere(async |server| {
        let content = bytes(100_000);
        let digest = sha256(&content);
        let session = server.start_upload("a").await;
        let reply = server.put(&format!("{session}?digest={digest}")).body(content.clone()).await;
        is_created(&reply, "a", &digest);
        server.get(&reply.location()).await.is(200).body_is(&content);
        // CHUNK-10: closed.
        server.get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    })
    .await;
}

// CHUNK-1, CHUNK-2, PUSH-10, CHUNK-14; fifteen 3
#[tokio::test]
async fn a_blob_comes_in_chunks_whose_range_counts_from_its_beginning() {
    everywhere(async |server| {
        let content = bytes(3067);
        let digest = sha256(&content);
        for last in [3067, 2048] {
            let mut session = server.start_upload("a").await;
            for (from, to) in [(0, 1024), (1024, 2048), (2048, 3067)] {
                if to > last {
                    continue;
                }
                let chunk = server.patch(&session).header("content-range", &format!("{from}-{}", to - 1));
                let reply = chunk.body(content[from..to].to_vec()).await;
                reply.is(202).has("range", &format!("0-{}", to - 1)).has("content-length", "0");
                reply.has("docker-upload-uuid", id_of(&session));
                session = reply.location();
                stands(server, &session, &format!("0-{}", to - 1)).await;
            }
            let close = server.put(&format!("{session}?digest={digest}"));
            let close = if last < 3067 { close.header("content-range", "2048-3066") } else { close };
            is_created(&close.body(content[last..].to_vec()).await, "a", &digest);
            server.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
            server.delete(&format!("/v2/a/blobs/{digest}")).await.is(202);
        }
    })
    .await;
}

// CHUNK-6, GEN-11, GEN-12
#[tokio::test]
async fn a_chunk_may_come_without_a_length_and_without_a_range() {
    everywhere(async |server| {
        let content = bytes(300_000);
        let digest = sha256(&content);
        for http2 in [false, true] {
            let session = server.start_upload("a").await;
            let on = |send: support::Send| if http2 { send.http2() } else { send };
            let reply = on(server.patch(&session).chunked(content[..200_000].to_vec())).await;
            reply.is(202).has("range", "0-199999");
            let reply = on(server.patch(&session).body(content[200_000..].to_vec())).await;
            reply.is(202).has("range", "0-299999");
            is_created(&on(server.put(&format!("{session}?digest={digest}"))).await, "a", &digest);
            on(server.get(&format!("/v2/a/blobs/{digest}"))).await.is(200).body_is(&content);
            server.delete(&format!("/v2/a/blobs/{digest}")).await.is(202);
        }
    })
    .await;
}

// CHUNK-3
#[tokio::test]
async fn the_range_of_nothing_and_of_one_byte_is_the_same() {
    everywhere(async |server| {
        let session = server.start_upload("a").await;
        server.patch(&session).await.is(202).has("range", "0-0");
        stands(server, &session, "0-0").await;
        server.patch(&session).body("x").await.is(202).has("range", "0-0");
        server.patch(&session).header("content-range", "1-1").body("y").await.is(202).has("range", "0-1");
        is_created(&server.put(&format!("{session}?digest={}", sha256("xy"))).await, "a", &sha256("xy"));
    })
    .await;
}

// CHUNK-4
#[tokio::test]
async fn a_chunk_says_its_range_in_any_of_the_usual_forms() {
    everywhere(async |server| {
        let session = server.start_upload("a").await;
        for (range, part) in [("0-1", "ab"), ("bytes 2-3", "cd"), ("bytes 4-5/8", "ef"), ("bytes=6-7", "gh")] {
            server.patch(&session).header("content-range", range).body(part).await.is(202);
        }
        stands(server, &session, "0-7").await;
        let digest = sha256("abcdefgh");
        is_created(&server.put(&format!("{session}?digest={digest}")).await, "a", &digest);
    })
    .await;
}

// CHUNK-5, PUSH-14; fifteen 1
#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_changes_nothing() {
    everywhere(async |server| {
        let content = bytes(30);
        let digest = sha256(&content);
        let session = server.start_upload("a").await;
        let id = id_of(&session);
        let misfits = async |at: &str| {
            for range in ["0-9", "5-14", "11-20", "100-109"].into_iter().filter(|it| *it != "0-9" || at != "0-0") {
                for send in [server.patch(&session), server.put(&format!("{session}?digest={digest}"))] {
                    let reply = send.header("content-range", range).body(content[..10].to_vec()).await;
                    reply.refuses(416, "BLOB_UPLOAD_INVALID");
                    reply.has("range", at).has("location", &session).has("docker-upload-uuid", id);
                }
                stands(server, &session, at).await;
                stands(server, &format!("{session}?digest={digest}"), at).await;
            }
        };
        misfits("0-0").await;
        server.patch(&session).header("content-range", "0-9").body(content[..10].to_vec()).await.is(202);
        misfits("0-9").await;
        server.patch(&session).header("content-range", "10-19").body(content[10..20].to_vec()).await.is(202);
        misfits("0-19").await;
        let close = server.put(&format!("{session}?digest={digest}")).header("content-range", "20-29");
        is_created(&close.body(content[20..].to_vec()).await, "a", &digest);
        server.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
    })
    .await;
}

// CHUNK-7
#[tokio::test]
async fn a_chunk_that_is_not_of_the_length_it_declares_is_refused() {
    everywhere(async |server| {
        let session = server.start_upload("a").await;
        for (range, code) in [
            ("0-3", "SIZE_INVALID"),
            ("0-5", "SIZE_INVALID"),
            ("4-0", "BLOB_UPLOAD_INVALID"),
            ("x-y", "BLOB_UPLOAD_INVALID"),
            ("0", "BLOB_UPLOAD_INVALID"),
            ("-5", "BLOB_UPLOAD_INVALID"),
            ("", "BLOB_UPLOAD_INVALID"),
            ("0-99999999999999999999", "BLOB_UPLOAD_INVALID"),
        ] {
            let url = format!("{session}?digest={}", sha256("12345"));
            for send in [server.patch(&session).body("12345"), server.patch(&session).chunked("12345")] {
                send.header("content-range", range).await.refuses(400, code);
            }
            for send in [server.put(&url).body("12345"), server.put(&url).chunked("12345")] {
                send.header("content-range", range).await.refuses(400, code);
            }
            stands(server, &session, "0-0").await;
        }
        server.patch(&session).header("content-range", "0-4").chunked("12345").await.is(202).has("range", "0-4");
    })
    .await;
}

// PUSH-4, CHUNK-9; fifteen 2
#[tokio::test]
async fn any_url_that_was_issued_for_a_session_stays_good() {
    everywhere(async |server| {
        let first = server.start_upload("a").await;
        let second = server.patch(&first).header("content-range", "0-2").body("abc").await.is(202).location();
        for session in [&first, &second] {
            stands(server, session, "0-2").await;
            let again = server.patch(session).header("content-range", "0-2").body("abc").await;
            again.refuses(416, "BLOB_UPLOAD_INVALID").has("range", "0-2");
        }
        server.patch(&first).header("content-range", "3-3").body("d").await.is(202).has("range", "0-3");
        is_created(&server.put(&format!("{first}?digest={}", sha256("abcd"))).await, "a", &sha256("abcd"));
    })
    .await;
}

// PUSH-2, GEN-6, GEN-8: Go clients decode, sort and encode the query again, and add their own to it
#[tokio::test]
async fn the_query_of_a_session_may_hold_anything_else() {
    everywhere(async |server| {
        for query in
            ["digest={}", "_state=a+b%20c&digest={}&ns=docker.io", "ns=x&digest={}&digest=", "&&digest={}&=&%zz"]
        {
            let session = server.start_upload("a").await;
            let digest = sha256(query);
            for spelled in [digest.clone(), digest.replace(':', "%3A")] {
                let url = format!("{session}?{}", query.replace("{}", &spelled));
                is_created(&server.put(&url).body(query).await, "a", &digest);
            }
        }
    })
    .await;
}

// PUSH-5
#[tokio::test]
async fn a_whole_blob_comes_in_the_post() {
    everywhere(async |server| {
        for content in [bytes(0), bytes(3), bytes(200_000)] {
            for digest in [sha256(&content), sha512(&content)] {
                for chunked in [false, true] {
                    let post = server.post(&format!("/v2/a/blobs/uploads/?digest={digest}"));
                    let post = if chunked { post.chunked(content.clone()) } else { post.body(content.clone()) };
                    is_created(&post.await, "a", &digest);
                    server.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
                }
            }
        }
    })
    .await;
}

// PUSH-5
#[tokio::test]
async fn a_post_of_a_digest_without_its_blob_starts_a_session() {
    everywhere(async |server| {
        let digest = sha256("later");
        let reply = server.post(&format!("/v2/a/blobs/uploads/?digest={digest}")).await;
        reply.is(202).has("range", "0-0");
        server.get(&format!("/v2/a/blobs/{digest}")).await.is(404);
        let close = server.put(&format!("{}?digest={digest}", reply.location())).body("later").await;
        is_created(&close, "a", &digest);
    })
    .await;
}

// PUSH-5, PUSH-13
#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_stored_under_none() {
    everywhere(async |server| {
        let (said, is) = (sha256("said"), sha256("is"));
        server.post(&format!("/v2/a/blobs/uploads/?digest={said}")).body("is").await.refuses(400, "DIGEST_INVALID");

        let session = server.start_upload("a").await;
        server.put(&format!("{session}?digest={said}")).body("is").await.refuses(400, "DIGEST_INVALID");

        let session = server.start_upload("a").await;
        server.patch(&session).body("i").await.is(202);
        server.put(&format!("{session}?digest={said}")).body("s").await.refuses(400, "DIGEST_INVALID");

        let session = server.start_upload("a").await;
        server.patch(&session).chunked("is").await.is(202);
        server.put(&format!("{session}?digest={}", sha512("said"))).await.refuses(400, "DIGEST_INVALID");

        for digest in [said, is] {
            server.head(&format!("/v2/a/blobs/{digest}")).await.is(404);
        }
    })
    .await;
}

// PUSH-6
#[tokio::test]
async fn the_announced_algorithm_is_a_hint() {
    everywhere(async |server| {
        for hint in ["sha256", "sha512"] {
            for digest in [sha256(hint), sha512(hint)] {
                let reply = server.post(&format!("/v2/a/blobs/uploads/?digest-algorithm={hint}")).await;
                let session = reply.is(202).has("range", "0-0").location();
                server.patch(&session).body(hint).await.is(202);
                is_created(&server.put(&format!("{session}?digest={digest}")).await, "a", &digest);
            }
        }
        for hint in ["blake3", "SHA256", "md5", ""] {
            let post = server.post(&format!("/v2/a/blobs/uploads/?digest-algorithm={hint}")).await;
            post.refuses(400, "DIGEST_INVALID");
        }
    })
    .await;
}

// PUSH-11; fifteen 5
#[tokio::test]
async fn sha512_comes_without_notice_on_every_path() {
    everywhere(async |server| {
        for (round, content) in [bytes(12), bytes(70_000)].into_iter().enumerate() {
            let digest = sha512(&content);
            let close = |session: String| format!("{session}?digest={digest}");
            let half = content.len() / 2;
            let repository = format!("r{round}");

            let session = server.start_upload(&repository).await;
            is_created(&server.put(&close(session)).body(content.clone()).await, &repository, &digest);

            let session = server.start_upload(&repository).await;
            server.patch(&session).chunked(content.clone()).await.is(202);
            is_created(&server.put(&close(session)).await, &repository, &digest);

            let session = server.start_upload(&repository).await;
            server.patch(&session).body(content[..half].to_vec()).await.is(202);
            let reply = server.put(&close(session)).body(content[half..].to_vec()).await;
            is_created(&reply, &repository, &digest);
            server.get(&reply.location()).await.is(200).has("docker-content-digest", &digest).body_is(&content);
        }
    })
    .await;
}

// PUSH-10, DIG-4
#[tokio::test]
async fn a_closing_put_without_a_usable_digest_is_refused_and_keeps_the_session() {
    everywhere(async |server| {
        let session = server.start_upload("a").await;
        server.patch(&session).body("ab").await.is(202);
        for query in ["", "?digest=", "?digest=sha256:zz", &format!("?digest={BLAKE3}"), "?diggest=x"] {
            server.put(&format!("{session}{query}")).body("c").await.refuses(400, "DIGEST_INVALID");
            stands(server, &session, "0-1").await;
        }
        for digest in ["", "sha256:zz", BLAKE3] {
            let post = server.post(&format!("/v2/a/blobs/uploads/?digest={digest}")).body("x").await;
            post.refuses(400, "DIGEST_INVALID");
        }
        is_created(&server.put(&format!("{session}?digest={}", sha256("abc"))).body("c").await, "a", &sha256("abc"));
    })
    .await;
}

// PUSH-15, CHUNK-8; fifteen 15
#[tokio::test]
async fn the_empty_blob_comes_in_every_way_that_clients_send_it() {
    everywhere(async |server| {
        for (round, way) in ["no body", "chunked of nothing", "after an empty chunk"].into_iter().enumerate() {
            let repository = format!("r{round}");
            let session = server.start_upload(&repository).await;
            let close = server.put(&format!("{session}?digest={EMPTY}"));
            let close = match way {
                "no body" => close.header("content-type", "application/octet-stream"),
                "chunked of nothing" => close.chunked(""),
                _ => {
                    server.patch(&session).chunked("").await.is(202).has("range", "0-0");
                    close
                }
            };
            is_created(&close.await, &repository, EMPTY);
            let blob = format!("/v2/{repository}/blobs/{EMPTY}");
            server.head(&blob).await.is(200).has("content-length", "0");
            server.get(&blob).await.is(200).has("content-length", "0").body_is("");
        }
        // The same with neither Content-Length nor Content-Type, byte by byte.
        let session = server.start_upload("raw").await;
        let mut wire = server.raw().await;
        wire.say(format!("PUT {session}?digest={EMPTY} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 201"));
    })
    .await;
}

// PUSH-16
#[tokio::test]
async fn racing_uploads_of_one_blob_all_succeed() {
    everywhere(async |server| {
        let content = bytes(50_000);
        let digest = sha256(&content);
        let (content, digest) = (&content, &digest);
        let uploads = (0..8).map(async |_| {
            let session = server.start_upload("a").await;
            server.put(&format!("{session}?digest={digest}")).body(content.clone()).await
        });
        for reply in futures_util::future::join_all(uploads).await {
            is_created(&reply, "a", digest);
        }
        server.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(content);
        server.push_blob("a", content).await;
    })
    .await;
}

// PUSH-17; fifteen 4
#[tokio::test]
async fn a_closing_put_whose_reply_was_lost_may_be_sent_again() {
    everywhere(async |server| {
        let digest = sha256("x");
        let session = server.start_upload("a").await;
        let url = format!("{session}?digest={digest}");
        is_created(&server.put(&url).body("x").await, "a", &digest);
        is_created(&server.put(&url).body("x").await, "a", &digest);

        let chunked = server.start_upload("c").await;
        server.patch(&chunked).body("x").await.is(202);
        for _ in 0..2 {
            is_created(&server.put(&format!("{chunked}?digest={digest}")).await, "c", &digest);
        }

        server.put(&format!("{session}?digest={}", sha256("y"))).body("y").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        // Nothing of it in another repository, though the bytes are somewhere.
        let elsewhere = url.replace("/v2/a/", "/v2/b/");
        server.put(&elsewhere).body("x").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        server.head(&format!("/v2/b/blobs/{digest}")).await.is(404);
    })
    .await;
}

// CHUNK-10, STATE-2, STATE-3
#[tokio::test]
async fn a_session_that_is_not_there_is_unknown_to_every_method() {
    everywhere(async |server| {
        let cancelled = server.start_upload("a").await;
        server.delete(&cancelled).await.is(204);
        let closed = server.start_upload("a").await;
        server.put(&format!("{closed}?digest={}", sha256("x"))).body("x").await.is(201);
        let live = server.start_upload("a").await;
        for session in [
            cancelled,
            closed,
            live.replace("/v2/a/", "/v2/b/"),
            "/v2/a/blobs/uploads/123e4567-e89b-42d3-a456-426614174000".to_owned(),
            "/v2/a/blobs/uploads/not-a-session".to_owned(),
            "/v2/a/blobs/uploads/%00".to_owned(),
        ] {
            let put = format!("{session}?digest={NOWHERE}");
            server.get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
            server.head(&session).await.is(404);
            server.patch(&session).body("x").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
            server.patch(&session).header("content-range", "x").body("x").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
            server.put(&put).body("x").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
            server.put(&session).body("x").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
            server.delete(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        }
        stands(server, &live, "0-0").await;
    })
    .await;
}

// CHUNK-11, PUSH-8
#[tokio::test]
async fn a_session_can_be_cancelled_before_and_after_its_first_chunk() {
    everywhere(async |server| {
        for chunk in [None, Some(bytes(100))] {
            let session = server.start_upload("a").await;
            if let Some(chunk) = chunk {
                server.patch(&session).body(chunk).await.is(202);
            }
            server.delete(&session).await.is(204).body_is("");
            server.get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        }
    })
    .await;
}

// CHUNK-13
#[tokio::test]
async fn of_racing_chunks_one_is_taken() {
    everywhere(async |server| {
        let session = server.start_upload("a").await;
        let session = session.as_str();
        let chunks = ["aaaa", "bbbb", "cccc", "dddd"]
            .map(async |chunk| (chunk, server.patch(session).header("content-range", "0-3").body(chunk).await));
        let replies = futures_util::future::join_all(chunks).await;
        let (taken, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|(_, reply)| reply.status == 202);
        assert_eq!(taken.len(), 1, "{replies:?}");
        for (_, reply) in refused {
            reply.refuses(416, "BLOB_UPLOAD_INVALID").has("range", "0-3").has("location", session);
        }
        stands(server, session, "0-3").await;
        let digest = sha256(taken[0].0);
        is_created(&server.put(&format!("{session}?digest={digest}")).await, "a", &digest);
    })
    .await;
}

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
                    is_created(&server.put(&format!("{url}?digest={digest}")).await, "a", &digest);
                } else {
                    is_created(&server.put(&url).body(rest.to_vec()).await, "a", &digest);
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
    let settings = Settings { idle_timeout: Duration::from_millis(50), ..Settings::default() };
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
    let server = support::server().await;
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
            stands(server, &session, &format!("0-{}", to - 1)).await;
        }
        let reply = server.put(&format!("{session}?digest={digest}")).body(content[30_000..].to_vec()).await;
        is_created(&reply, "a", &digest);
        // MAN-16, STATE-8
        replicas[1].get(&format!("/v2/a/blobs/{digest}")).await.is(200).body_is(&content);
        replicas[2].get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    })
    .await;
}
