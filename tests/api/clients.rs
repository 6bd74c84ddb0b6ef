//! What real clients send, replayed: section 19 of the requirements. Each is asserted as strictly as that client is.

use serde_json::json;

use super::support::{
    Reply, everywhere, id_of,
    images::{
        DOCKER_MANIFEST, EMPTY, NOWHERE, OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, artifact, bytes,
        descriptor, digest, image, index, sha256, sha512, with, without,
    },
    raw,
};

/// A `Range` as docker scans it: two integers with a dash between, the second not below the first.
#[track_caller]
fn scans_as_docker_does(reply: &Reply) -> (u64, u64) {
    let (from, to) = reply.header("range").split_once('-').unwrap_or_default();
    let (from, to) = (from.parse().unwrap_or(u64::MAX), to.parse().unwrap_or_default());
    assert!(from <= to, "{reply:?}");
    (from, to)
}

// CLI-1
#[tokio::test]
async fn docker_pushes_and_pulls() {
    everywhere(async |server| {
        let v2 = |path: &str| format!("/v2/library/app/{path}");
        server.get("/v2/").await.is(200).has("docker-distribution-api-version", "registry/2.0");
        let layer = String::from_utf8(vec![b'l'; 50_000]).unwrap();
        for content in [layer.as_str(), "{}"] {
            let blob = v2(&format!("blobs/{}", sha256(content)));
            server.head(&blob).await.is(404);
            // It tries to mount from whatever it pushed the layer to before, and goes on with the same session.
            let mount = format!("blobs/uploads/?from=library%2Fold&mount={}", sha256(content).replace(':', "%3A"));
            let started = server.post(&v2(&mount)).await;
            started.is(202);
            scans_as_docker_does(&started);
            let uuid = started.header("docker-upload-uuid").to_owned();
            let sent = server.patch(&started.location()).chunked(content.to_owned()).await;
            sent.is(202).has("docker-upload-uuid", &uuid);
            assert_eq!(scans_as_docker_does(&sent), (0, content.len() as u64 - 1));
            let close = format!("{}?digest={}", sent.location(), sha256(content).replace(':', "%3A"));
            server.put(&close).await.is(201).has("docker-content-digest", &sha256(content));
            server.head(&blob).await.is(200).has("content-length", &content.len().to_string());
        }
        let layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor("application/vnd.docker.container.image.v1+json", "{}"),
            "layers": [layer],
        });
        let body = serde_json::to_string_pretty(&manifest).unwrap();
        let put = server.put_manifest("library/app", "latest", DOCKER_MANIFEST, &body).await;
        put.is(201).has("docker-content-digest", &sha256(&body));

        let head = server.head(&v2("manifests/latest")).header("accept", DOCKER_MANIFEST).header("accept", OCI_INDEX);
        let head = head.await;
        head.is(200).has("content-type", DOCKER_MANIFEST).has("content-length", &body.len().to_string());
        let by_digest = v2(&format!("manifests/{}", head.header("docker-content-digest")));
        server.get(&by_digest).header("accept", DOCKER_MANIFEST).await.is(200).body_is(&body);
        let pulls = [digest(&layer), digest(&manifest["config"])].map(|it| server.get(&v2(&format!("blobs/{it}"))));
        for pull in futures_util::future::join_all(pulls.map(IntoFuture::into_future)).await {
            pull.is(200);
        }
    })
    .await;
}

// CLI-2
#[tokio::test]
async fn containerd_pushes_whole_blobs_in_one_put_and_pulls_in_open_ranges() {
    everywhere(async |server| {
        let v2 = |path: &str| format!("/v2/a/app/{path}");
        let layer = bytes(80_000);
        let accept = format!("{OCI_LAYER}, */*");
        for content in [layer.as_slice(), b"{}"] {
            let blob = v2(&format!("blobs/{}?ns=docker.io", sha256(content)));
            server.head(&blob).header("accept", &accept).await.is(404);
            let started = server.post(&v2("blobs/uploads/?ns=docker.io")).await;
            // The digest is added to the query, whatever is there.
            let url = format!("{}?digest={}&ns=docker.io", started.is(202).location(), sha256(content));
            for _ in 0..2 {
                // Replayed to the same URL, as after a 5xx whose work was done.
                server
                    .put(&url)
                    .header("content-type", "application/octet-stream")
                    .body(content.to_vec())
                    .await
                    .is(201);
            }
        }
        let started = server.post(&v2("blobs/uploads/")).await.is(202).location();
        server.put(&format!("{started}?digest={EMPTY}")).chunked("").await.is(201);

        let layer_of = json!({ "mediaType": OCI_LAYER, "digest": sha256(&layer), "size": layer.len() });
        let manifest = with(image(&[]), "layers", json!([layer_of]));
        server.head(&v2("manifests/v1")).header("accept", &format!("{OCI_MANIFEST}, */*")).await.is(404);
        let pushed = server.push_manifest("a/app", "v1", &manifest).await;
        let head =
            server.head(&v2("manifests/v1?ns=docker.io")).header("accept", &format!("{OCI_MANIFEST}, */*")).await;
        head.is(200).has("docker-content-digest", digest(&pushed)).has("content-type", OCI_MANIFEST);

        let blob = v2(&format!("blobs/{}", sha256(&layer)));
        for from in [0, 20_000, 79_999] {
            let mut wire = server.raw().await;
            wire.say(format!("GET {blob} HTTP/1.1\r\nHost: x\r\nRange: bytes={from}-\r\n\r\n")).await;
            let head = wire.head().await;
            assert!(head.starts_with("HTTP/1.1 206"), "{head}");
            let range = format!("bytes {from}-79999/80000");
            assert_eq!(raw::header(&head, "content-range"), Some(range.as_str()));
            // It has what it wants and hangs up.
            wire.reset();
        }
        // What is not a manifest it looks for among the blobs, and the other way round.
        server.get(&v2(&format!("manifests/{}", sha256(&layer)))).await.refuses(404, "MANIFEST_UNKNOWN");
        server.get(&v2(&format!("blobs/{}", digest(&pushed)))).await.refuses(404, "BLOB_UNKNOWN");

        for (tag, artifact_type) in [("s1", "a/sig"), ("s2", "a/sbom"), ("s3", "a/other")] {
            server.push_manifest("a/app", tag, &artifact(artifact_type, &pushed, "")).await;
        }
        let url = v2(&format!("referrers/{}?artifactType=a/sig&artifactType=a/sbom", digest(&pushed)));
        let listed = server.get(&url).header("accept", &format!("{OCI_INDEX}, */*")).await;
        assert_eq!(listed.is(200).list::<serde_json::Value>("manifests").len(), 2);
    })
    .await;
}

// CLI-3
#[tokio::test]
async fn podman_looks_mounts_streams_and_pulls_parts_of_layers() {
    everywhere(async |server| {
        let layer = bytes(30_000);
        let old = server.push_blob("old", &layer).await;
        server.get("/v2/").await.is(200);
        server.head(&format!("/v2/new/blobs/{old}")).await.is(404);
        server.head(&format!("/v2/old/blobs/{old}")).await.is(200).has("content-length", "30000");
        server.post(&format!("/v2/new/blobs/uploads/?from=old&mount={old}")).await.is(201);
        // It could not use this one, and says so.
        let unwanted =
            server.post(&format!("/v2/new/blobs/uploads/?from=old&mount={NOWHERE}")).await.is(202).location();
        server.delete(&unwanted).await.is(204);
        for chunked in [false, true] {
            let session = server.post("/v2/new/blobs/uploads/").await.is(202).location();
            let patch = server.patch(&session).header("content-type", "application/octet-stream");
            let patch = if chunked { patch.chunked("{}") } else { patch.body("{}") };
            let session = patch.await.is(202).location();
            let close = server.put(&format!("{session}?digest={}", sha256("{}")));
            close.header("content-type", "application/octet-stream").await.is(201);
        }
        let url = format!("/v2/new/blobs/{old}");
        let parts = server.get(&url).header("range", "bytes=0-9,20-29,29990-29999").await;
        assert!(parts.is(206).header("content-type").starts_with("multipart/byteranges; boundary="));
        // Resuming: only this answer is taken.
        let rest = server.get(&url).header("range", "bytes=10000-").await;
        rest.is(206).has("content-range", "bytes 10000-29999/30000").body_is(&layer[10_000..]);
        // Without a media type in it, as podman builds OCI manifests.
        let manifest = without(image(&[]), "mediaType").to_string();
        server.put_manifest("new", "v1", OCI_MANIFEST, &manifest).await.is(201);
    })
    .await;
}

// CLI-4
#[tokio::test]
async fn crane_probes_and_pushes_with_json_types_and_absolute_rules() {
    everywhere(async |server| {
        server.get("/v2/").await.is(200).body_is("{}");
        let post = |query: &str| {
            server.post(&format!("/v2/a/blobs/uploads/{query}")).header("content-type", "application/json").body("")
        };
        // GEN-7: a push probe
        let probe = post("").await.is(202).location();
        server.delete(&probe).await.is(204);
        let query = format!("?mount={}&from=b&origin=index.docker.io", sha256("{}").replace(':', "%3A"));
        let session = post(&query).await.is(202).location();
        // Resolved against the request's own URL: it must not lead to another host.
        assert!(session.starts_with("/v2/a/"), "{session}");
        let session = server.patch(&session).body("{}").await.is(202).location();
        server.put(&format!("{session}?digest={}", sha256("{}"))).await.is(201);
        let pushed = server.push_manifest("a", "v1", &image(&[])).await;
        let head = server.head("/v2/a/manifests/v1").header("accept", &format!("{OCI_MANIFEST},{OCI_INDEX}")).await;
        head.is(200).has("content-type", OCI_MANIFEST).has("docker-content-digest", digest(&pushed));
        head.has("content-length", &pushed["size"].to_string());
        let page = server.get("/v2/a/tags/list?n=1000").await;
        page.is(200).lacks("link").json_is(&json!({ "name": "a", "tags": ["v1"] }));
    })
    .await;
}

// CLI-5
#[tokio::test]
async fn oras_and_helm_push_charts_and_keep_a_fallback_index() {
    everywhere(async |server| {
        server.get(&format!("/v2/a/referrers/{NOWHERE}")).await.is(200).has("content-type", OCI_INDEX);
        for content in ["chart", "{}"] {
            let session = server.post("/v2/a/blobs/uploads/").await.is(202).location();
            server.put(&format!("{session}?digest={}", sha256(content))).body(content).await.is(201);
        }
        let chart = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.cncf.helm.config.v1+json", "{}"),
            "layers": [descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "chart")],
        });
        // Helm writes _ for the + of a version.
        let put = server.put_manifest("a", "1.0.0_build.5", OCI_MANIFEST, &chart.to_string()).await;
        let chart = descriptor(OCI_MANIFEST, chart.to_string());
        put.is(201).has("docker-content-digest", digest(&chart));
        server.head("/v2/a/manifests/1.0.0_build.5").await.is(200).has("content-type", OCI_MANIFEST);

        // A fallback index is replaced and its predecessor deleted by digest: the tag stays.
        let fallback = digest(&chart).replace(':', "-");
        let first = server.push_manifest("a", &fallback, &index(&[])).await;
        let second = server.push_manifest("a", &fallback, &index(std::slice::from_ref(&chart))).await;
        server.delete(&format!("/v2/a/manifests/{}", digest(&first))).await.is(202);
        let kept = server.get(&format!("/v2/a/manifests/{fallback}")).await;
        kept.is(200).has("docker-content-digest", digest(&second));
        let next = server.get("/v2/a/tags/list?n=1").await.next();
        assert!(next.is_some_and(|it| it.starts_with("/v2/a/tags/list?")));
    })
    .await;
}

// CLI-6
#[tokio::test]
async fn regctl_mounts_from_anywhere_resumes_and_tags_by_digest() {
    everywhere(async |server| {
        let content = bytes(30_000);
        let (short, long) = (sha256(&content), sha512(&content));
        server.post(&format!("/v2/a/blobs/uploads/?mount={short}")).await.is(202);
        let session = server.post("/v2/a/blobs/uploads/?digest-algorithm=sha512").await.is(202).location();
        let patch = |from: usize, to: usize| {
            let patch = server.patch(&session).header("content-range", &format!("{from}-{}", to - 1));
            patch.body(content[from..to].to_vec())
        };
        patch(0, 10_000).await.is(202).has("range", "0-9999");
        // It lost count: the refusal says where to go on.
        let refused = patch(20_000, 30_000).await;
        refused.refuses(416, "BLOB_UPLOAD_INVALID").has("range", "0-9999").has("location", &session);
        patch(10_000, 20_000).await.is(202).has("range", "0-19999");
        server.get(&session).await.is(204).has("range", "0-19999");
        patch(20_000, 30_000).await.is(202).has("range", "0-29999");
        server.put(&format!("{session}?digest={long}")).await.is(201).has("docker-content-digest", &long);

        let session = server.post(&format!("/v2/a/blobs/uploads/?mount={short}")).await.is(202).location();
        server.put(&format!("{session}?digest={short}")).body(content.clone()).await.is(201);
        server.push_blob("a", "{}").await;
        let layer = json!({ "mediaType": OCI_LAYER, "digest": long, "size": content.len() });
        let manifest = with(image(&[]), "layers", json!([layer])).to_string();
        let reference = format!("{}?tag=v1&tag=latest", sha512(&manifest));
        let put = server.put_manifest("a", &reference, OCI_MANIFEST, &manifest).await;
        assert_eq!(put.is(201).all("oci-tag"), ["v1", "latest"]);
        server.head("/v2/a/manifests/latest").await.is(200).has("docker-content-digest", &sha512(&manifest));
        server.delete("/v2/a/manifests/latest").await.is(202);
        server.get("/v2/a/manifests/v1").await.is(200).body_is(&manifest);
    })
    .await;
}

// CLI-7
#[tokio::test]
async fn cosign_reads_modifies_and_writes_its_tag() {
    everywhere(async |server| {
        let signed = server.push_image("a", "v1", "layer").await;
        let tag = format!("/v2/a/manifests/{}.sig", digest(&signed).replace(':', "-"));
        server.get(&tag).await.refuses(404, "MANIFEST_UNKNOWN");
        let mut layers = Vec::new();
        for signature in ["one", "two"] {
            server.push_blob("a", signature).await;
            let layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", signature);
            layers.push(with(layer, "annotations", json!({ "dev.cosignproject.cosign/signature": "MEUC" })));
            let manifest = with(image(&[]), "layers", json!(layers)).to_string();
            server.put(&tag).header("content-type", OCI_MANIFEST).body(manifest.clone()).await.is(201);
            server.get(&tag).await.is(200).body_is(&manifest);
        }
        // As newer versions do it.
        let about = artifact("application/vnd.dev.sigstore.bundle.v0.3+json", &signed, "");
        let put = server.put_manifest("a", &sha256(about.to_string()), OCI_MANIFEST, &about.to_string()).await;
        put.is(201).has("oci-subject", digest(&signed));
        let listed = server.get(&format!("/v2/a/referrers/{}", digest(&signed))).await;
        let listed: Vec<serde_json::Value> = listed.is(200).list("manifests");
        assert_eq!(listed[0]["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    })
    .await;
}

// CLI-8; fifteen 2
#[tokio::test]
async fn the_dotnet_sdk_sends_a_chunk_again_to_the_old_url() {
    everywhere(async |server| {
        let content = bytes(20_000);
        let digest = sha256(&content);
        let first = server.post("/v2/a/blobs/uploads/").await.is(202).location();
        let chunk = |url: &str, from: usize, to: usize| {
            let patch = server.patch(url).header("content-range", &format!("{from}-{}", to - 1));
            patch.body(content[from..to].to_vec())
        };
        let second = chunk(&first, 0, 10_000).await.is(202).location();
        // The reply to this one is lost with its connection.
        chunk(&second, 10_000, 20_000).await.is(202);
        let again = chunk(&second, 10_000, 20_000).await;
        again.refuses(416, "BLOB_UPLOAD_INVALID").has("range", "0-19999");
        let resumed = again.location();
        again.has("docker-upload-uuid", id_of(&resumed));
        server.put(&format!("{resumed}?digest={digest}")).await.is(201).has("docker-content-digest", &digest);
    })
    .await;
}

// CLI-9
#[tokio::test]
async fn kubelets_read_the_same_few_manifests_many_at_a_time() {
    everywhere(async |server| {
        let child = server.push_image("a", "v1", "layer").await;
        let both = server.push_manifest("a", "both", &index(std::slice::from_ref(&child))).await;
        let (child, both) = (&child, &both);
        let reads = (0..200).map(async |it| {
            let wanted = if it % 2 == 0 { child } else { both };
            let url = format!("/v2/a/manifests/{}?ns=docker.io", digest(wanted));
            let size = wanted["size"].to_string();
            server.head(&url).header("accept", "*/*").await.is(200).has("content-length", &size);
            server.get(&url).header("accept", "*/*").await.is(200).has("content-length", &size);
        });
        futures_util::future::join_all(reads).await;
    })
    .await;
}

// CONF-3: data sets of the suite that no client above sends
#[tokio::test]
async fn the_odd_images_of_the_conformance_suite_go_in_and_come_out() {
    everywhere(async |server| {
        server.push_blob("a", "{}").await;
        let artifact = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b",
            "config": descriptor(OCI_EMPTY, "{}"), "layers": [descriptor(OCI_EMPTY, "{}")],
        });
        let foreign = json!({
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": NOWHERE, "size": 123_456, "urls": ["https://store.example.com/blobs"],
        });
        let child = server.push_manifest("a", "child", &with(image(&[]), "annotations", json!({ "a": "child" }))).await;
        for (tag, manifest) in [
            ("artifact", artifact.clone()),
            ("no-layers", image(&[])),
            ("empty-index", index(&[])),
            ("index", index(&[with(child, "platform", json!({ "os": "linux", "architecture": "amd64" }))])),
            ("nondistributable", with(image(&[]), "layers", json!([foreign]))),
            ("custom", with(with(image(&[]), "org.example", json!({ "x": 1 })), "annotations", json!({ "k": "v" }))),
            ("data", with(image(&[]), "config", with(descriptor(OCI_CONFIG, "{}"), "data", json!("e30=")))),
            ("large", with(image(&[]), "annotations", json!({ "k": "x".repeat(3_900_000) }))),
        ] {
            let pushed = server.push_manifest("a", tag, &manifest).await;
            for reference in [tag, digest(&pushed)] {
                let url = format!("/v2/a/manifests/{reference}");
                server.head(&url).await.is(200).has("content-length", &pushed["size"].to_string());
                server.get(&url).await.is(200).body_is(manifest.to_string());
            }
            for reference in [tag, digest(&pushed)] {
                server.delete(&format!("/v2/a/manifests/{reference}")).await.is(202);
                server.head(&format!("/v2/a/manifests/{reference}")).await.is(404);
            }
        }
    })
    .await;
}
