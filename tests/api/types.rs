//! What is taken for a manifest: sections 12 and 13 of the requirements.

use serde_json::{Value, json};

use super::support::{
    everywhere,
    images::{
        DOCKER_LIST, DOCKER_MANIFEST, NOWHERE, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, descriptor, digest, image, index,
        sha256, with, without,
    },
    in_memory,
};

// MAN-4, MAN-5, TYPE-1, TYPE-4; fifteen 13
#[tokio::test]
async fn the_type_is_what_the_header_says_or_else_the_body_or_else_its_shape() {
    everywhere(async |server| {
        server.stock("a").await;
        let bare = without(image(&["layer"]), "mediaType");
        let docker = with(image(&["layer"]), "mediaType", json!(DOCKER_MANIFEST));
        let list = with(index(&[]), "mediaType", json!(DOCKER_LIST));
        for (content_type, body, stored) in [
            (OCI_MANIFEST, &bare, OCI_MANIFEST),
            (DOCKER_MANIFEST, &bare, DOCKER_MANIFEST),
            (DOCKER_MANIFEST, &docker, DOCKER_MANIFEST),
            (DOCKER_LIST, &list, DOCKER_LIST),
            ("Application/vnd.OCI.image.manifest.v1+JSON; charset=utf-8", &bare, OCI_MANIFEST),
            ("application/json", &docker, DOCKER_MANIFEST),
            ("application/octet-stream", &bare, OCI_MANIFEST),
            ("application/json", &without(index(&[]), "mediaType"), OCI_INDEX),
        ] {
            // The same bytes are of one type only: a second one is refused as long as they are there.
            let (body, digest) = (body.to_string(), sha256(body.to_string()));
            server.put_manifest("a", "v1", content_type, &body).await.is(201);
            server.get("/v2/a/manifests/v1").await.is(200).has("content-type", stored).body_is(body.clone());
            let other = if stored == OCI_MANIFEST { DOCKER_MANIFEST } else { OCI_MANIFEST };
            server.put_manifest("a", "v1", other, &body).await.refuses(400, "MANIFEST_INVALID");
            server.get("/v2/a/manifests/v1").await.is(200).has("content-type", stored);
            server.delete(&format!("/v2/a/manifests/{digest}")).await.is(202);
        }
        server.put("/v2/a/manifests/v2").body(docker.to_string()).await.is(201);
        server.head("/v2/a/manifests/v2").await.is(200).has("content-type", DOCKER_MANIFEST);
    })
    .await;
}

// MAN-5, TYPE-2, TYPE-3, TYPE-5, TYPE-6, TYPE-7, TYPE-8, TYPE-11, TYPE-14; fifteen 13
#[tokio::test]
async fn what_is_no_manifest_is_refused_and_not_stored() {
    let server = in_memory().await;
    server.stock("a").await;
    let image = || image(&["layer"]);
    let layer = |field: &str, value: Value| {
        with(image(), "layers", json!([with(descriptor(OCI_LAYER, "layer"), field, value)]))
    };
    let one = json!({ "mediaType": OCI_LAYER, "digest": sha256("layer") });
    for (content_type, body) in [
        (OCI_MANIFEST, String::new()),
        (OCI_MANIFEST, "null".into()),
        (OCI_MANIFEST, "[]".into()),
        (OCI_MANIFEST, "{".into()),
        (OCI_MANIFEST, "\u{feff}{}".into()),
        (OCI_MANIFEST, "{}".into()),
        ("text/html", image().to_string()),
        (DOCKER_MANIFEST, image().to_string()),
        (OCI_INDEX, image().to_string()),
        ("application/vnd.docker.distribution.manifest.v1+json", r#"{"schemaVersion":1}"#.into()),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#.into()),
        (OCI_MANIFEST, with(image(), "schemaVersion", json!(1)).to_string()),
        (OCI_MANIFEST, with(image(), "schemaVersion", json!("2")).to_string()),
        (OCI_MANIFEST, without(image(), "schemaVersion").to_string()),
        (OCI_MANIFEST, without(image(), "config").to_string()),
        (OCI_MANIFEST, with(image(), "manifests", json!([])).to_string()),
        (OCI_INDEX, with(index(&[]), "layers", json!([])).to_string()),
        (OCI_INDEX, without(index(&[]), "manifests").to_string()),
        (OCI_MANIFEST, layer("size", json!(-1)).to_string()),
        (OCI_MANIFEST, layer("size", json!("5")).to_string()),
        (OCI_MANIFEST, layer("size", json!(5.5)).to_string()),
        (OCI_MANIFEST, layer("digest", json!("sha256:zz")).to_string()),
        (OCI_MANIFEST, layer("data", json!("bm90IGl0")).to_string()),
        (OCI_MANIFEST, with(image(), "layers", json!([one])).to_string()),
        (OCI_MANIFEST, with(image(), "annotations", json!({ "a": 1 })).to_string()),
        (OCI_MANIFEST, image().to_string().replacen('{', r#"{"schemaVersion":2,"#, 1)),
    ] {
        let reply = server.put_manifest("a", "bad", content_type, &body).await;
        assert_eq!((reply.status.as_u16(), &reply.errors()[0]["code"]), (400, &json!("MANIFEST_INVALID")), "{body}");
        server.get("/v2/a/manifests/bad").await.is(404);
        server.get(&format!("/v2/a/manifests/{}", sha256(&body))).await.is(404);
    }
}

// TYPE-5, TYPE-6, TYPE-9, TYPE-10, TYPE-12, TYPE-13, MAN-8; fifteen 13
#[tokio::test]
async fn whatever_real_clients_push_is_taken() {
    everywhere(async |server| {
        server.stock("a").await;
        let child = server.push_manifest("a", "child", &image(&["layer"])).await;
        let foreign = json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": NOWHERE, "size": 3, "urls": ["https://example.com/x"],
        });
        let cache = descriptor("application/vnd.buildkit.cacheconfig.v0", "{}");
        let config = |media_type: &str| with(image(&["layer"]), "config", descriptor(media_type, "{}"));
        for manifest in [
            with(image(&[]), "layers", Value::Null),
            image(&[]),
            image(&["layer", "layer", "{}"]),
            index(&[]),
            index(std::slice::from_ref(&child)),
            // MAN-8 (b): buildkit's cache index
            index(&[descriptor(OCI_LAYER, "layer"), cache]),
            with(image(&[]), "layers", json!([foreign])),
            config("application/vnd.cncf.helm.config.v1+json"),
            config("application/vnd.docker.plugin.v1+json"),
            config("application/vnd.oci.empty.v1+json"),
            config("whatever/it.is+odd"),
            with(image(&["layer"]), "somethingNew", json!({ "a": [1, null] })),
            with(image(&["layer"]), "annotations", json!({ "": "", "k": "" })),
            with(image(&["layer"]), "layers", json!([with(descriptor(OCI_LAYER, "layer"), "data", json!("bGF5ZXI="))])),
        ] {
            let pushed = server.push_manifest("a", "v1", &manifest).await;
            server.get(&format!("/v2/a/manifests/{}", digest(&pushed))).await.is(200).body_is(manifest.to_string());
        }
        let nested = server.push_manifest("a", "nested", &index(&[child])).await;
        server.push_manifest("a", "outer", &index(&[nested])).await;
    })
    .await;
}

// TYPE-1: what old artifacts were pushed as
#[tokio::test]
async fn a_legacy_artifact_is_taken_and_has_a_subject() {
    everywhere(async |server| {
        server.stock("a").await;
        for media_type in
            ["application/vnd.oci.artifact.manifest.v1+json", "application/vnd.cncf.oras.artifact.manifest.v1+json"]
        {
            let subject = json!({ "mediaType": OCI_MANIFEST, "digest": NOWHERE, "size": 3 });
            let blobs = [descriptor(OCI_LAYER, "layer")];
            let artifact =
                json!({ "mediaType": media_type, "artifactType": "a/b", "blobs": blobs, "subject": subject })
                    .to_string();
            let reply = server.put_manifest("a", "v1", media_type, &artifact).await;
            reply.is(201).has("oci-subject", NOWHERE);
            server.get("/v2/a/manifests/v1").await.is(200).has("content-type", media_type).body_is(&artifact);
        }
    })
    .await;
}

// MAN-6
#[tokio::test]
async fn a_manifest_may_have_four_mebibytes_and_not_a_byte_more() {
    everywhere(async |server| {
        server.stock("a").await;
        let empty = with(image(&["layer"]), "annotations", json!({ "k": "" })).to_string().len();
        let of =
            |size: usize| with(image(&["layer"]), "annotations", json!({ "k": "x".repeat(size - empty) })).to_string();
        let url = "/v2/a/manifests/v1";
        let largest = of(4 * 1024 * 1024);
        server.put(url).header("content-type", OCI_MANIFEST).body(largest.clone()).await.is(201);
        server.get(url).await.is(200).body_is(&largest);
        let larger = of(4 * 1024 * 1024 + 1);
        server.put(url).body(larger.clone()).await.refuses(413, "MANIFEST_INVALID");
        server.put(url).chunked(larger).await.refuses(413, "MANIFEST_INVALID");
        server.get(url).await.is(200).body_is(&largest);
    })
    .await;
}

// MAN-7, MAN-8, ERR-2
#[tokio::test]
async fn a_manifest_that_names_what_is_not_here_is_refused_with_all_that_is_missing() {
    everywhere(async |server| {
        server.stock("a").await;
        server.push_blob("b", "elsewhere").await;
        let missing = [sha256("elsewhere"), sha256("nowhere")];
        let image = image(&["layer", "elsewhere", "nowhere", "nowhere"]);
        let reply = server.put_manifest("a", "v1", OCI_MANIFEST, &image.to_string()).await;
        reply.refuses(400, "MANIFEST_BLOB_UNKNOWN");
        let mut named: Vec<_> = reply.errors().iter().map(|error| error["detail"]["digest"].clone()).collect();
        named.sort_by_key(Value::to_string);
        let mut expected = missing.map(Value::from);
        expected.sort_by_key(Value::to_string);
        assert_eq!(named, expected);
        server.get("/v2/a/manifests/v1").await.is(404);

        // A child is looked for among the manifests, anything else among the blobs.
        for child in [descriptor(OCI_MANIFEST, "layer"), descriptor(OCI_LAYER, "nowhere")] {
            let reply = server.put_manifest("a", "v1", OCI_INDEX, &index(&[child]).to_string()).await;
            reply.refuses(400, "MANIFEST_BLOB_UNKNOWN");
        }
    })
    .await;
}

// MAN-9
#[tokio::test]
async fn a_manifest_that_is_wrong_about_the_size_of_a_blob_is_refused() {
    everywhere(async |server| {
        server.stock("a").await;
        let layers = json!([with(descriptor(OCI_LAYER, "layer"), "size", json!(6))]);
        let manifest = with(image(&[]), "layers", layers).to_string();
        server.put_manifest("a", "v1", OCI_MANIFEST, &manifest).await.refuses(400, "MANIFEST_INVALID");
    })
    .await;
}
