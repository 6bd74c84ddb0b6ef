//! Chunks and sessions: section 10 of the requirements.

use super::support::{
    Sending, everywhere, id_of,
    images::{NOWHERE, bytes, sha256},
};

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
                server.stands(&session, &format!("0-{}", to - 1)).await;
            }
            let close = server.put(&format!("{session}?digest={digest}"));
            let close = if last < 3067 { close.header("content-range", "2048-3066") } else { close };
            close.body(content[last..].to_vec()).await.is_created("a", &digest);
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
            let on = |send: Sending| if http2 { send.http2() } else { send };
            let reply = on(server.patch(&session).chunked(content[..200_000].to_vec())).await;
            reply.is(202).has("range", "0-199999");
            let reply = on(server.patch(&session).body(content[200_000..].to_vec())).await;
            reply.is(202).has("range", "0-299999");
            on(server.put(&format!("{session}?digest={digest}"))).await.is_created("a", &digest);
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
        server.stands(&session, "0-0").await;
        server.patch(&session).body("x").await.is(202).has("range", "0-0");
        server.patch(&session).header("content-range", "1-1").body("y").await.is(202).has("range", "0-1");
        server.put(&format!("{session}?digest={}", sha256("xy"))).await.is_created("a", &sha256("xy"));
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
        server.stands(&session, "0-7").await;
        let digest = sha256("abcdefgh");
        server.put(&format!("{session}?digest={digest}")).await.is_created("a", &digest);
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
                server.stands(&session, at).await;
                server.stands(&format!("{session}?digest={digest}"), at).await;
            }
        };
        misfits("0-0").await;
        server.patch(&session).header("content-range", "0-9").body(content[..10].to_vec()).await.is(202);
        misfits("0-9").await;
        server.patch(&session).header("content-range", "10-19").body(content[10..20].to_vec()).await.is(202);
        misfits("0-19").await;
        let close = server.put(&format!("{session}?digest={digest}")).header("content-range", "20-29");
        close.body(content[20..].to_vec()).await.is_created("a", &digest);
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
            server.stands(&session, "0-0").await;
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
            server.stands(session, "0-2").await;
            let again = server.patch(session).header("content-range", "0-2").body("abc").await;
            again.refuses(416, "BLOB_UPLOAD_INVALID").has("range", "0-2");
        }
        server.patch(&first).header("content-range", "3-3").body("d").await.is(202).has("range", "0-3");
        server.put(&format!("{first}?digest={}", sha256("abcd"))).await.is_created("a", &sha256("abcd"));
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
        server.stands(&live, "0-0").await;
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
        server.stands(session, "0-3").await;
        let digest = sha256(taken[0].0);
        server.put(&format!("{session}?digest={digest}")).await.is_created("a", &digest);
    })
    .await;
}
