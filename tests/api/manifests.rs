//! Pulling and pushing manifests: sections 6 and 12 of the requirements.

use serde_json::json;

use super::support::{
    Server, Settings, directory_store, everywhere, files,
    images::{
        BLAKE3, DOCKER_MANIFEST, NOWHERE, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, artifact, descriptor, digest, image,
        index, sha256, sha512, with,
    },
};

// PULL-1, PULL-2, PULL-3, PULL-8, MAN-1, MAN-2
#[tokio::test]
async fn a_manifest_comes_back_byte_by_byte_by_tag_and_by_digest() {
    everywhere(async |server| {
        server.stock("a/b").await;
        let bytes = format!("  {}\r\n\t", serde_json::to_string_pretty(&image(&["layer"])).unwrap());
        let digest = sha256(&bytes);
        for reference in ["v1", digest.as_str()] {
            let reply = server.put_manifest("a/b", reference, OCI_MANIFEST, &bytes).await;
            reply.is(201).has("location", &format!("/v2/a/b/manifests/{digest}"));
            reply
                .has("docker-content-digest", &digest)
                .has("content-length", "0")
                .lacks("oci-subject")
                .lacks("oci-tag");
            server.get(&reply.location()).await.is(200).body_is(&bytes);
        }
        for (reference, cache) in [("v1", "no-cache"), (digest.as_str(), "max-age=31536000, immutable")] {
            let reply = server.get(&format!("/v2/a/b/manifests/{reference}")).await;
            reply.is(200).body_is(&bytes).has("content-type", OCI_MANIFEST).has("docker-content-digest", &digest);
            reply.has("etag", &format!("\"{digest}\"")).has("cache-control", cache);
        }
    })
    .await;
}

// PULL-4, GEN-3; fifteen 11
#[tokio::test]
async fn the_head_of_a_manifest_says_all_that_a_get_says() {
    everywhere(async |server| {
        let pushed = server.push_image("a", "v1", "layer").await;
        for reference in ["v1", digest(&pushed)] {
            let url = format!("/v2/a/manifests/{reference}");
            let (head, get) = (server.head(&url).await, server.get(&url).await);
            head.is(200).body_is("").has("content-length", &pushed["size"].to_string());
            for name in ["content-type", "content-length", "docker-content-digest", "etag", "cache-control"] {
                assert_eq!(head.all(name), get.all(name), "{name}");
            }
        }
    })
    .await;
}

// PULL-5, NAME-7, DIG-4, PULL-10
#[tokio::test]
async fn what_was_never_pushed_is_unknown() {
    everywhere(async |server| {
        server.stock("a").await;
        for reference in ["v1", NOWHERE, BLAKE3, ".INVALID_MANIFEST_NAME", "sha256:zz", "sha256:", "b%20c"] {
            let url = format!("/v2/a/manifests/{reference}");
            server.get(&url).await.refuses(404, "MANIFEST_UNKNOWN");
            server.delete(&url).await.refuses(404, "MANIFEST_UNKNOWN");
            server.head(&url).await.is(404);
        }
        server.get("/v2/never/manifests/v1").await.is(404);
        server.head(&format!("/v2/never/manifests/{NOWHERE}")).await.is(404);
        // PULL-10: what is a manifest is no blob, nor the other way round.
        let pushed = server.push_image("a", "v1", "layer").await;
        server.get(&format!("/v2/a/blobs/{}", digest(&pushed))).await.refuses(404, "BLOB_UNKNOWN");
        server.get(&format!("/v2/a/manifests/{}", sha256("layer"))).await.refuses(404, "MANIFEST_UNKNOWN");
    })
    .await;
}

// PULL-6, PULL-7, PULL-9
#[tokio::test]
async fn what_is_stored_is_what_is_sent_whatever_the_client_says_it_accepts() {
    everywhere(async |server| {
        let image = server.push_image("a", "image", "layer").await;
        let bytes = index(&[image]);
        server.push_manifest("a", "index", &bytes).await;
        for accept in [
            &[][..],
            &["*/*"],
            &[OCI_MANIFEST],
            &[DOCKER_MANIFEST, OCI_MANIFEST, "*/*;q=0.1"],
            &["application/vnd.docker.distribution.manifest.v1+json, text/html;q=x, ,;"],
            &["application/json; q=0"],
            &["\u{e9}"],
        ] {
            let get = server.get("/v2/a/manifests/index").header("range", "bytes=0-").header("accept-encoding", "gzip");
            let reply = accept.iter().fold(get, |get, line| get.header("accept", line)).await;
            reply.is(200).has("content-type", OCI_INDEX).lacks("content-encoding").body_is(bytes.to_string());
        }
    })
    .await;
}

// PULL-8
#[tokio::test]
async fn a_manifest_that_the_client_has_is_not_sent_again() {
    everywhere(async |server| {
        let pushed = server.push_image("a", "v1", "layer").await;
        let etag = format!("\"{}\"", digest(&pushed));
        for tag in [&etag, digest(&pushed), &format!("\"x\", {etag}"), "*", &format!("W/{etag}")] {
            let reply = server.get("/v2/a/manifests/v1").header("if-none-match", tag).await;
            reply.is(304).has("etag", &etag).has("docker-content-digest", digest(&pushed)).body_is("");
            server.head("/v2/a/manifests/v1").header("if-none-match", tag).await.is(304);
        }
        server.push_manifest("a", "v1", &image(&[])).await;
        server.get("/v2/a/manifests/v1").header("if-none-match", &etag).await.is(200);
    })
    .await;
}

// MAN-2, MAN-3
#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says_is_refused_and_moves_no_tag() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        let digest = sha256(&bytes);
        for reference in [digest.clone(), format!("{digest}?tag=v1")] {
            let reply = server.put_manifest("a", &reference, OCI_MANIFEST, &format!("{bytes}  ")).await;
            reply.refuses(400, "DIGEST_INVALID");
        }
        server.get(&format!("/v2/a/manifests/{digest}")).await.is(404);
        server.get(&format!("/v2/a/manifests/{}", sha256(format!("{bytes}  ")))).await.is(404);
        server.get("/v2/a/manifests/v1").await.is(404);
    })
    .await;
}

// NAME-5, NAME-7, DIG-4
#[tokio::test]
async fn what_is_neither_a_tag_nor_a_digest_cannot_be_pushed() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        let long = "t".repeat(129);
        for reference in [".x", "-x", "b%20c", "b%2Fc", &long, "sha256:baddigeststring", "x:y", BLAKE3, "%C3%A9"] {
            let reply = server.put_manifest("a", reference, OCI_MANIFEST, &bytes).await;
            reply.refuses(400, "DIGEST_INVALID");
        }
        for reference in ["_x", "x.", "a-b_c.d", &long[1..]] {
            server.put_manifest("a", reference, OCI_MANIFEST, &bytes).await.is(201);
            server.get(&format!("/v2/a/manifests/{reference}")).await.is(200).body_is(&bytes);
        }
    })
    .await;
}

// DIG-3, DIG-5, PULL-3, MAN-11; fifteen 5
#[tokio::test]
async fn a_sha512_manifest_keeps_its_algorithm_also_under_its_tags() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        let (short, long) = (sha256(&bytes), sha512(&bytes));
        let reply = server.put_manifest("a", &format!("{long}?tag=long"), OCI_MANIFEST, &bytes).await;
        reply.is(201).has("docker-content-digest", &long).has("location", &format!("/v2/a/manifests/{long}"));
        reply.has("oci-tag", "long");
        server.get(&format!("/v2/a/manifests/{short}")).await.is(404);
        server.put_manifest("a", "short", OCI_MANIFEST, &bytes).await.is(201).has("docker-content-digest", &short);
        for (tag, digest) in [("long", &long), ("short", &short), (&long, &long), (&short, &short)] {
            let reply = server.get(&format!("/v2/a/manifests/{tag}")).await;
            reply.is(200).has("docker-content-digest", digest).body_is(&bytes);
            server.head(&format!("/v2/a/manifests/{tag}")).await.is(200).has("docker-content-digest", digest);
        }
    })
    .await;
}

// MAN-10, MAN-7, section 22
#[tokio::test]
async fn a_subject_is_echoed_whether_it_exists_or_not() {
    everywhere(async |server| {
        let subject = server.push_image("a", "v1", "layer").await;
        server.push_blob("a", "{}").await;
        let nowhere = json!({ "mediaType": OCI_MANIFEST, "digest": NOWHERE, "size": 3 });
        for subject in [&subject, &nowhere] {
            let about = artifact("a/b", subject, "x").to_string();
            let reply = server.put_manifest("a", "about", OCI_MANIFEST, &about).await;
            reply.is(201).has("oci-subject", digest(subject));
            let about = with(index(&[]), "subject", subject.clone()).to_string();
            server.put_manifest("a", "about", OCI_INDEX, &about).await.is(201).has("oci-subject", digest(subject));
        }
        let docker = with(with(image(&["layer"]), "mediaType", json!(DOCKER_MANIFEST)), "subject", subject.clone());
        server.put_manifest("a", "d", DOCKER_MANIFEST, &docker.to_string()).await.is(201).lacks("oci-subject");
        let listed = server.get(&format!("/v2/a/referrers/{}", digest(&subject))).await.is(200).json();
        assert!(!listed.to_string().contains(&sha256(docker.to_string())));
    })
    .await;
}

// MAN-11
#[tokio::test]
async fn one_push_sets_several_tags() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        for digest in [sha256(&bytes), sha512(&bytes)] {
            let tags: Vec<_> = (0..10).map(|it| format!("t{it}")).collect();
            let query: Vec<_> = tags.iter().chain(&tags[..1]).map(|it| format!("tag={it}")).collect();
            let reference = format!("{digest}?{}", query.join("&"));
            let reply = server.put_manifest("a", &reference, OCI_MANIFEST, &bytes).await;
            reply.is(201).has("docker-content-digest", &digest);
            let mut set = reply.all("oci-tag");
            set.dedup();
            assert!(tags.iter().all(|it| set.contains(&it.as_str())), "{reply:?}");
            for tag in &tags {
                server.head(&format!("/v2/a/manifests/{tag}")).await.is(200).has("docker-content-digest", &digest);
            }
        }
    })
    .await;
}

// MAN-11
#[tokio::test]
async fn if_one_of_several_tags_is_illegal_or_they_are_too_many_none_is_set() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        let digest = sha256(&bytes);
        for bad in [".x", "", "x:y", "a/b"] {
            let reference = format!("{digest}?tag=good&tag={bad}");
            server.put_manifest("a", &reference, OCI_MANIFEST, &bytes).await.is(400);
        }
        for many in [51, 5000] {
            let many: Vec<_> = (0..many).map(|it| format!("tag=t{it}")).collect();
            let reference = format!("{digest}?{}", many.join("&"));
            server.put_manifest("a", &reference, OCI_MANIFEST, &bytes).await.refuses(414, "UNSUPPORTED");
        }
        for tag in ["good", "t0"] {
            server.get(&format!("/v2/a/manifests/{tag}")).await.is(404);
        }
        server.get(&format!("/v2/a/manifests/{digest}")).await.is(404);
    })
    .await;
}

// MAN-12
#[tokio::test]
async fn tags_beside_a_tag_are_ignored() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        server.put_manifest("a", "v1?tag=v2&tag=.x", OCI_MANIFEST, &bytes).await.is(201).lacks("oci-tag");
        server.get("/v2/a/manifests/v2").await.is(404);
    })
    .await;
}

// MAN-13, MAN-1
#[tokio::test]
async fn a_tag_moves_and_what_it_left_stays_reachable() {
    everywhere(async |server| {
        let first = server.push_image("a", "v1", "layer").await;
        assert_eq!(server.push_image("a", "v1", "layer").await, first);
        let second = server.push_manifest("a", "v1", &image(&[])).await;
        server.head("/v2/a/manifests/v1").await.is(200).has("docker-content-digest", digest(&second));
        server.get(&format!("/v2/a/manifests/{}", digest(&first))).await.is(200);
        server.push_image("a", "v1", "layer").await;
        server.head("/v2/a/manifests/v1").await.is(200).has("docker-content-digest", digest(&first));
    })
    .await;
}

// MAN-13: no moment without the tag
#[tokio::test]
async fn a_tag_that_moves_is_there_all_the_while() {
    everywhere(async |server| {
        server.push_image("a", "v1", "layer").await;
        let moves = async {
            for round in 0..20 {
                let layers: &[&str] = if round % 2 == 0 { &[] } else { &["layer"] };
                server.push_manifest("a", "v1", &image(layers)).await;
            }
        };
        let looks = async {
            for _ in 0..100 {
                let reply = server.get("/v2/a/manifests/v1").await;
                let digest = sha256(&reply.body);
                reply.is(200).has("docker-content-digest", &digest);
            }
        };
        futures_util::future::join(moves, looks).await;
    })
    .await;
}

// MAN-15
#[tokio::test]
async fn a_tag_moves_only_if_it_is_what_the_client_thinks() {
    everywhere(async |server| {
        server.stock("a").await;
        let (one, two) = (image(&["layer"]).to_string(), image(&[]).to_string());
        let etag = |bytes: &str| format!("\"{}\"", sha256(bytes));
        let put = async |name: &str, value: &str, bytes: &str| {
            let put = server.put("/v2/a/manifests/v1").header(name, value).header("content-type", OCI_MANIFEST);
            put.body(bytes.to_owned()).await
        };
        put("if-match", &etag(&one), &one).await.refuses(412, "DENIED");
        server.get("/v2/a/manifests/v1").await.is(404);
        put("if-none-match", "*", &one).await.is(201);
        put("if-none-match", "*", &two).await.refuses(412, "DENIED");
        put("if-match", &etag(&two), &two).await.refuses(412, "DENIED");
        server.get("/v2/a/manifests/v1").await.is(200).body_is(&one);
        put("if-match", &etag(&one), &two).await.is(201);
        server.get("/v2/a/manifests/v1").await.is(200).body_is(&two);
        for (name, value) in
            [("if-match", "*"), ("if-none-match", "\"x\""), ("if-match", "\"a\", \"b\""), ("if-match", "")]
        {
            put(name, value, &one).await.refuses(400, "UNSUPPORTED");
        }
        // Where a condition would not be held it is not ignored either.
        let by_digest = server.put(&format!("/v2/a/manifests/{}?tag=v1", sha256(&one))).header("if-none-match", "*");
        by_digest.header("content-type", OCI_MANIFEST).body(one.clone()).await.refuses(400, "UNSUPPORTED");
        for reference in ["v1", &sha256(&two)] {
            let delete = server.delete(&format!("/v2/a/manifests/{reference}")).header("if-match", &etag(&one));
            delete.await.refuses(400, "UNSUPPORTED");
        }
        server.get("/v2/a/manifests/v1").await.is(200).body_is(&two);
    })
    .await;
}

// MAN-15: a real compare-and-swap
#[tokio::test]
async fn of_racing_pushes_under_one_condition_one_wins() {
    everywhere(async |server| {
        server.stock("a").await;
        let pushes = (0..8).map(async |it| {
            let body = with(image(&["layer"]), "annotations", json!({ "writer": it.to_string() })).to_string();
            let put = server.put("/v2/a/manifests/v1").header("if-none-match", "*").body(body.clone()).await;
            (put, body)
        });
        let replies = futures_util::future::join_all(pushes).await;
        let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|(reply, _)| reply.status == 201);
        assert_eq!(won.len(), 1, "{replies:?}");
        for (reply, _) in lost {
            reply.refuses(412, "DENIED");
        }
        server.get("/v2/a/manifests/v1").await.is(200).body_is(&won[0].1);
    })
    .await;
}

// MAN-16, STATE-8
#[tokio::test]
async fn what_was_looked_for_in_vain_is_there_everywhere_once_it_is_pushed() {
    everywhere(async |server| {
        let replica = server.replica().await;
        server.stock("a").await;
        let bytes = image(&["layer"]).to_string();
        let (tag, digest) = ("/v2/a/manifests/v1".to_owned(), format!("/v2/a/manifests/{}", sha256(&bytes)));
        for url in [&tag, &digest] {
            replica.head(url).await.is(404);
            server.head(url).await.is(404);
        }
        server.put_manifest("a", "v1", OCI_MANIFEST, &bytes).await.is(201);
        for url in [&tag, &digest] {
            replica.get(url).await.is(200).body_is(&bytes);
        }
        replica.push_manifest("a", "v1", &image(&[])).await;
        server.get(&tag).await.is(200).body_is(image(&[]).to_string());
        server.delete(&tag).await.is(202);
        replica.get(&tag).await.is(404);
    })
    .await;
}

// PULL-11
#[tokio::test]
async fn a_manifest_damaged_on_disk_is_never_sent() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory_store(&directory), Settings::default()).await;
    let pushed = server.push_image("a", "v1", "layer").await;
    let hex = digest(&pushed).trim_start_matches("sha256:");
    let damaged: Vec<_> = files(&directory.path().join("repos")).into_iter().filter(|it| it.ends_with(hex)).collect();
    assert_eq!(damaged.len(), 1);
    let mut bytes = std::fs::read(&damaged[0]).unwrap();
    *bytes.last_mut().unwrap() = b' ';
    std::fs::write(&damaged[0], bytes).unwrap();
    for reference in ["v1", digest(&pushed)] {
        let reply = server.get(&format!("/v2/a/manifests/{reference}")).await;
        reply.refuses(500, "UNKNOWN").lacks("docker-content-digest").lacks("etag");
    }
}

// PUSH-18, STATE-4 as they hold for manifests
#[tokio::test]
async fn half_a_manifest_is_none() {
    everywhere(async |server| {
        server.stock("a").await;
        let bytes = with(image(&["layer"]), "config", descriptor(OCI_CONFIG, "{}")).to_string();
        for framing in [format!("Content-Length: {}", bytes.len() + 1), "Transfer-Encoding: chunked".to_owned()] {
            let mut wire = server.raw().await;
            wire.say(format!("PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")).await;
            if framing.contains("chunked") {
                wire.say(format!("{:x}\r\n{bytes}\r\n", bytes.len())).await;
            } else {
                wire.say(&bytes).await;
            }
            wire.hang_up().await;
            server.get("/v2/a/manifests/v1").await.is(404);
            server.get(&format!("/v2/a/manifests/{}", sha256(&bytes))).await.is(404);
        }
    })
    .await;
}
