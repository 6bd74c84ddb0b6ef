//! Pulling, mounting and deleting blobs: sections 7, 11 and 16 of the requirements.

use std::sync::Arc;

use marina_distribution::{
    http,
    registry::{
        self, Registry,
        check::{Check, Share},
    },
};

use super::support::{
    Server, Settings, directory_store, everywhere, everywhere_with, files,
    images::{BLAKE3, EMPTY, NOWHERE, bytes, sha256, sha512},
    in_memory,
};

// BLOB-1, GEN-4
#[tokio::test]
async fn a_blob_is_read_with_its_length_digest_and_tag() {
    everywhere(async |server| {
        let content = bytes(300_000);
        let digest = server.push_blob("a/b", &content).await;
        let reply = server.get(&format!("/v2/a/b/blobs/{digest}")).await;
        reply.is(200).has("content-length", "300000").has("content-type", "application/octet-stream");
        reply.has("docker-content-digest", &digest).has("etag", &format!("\"{digest}\""));
        reply.has("accept-ranges", "bytes").has("cache-control", "max-age=31536000, immutable");
        reply.lacks("content-range").body_is(&content);
    })
    .await;
}

// BLOB-2, GEN-3; fifteen 11
#[tokio::test]
async fn the_head_of_a_blob_has_its_real_length_and_no_body() {
    everywhere(async |server| {
        let digest = server.push_blob("a", bytes(2048)).await;
        let url = format!("/v2/a/blobs/{digest}");
        let (head, get) = (server.head(&url).await, server.get(&url).await);
        head.is(200).has("content-length", "2048").has("docker-content-digest", &digest).body_is("");
        for name in
            ["content-type", "content-length", "docker-content-digest", "etag", "accept-ranges", "cache-control"]
        {
            assert_eq!(head.all(name), get.all(name), "{name}");
        }
        server.head(&format!("/v2/a/blobs/{NOWHERE}")).await.is(404).body_is("");
    })
    .await;
}

// BLOB-3
#[tokio::test]
async fn a_blob_of_another_repository_is_unknown_here() {
    everywhere(async |server| {
        let digest = server.push_blob("a", "secret").await;
        server.push_blob("b", "other").await;
        let url = format!("/v2/b/blobs/{digest}");
        server.head(&url).await.is(404);
        let reply = server.get(&url).await;
        reply.refuses(404, "BLOB_UNKNOWN");
        assert_eq!(reply.errors()[0]["detail"]["digest"], digest);
        server.get(&format!("/v2/never/blobs/{digest}")).await.is(404);
    })
    .await;
}

// BLOB-4, RANGE-3; fifteen 15
#[tokio::test]
async fn the_empty_blob_is_read_whole_whatever_the_range() {
    everywhere(async |server| {
        let digest = server.push_blob("a", "").await;
        assert_eq!(digest, EMPTY);
        let url = format!("/v2/a/blobs/{EMPTY}");
        server.head(&url).await.is(200).has("content-length", "0").has("docker-content-digest", EMPTY);
        server.get(&url).await.is(200).has("content-length", "0").body_is("");
        for range in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-9", "bytes=0-1,2-3"] {
            server.get(&url).header("range", range).await.is(200).has("content-length", "0").lacks("content-range");
        }
    })
    .await;
}

// BLOB-5, DIG-1, DIG-2, DIG-4
#[tokio::test]
async fn a_malformed_digest_is_invalid_and_an_unsupported_one_unknown() {
    let server = in_memory().await;
    server.push_blob("a", "x").await;
    let short = &sha256("x")[..70];
    let upper = sha256("x").to_uppercase().replace("SHA256", "sha256");
    for bad in ["x", "sha256:", "sha256:zz", ":", "sha256", "SHA256:00", "sha256:a%2Fb", short, &upper] {
        server.get(&format!("/v2/a/blobs/{bad}")).await.refuses(400, "DIGEST_INVALID");
        server.delete(&format!("/v2/a/blobs/{bad}")).await.refuses(400, "DIGEST_INVALID");
        server.head(&format!("/v2/a/blobs/{bad}")).await.is(400);
    }
    for unsupported in [BLAKE3, "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        server.get(&format!("/v2/a/blobs/{unsupported}")).await.refuses(404, "BLOB_UNKNOWN");
        server.delete(&format!("/v2/a/blobs/{unsupported}")).await.refuses(404, "BLOB_UNKNOWN");
        server.head(&format!("/v2/a/blobs/{unsupported}")).await.is(404);
    }
}

// DIG-3, DIG-5; fifteen 5
#[tokio::test]
async fn the_same_bytes_under_two_algorithms_are_two_blobs() {
    everywhere(async |server| {
        let (short, long) = (sha256("same"), sha512("same"));
        server.push_blob_as("a", &long, "same").await;
        server.get(&format!("/v2/a/blobs/{short}")).await.refuses(404, "BLOB_UNKNOWN");
        server.push_blob_as("a", &short, "same").await;
        for digest in [&short, &long] {
            let reply = server.get(&format!("/v2/a/blobs/{digest}")).await;
            reply.is(200).has("docker-content-digest", digest).body_is("same");
        }
        server.delete(&format!("/v2/a/blobs/{short}")).await.is(202);
        server.get(&format!("/v2/a/blobs/{short}")).await.is(404);
        server.get(&format!("/v2/a/blobs/{long}")).await.is(200).body_is("same");
    })
    .await;
}

// PULL-8 as far as it holds for blobs
#[tokio::test]
async fn a_blob_that_the_client_has_is_not_sent_again() {
    let server = in_memory().await;
    let digest = server.push_blob("a", "x").await;
    let url = format!("/v2/a/blobs/{digest}");
    for tag in
        [format!("\"{digest}\""), digest.clone(), format!("W/\"{digest}\""), format!("\"y\", \"{digest}\""), "*".into()]
    {
        server.get(&url).header("if-none-match", &tag).await.is(304).has("etag", &format!("\"{digest}\""));
        server.head(&url).header("if-none-match", &tag).await.is(304);
    }
    server.get(&url).header("if-none-match", "\"y\"").await.is(200).body_is("x");
}

// RANGE-1, RANGE-4
#[tokio::test]
async fn a_range_is_sent_exactly_and_says_where_it_lies() {
    everywhere(async |server| {
        let content = bytes(2048);
        let digest = server.push_blob("a", &content).await;
        let url = format!("/v2/a/blobs/{digest}");
        for (range, from, to) in [
            ("bytes=500-1499", 500, 1499),
            ("bytes=500-", 500, 2047),
            ("bytes=-500", 1548, 2047),
            ("bytes=2000-5000", 2000, 2047),
            ("bytes=0-", 0, 2047),
            ("bytes=0-0", 0, 0),
            ("bytes=2047-2047", 2047, 2047),
            ("bytes=-5000", 0, 2047),
        ] {
            let reply = server.get(&url).header("range", range).await;
            reply.is(206).has("content-range", &format!("bytes {from}-{to}/2048"));
            reply.has("content-length", &(to - from + 1).to_string()).body_is(&content[from..=to]);
            reply.has("docker-content-digest", &digest).has("content-type", "application/octet-stream");
        }
    })
    .await;
}

// RANGE-2
#[tokio::test]
async fn a_range_beyond_the_end_is_not_satisfiable() {
    let server = in_memory().await;
    let digest = server.push_blob("a", bytes(2048)).await;
    for range in ["bytes=2048-", "bytes=5000-10000", "bytes=500-0", "bytes=-0"] {
        let reply = server.get(&format!("/v2/a/blobs/{digest}")).header("range", range).await;
        reply.refuses(416, "UNSUPPORTED").has("content-range", "bytes */2048");
    }
}

// RANGE-6
#[tokio::test]
async fn a_range_that_is_not_understood_or_of_other_bytes_is_ignored() {
    let server = in_memory().await;
    let content = bytes(100);
    let digest = server.push_blob("a", &content).await;
    let url = format!("/v2/a/blobs/{digest}");
    for range in ["lines=1-2", "bytes", "bytes=", "bytes=a-b", "bytes=-", "1-2", ""] {
        server.get(&url).header("range", range).await.is(200).lacks("content-range").body_is(&content);
    }
    for other in ["\"other\"", &digest, &format!("W/\"{digest}\""), "Sat, 29 Oct 1994 19:43:31 GMT"] {
        server.get(&url).header("range", "bytes=1-2").header("if-range", other).await.is(200).body_is(&content);
    }
    let reply = server.get(&url).header("range", "bytes=1-2").header("if-range", &format!("\"{digest}\"")).await;
    reply.is(206).body_is(&content[1..=2]);
    // Of two headers neither is the one.
    server.get(&url).header("range", "bytes=1-2").header("range", "bytes=3-4").await.is(200).body_is(&content);
    // Only a GET has ranges.
    server.head(&url).header("range", "bytes=1-2").await.is(200).has("content-length", "100");
}

// RANGE-5
#[tokio::test]
async fn several_ranges_come_as_the_parts_of_one_body() {
    everywhere(async |server| {
        let content = bytes(2048);
        let digest = server.push_blob("a", &content).await;
        let url = format!("/v2/a/blobs/{digest}");
        let reply = server.get(&url).header("range", "bytes=0-9,20-29, -5 ,9000-").await;
        reply.is(206).has("docker-content-digest", &digest).lacks("content-range");
        let boundary = reply.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut expected = Vec::new();
        for (from, to) in [(0, 9), (20, 29), (2043, 2047)] {
            expected.extend_from_slice(
                format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {from}-{to}/2048\r\n\r\n"
                )
                .as_bytes(),
            );
            expected.extend_from_slice(&content[from..=to]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        reply.body_is(&expected);

        let many: Vec<_> = (0..2000).map(|it| format!("{it}-{it}")).collect();
        let reply = server.get(&url).header("range", &format!("bytes={}", many.join(","))).await;
        reply.is(200).body_is(&content);
    })
    .await;
}

// BLOB-6
#[tokio::test]
async fn a_blob_cut_short_on_disk_is_never_sent_as_if_it_were_whole() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory_store(&directory), Settings::default()).await;
    let digest = server.push_blob("a", bytes(500_000)).await;
    let mut cut = 0;
    for file in files(&directory.path().join("data")) {
        if file.metadata().unwrap().len() == 500_000 {
            let mut permissions = file.metadata().unwrap().permissions();
            #[expect(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
            permissions.set_readonly(false);
            std::fs::set_permissions(&file, permissions).unwrap();
            std::fs::File::options().write(true).open(&file).unwrap().set_len(400_000).unwrap();
            cut += 1;
        }
    }
    assert_eq!(cut, 1);
    let reply = server.get(&format!("/v2/a/blobs/{digest}")).await;
    reply.refuses(500, "UNKNOWN");
    // ERR-2, habit of the house: what it was is in the log, under the id.
    assert!(reply.errors()[0]["message"].as_str().unwrap().contains(reply.header("x-request-id")));
    assert!(!reply.json().to_string().contains("data/"), "{reply:?}");
}

// MOUNT-1, MOUNT-5
#[tokio::test]
async fn a_blob_is_mounted_from_another_repository_and_is_there_at_once() {
    everywhere(async |server| {
        let digest = server.push_blob("from/here", "layer").await;
        for from in ["from/here", "from%2Fhere", "to"] {
            let reply = server.post(&format!("/v2/to/blobs/uploads/?mount={digest}&from={from}")).await;
            reply.is(201).has("location", &format!("/v2/to/blobs/{digest}")).has("docker-content-digest", &digest);
            reply.has("content-length", "0");
            server.head(&format!("/v2/to/blobs/{digest}")).await.is(200).has("content-length", "5");
            server.get(&reply.location()).await.is(200).body_is("layer");
        }
    })
    .await;
}

// MOUNT-2; fifteen 6 as far as it is not about credentials
#[tokio::test]
async fn what_cannot_be_mounted_is_to_be_uploaded() {
    everywhere(async |server| {
        let digest = server.push_blob("from", "layer").await;
        for query in [
            format!("mount={NOWHERE}&from=from"),
            format!("mount={digest}&from=never"),
            format!("mount={digest}&from=NOT%20A%20NAME"),
            format!("mount={digest}&from="),
            format!("mount={BLAKE3}&from=from"),
            "mount=sha256:zz&from=from".to_owned(),
            "mount=&from=from".to_owned(),
            "from=from".to_owned(),
        ] {
            let reply = server.post(&format!("/v2/to/blobs/uploads/?{query}")).await;
            reply.is(202).has("range", "0-0").has("content-length", "0");
            let id = reply.header("docker-upload-uuid");
            assert_eq!(reply.location(), format!("/v2/to/blobs/uploads/{id}"), "{query}");
            server.put(&format!("{}?digest={}", reply.location(), sha256("x"))).body("x").await.is(201);
        }
        server.head(&format!("/v2/to/blobs/{digest}")).await.is(404);
    })
    .await;
}

// MOUNT-4
#[tokio::test]
async fn a_mount_that_names_no_source_finds_one() {
    everywhere(async |server| {
        let digest = server.push_blob("from", "layer").await;
        let reply = server.post(&format!("/v2/to/blobs/uploads/?mount={digest}")).await;
        reply.is(201).has("location", &format!("/v2/to/blobs/{digest}")).has("docker-content-digest", &digest);
        server.get(&reply.location()).await.is(200).body_is("layer");
        server.post(&format!("/v2/to/blobs/uploads/?mount={NOWHERE}")).await.is(202).has("range", "0-0");
    })
    .await;
}

// MOUNT-6
#[tokio::test]
async fn dozens_of_mounts_and_heads_run_side_by_side() {
    everywhere(async |server| {
        let digest = server.push_blob("from", "layer").await;
        let digest = digest.as_str();
        let mounts = (0..40).map(async |it| {
            let to = it % 8;
            server.post(&format!("/v2/to{to}/blobs/uploads/?mount={digest}&from=from")).await.is(201);
            server.head(&format!("/v2/to{to}/blobs/{digest}")).await.is(200).has("content-length", "5");
        });
        futures_util::future::join_all(mounts).await;
    })
    .await;
}

// DEL-4, DEL-9, DEL-8
#[tokio::test]
async fn a_deleted_blob_is_gone_here_at_once_and_nowhere_else() {
    everywhere(async |server| {
        let digest = server.push_blob("a", "layer").await;
        server.post(&format!("/v2/b/blobs/uploads/?mount={digest}&from=a")).await.is(201);
        let url = format!("/v2/a/blobs/{digest}");
        server.delete(&url).await.is(202).has("content-length", "0").lacks("docker-content-digest").body_is("");
        server.head(&url).await.is(404);
        server.get(&url).await.refuses(404, "BLOB_UNKNOWN");
        server.delete(&url).await.refuses(404, "BLOB_UNKNOWN");
        server.get(&format!("/v2/b/blobs/{digest}")).await.is(200).body_is("layer");

        server.push_blob("a", "layer").await;
        server.get(&url).await.is(200).body_is("layer");
    })
    .await;
}

// DEL-4
#[tokio::test]
async fn a_blob_that_is_not_there_cannot_be_deleted() {
    let server = in_memory().await;
    server.push_blob("a", "x").await;
    server.delete(&format!("/v2/a/blobs/{NOWHERE}")).await.refuses(404, "BLOB_UNKNOWN");
    server.delete(&format!("/v2/never/blobs/{NOWHERE}")).await.is(404);
}

// DEL-6
#[tokio::test]
async fn a_blob_may_be_deleted_while_a_manifest_names_it() {
    everywhere(async |server| {
        server.push_image("a", "latest", "layer").await;
        server.delete(&format!("/v2/a/blobs/{}", sha256("layer"))).await.is(202);
        server.get(&format!("/v2/a/blobs/{}", sha256("layer"))).await.is(404);
        server.get("/v2/a/manifests/latest").await.is(200);
    })
    .await;
}

// DEL-5, ERR-3
#[tokio::test]
async fn a_registry_that_does_not_delete_says_so() {
    let settings =
        Settings { http: http::Settings { deletes: false, ..http::Settings::default() }, ..Settings::default() };
    everywhere_with(settings, async |server| {
        server.push_image("a", "latest", "layer").await;
        for (path, allow) in [
            (format!("blobs/{}", sha256("layer")), "GET, HEAD"),
            ("manifests/latest".to_owned(), "GET, HEAD, PUT"),
            (format!("manifests/{NOWHERE}"), "GET, HEAD, PUT"),
        ] {
            server.delete(&format!("/v2/a/{path}")).await.refuses(405, "UNSUPPORTED").has("allow", allow);
        }
        server.get("/v2/a/manifests/latest").await.is(200);
        // CHUNK-11: a session is not content.
        let session = server.start_upload("a").await;
        server.delete(&session).await.is(204);
    })
    .await;
}

// PULL-11, as it holds for blobs
#[tokio::test]
async fn a_damaged_blob_is_never_sent_to_its_end_and_one_in_quarantine_is_absent_until_it_is_pushed_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory_store(&directory), Settings::default()).await;
    let content = bytes(600_000);
    let digest = server.push_blob("a", &content).await;
    let url = format!("/v2/a/blobs/{digest}");
    let file = files(&directory.path().join("data")).remove(0);
    for damaged in [&content[..599_999], &[&content[..], b"x"].concat()] {
        std::fs::write(&file, damaged).unwrap();
        server.get(&url).await.refuses(500, "UNKNOWN").lacks("docker-content-digest").lacks("etag");
    }
    let flipped = [b"x", &content[1..]].concat();
    std::fs::write(&file, flipped).unwrap();
    let mut wire = server.raw().await;
    wire.say(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let head = wire.head().await;
    assert!(head.contains("content-length: 600000\r\n"), "{head}");
    assert!(wire.rest().await.len() < 600_000, "the connection closes before the end");
    let store = directory_store(&directory);
    let registry = Registry::open(Arc::clone(&store), registry::Settings::default()).await.unwrap();
    Check::new(store).deep(Share::ALL, None).repair(registry).run(|_| {}).await.unwrap();
    server.get(&url).await.refuses(404, "BLOB_UNKNOWN");
    server.head(&url).await.is(404);
    assert_eq!(server.push_blob("a", &content).await, digest);
    server.get(&url).await.is(200).body_is(&content);
}
