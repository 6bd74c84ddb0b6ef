//! Starting and closing uploads: sections 8 and 9 of the requirements.

use super::support::{
    everywhere,
    images::{BLAKE3, EMPTY, bytes, sha256, sha512},
};

// PUSH-1, PUSH-2, PUSH-3, PUSH-7; fifteen 12
#[tokio::test]
async fn a_session_has_a_url_of_its_own_below_the_repository_and_no_host() {
    everywhere(async |server| {
        for url in ["/v2/a/b/blobs/uploads/", "/v2/a/b/blobs/uploads"] {
            let reply = server.post(url).header("x-forwarded-proto", "https").header("host", "elsewhere:99").await;
            reply.is(202).has("range", "0-0").has("content-length", "0").body_is("");
            let id = reply.header("docker-upload-uuid");
            assert_eq!(id.len(), 36);
            reply.has("location", &format!("/v2/a/b/blobs/uploads/{id}")).lacks("oci-chunk-min-length");
            server.stands(&reply.location(), "0-0").await;
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
        reply.is_created("a", &digest);
        server.get(&reply.location()).await.is(200).body_is(&content);
        // CHUNK-10: closed.
        server.get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
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
                server.put(&url).body(query).await.is_created("a", &digest);
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
                    post.await.is_created("a", &digest);
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
        close.is_created("a", &digest);
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
                server.put(&format!("{session}?digest={digest}")).await.is_created("a", &digest);
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
            server.put(&close(session)).body(content.clone()).await.is_created(&repository, &digest);

            let session = server.start_upload(&repository).await;
            server.patch(&session).chunked(content.clone()).await.is(202);
            server.put(&close(session)).await.is_created(&repository, &digest);

            let session = server.start_upload(&repository).await;
            server.patch(&session).body(content[..half].to_vec()).await.is(202);
            let reply = server.put(&close(session)).body(content[half..].to_vec()).await;
            reply.is_created(&repository, &digest);
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
            server.stands(&session, "0-1").await;
        }
        for digest in ["", "sha256:zz", BLAKE3] {
            let post = server.post(&format!("/v2/a/blobs/uploads/?digest={digest}")).body("x").await;
            post.refuses(400, "DIGEST_INVALID");
        }
        server.put(&format!("{session}?digest={}", sha256("abc"))).body("c").await.is_created("a", &sha256("abc"));
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
            close.await.is_created(&repository, EMPTY);
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
            reply.is_created("a", digest);
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
        server.put(&url).body("x").await.is_created("a", &digest);
        server.put(&url).body("x").await.is_created("a", &digest);

        let chunked = server.start_upload("c").await;
        server.patch(&chunked).body("x").await.is(202);
        for _ in 0..2 {
            server.put(&format!("{chunked}?digest={digest}")).await.is_created("c", &digest);
        }

        server.put(&format!("{session}?digest={}", sha256("y"))).body("y").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        // Nothing of it in another repository, though the bytes are somewhere.
        let elsewhere = url.replace("/v2/a/", "/v2/b/");
        server.put(&elsewhere).body("x").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
        server.head(&format!("/v2/b/blobs/{digest}")).await.is(404);
    })
    .await;
}
