//! Referrers: section 15 of the requirements.

use serde_json::{Value, json};

use super::support::{
    Server, everywhere,
    images::{
        BLAKE3, NOWHERE, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, artifact, descriptor, digest, image, index, sha256,
        sha512, with, without,
    },
    in_memory,
};

/// The entries of a list of which this is the only page.
async fn referrers(server: &Server, repository: &str, subject: &str) -> Vec<Value> {
    let reply = server.get(&format!("/v2/{repository}/referrers/{subject}")).await;
    // REF-1
    reply.is(200).has("content-type", OCI_INDEX).lacks("link");
    let entries = reply.list("manifests");
    reply.json_is(&index(&entries));
    entries
}

fn nowhere() -> Value {
    json!({ "mediaType": OCI_MANIFEST, "digest": NOWHERE, "size": 3 })
}

// REF-1, REF-2, DIG-4, ERR-5; fifteen 9
#[tokio::test]
async fn what_nobody_refers_to_has_an_empty_list_whether_it_exists_or_not() {
    everywhere(async |server| {
        let pushed = server.push_image("a", "v1", "layer").await;
        let long = sha512("x");
        for (repository, subject) in
            [("never", NOWHERE), ("a", NOWHERE), ("a", digest(&pushed)), ("a", &long), ("a", BLAKE3), ("never", BLAKE3)]
        {
            let url = format!("/v2/{repository}/referrers/{subject}");
            let reply = server.get(&url).await;
            reply.is(200).has("content-type", OCI_INDEX).lacks("oci-filters-applied");
            reply.json_is(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
            server.head(&url).await.is(200).has("content-length", &reply.body.len().to_string());
        }
    })
    .await;
}

// REF-3
#[tokio::test]
async fn a_malformed_subject_is_invalid() {
    let server = in_memory().await;
    for subject in ["sha256:zz", "v1", "sha256:", ":"] {
        server.get(&format!("/v2/a/referrers/{subject}")).await.refuses(400, "DIGEST_INVALID");
    }
}

// REF-4
#[tokio::test]
async fn a_referrer_has_the_type_that_it_was_pushed_as_also_where_the_same_bytes_were_pushed_as_another() {
    everywhere(async |server| {
        let text = json!({ "artifactType": "a/b", "blobs": [], "subject": nowhere() }).to_string();
        let types =
            ["application/vnd.oci.artifact.manifest.v1+json", "application/vnd.cncf.oras.artifact.manifest.v1+json"];
        for (repository, media_type) in ["a", "b"].into_iter().zip(types) {
            server.put_manifest(repository, &sha256(&text), media_type, &text).await.is(201);
            let listed = referrers(server, repository, NOWHERE).await;
            assert_eq!(listed.iter().map(|it| &it["mediaType"]).collect::<Vec<_>>(), [media_type]);
        }
    })
    .await;
}

// REF-4, REF-5, REF-6
#[tokio::test]
async fn each_referrer_is_described_as_its_manifest_describes_it() {
    everywhere(async |server| {
        let subject = server.push_image("a", "v1", "layer").await;
        let typed = artifact("application/x", &subject, "one");
        let untyped = with(image(&["layer"]), "subject", subject.clone());
        let of_index = with(with(index(&[]), "subject", subject.clone()), "artifactType", json!("application/y"));
        let bare_index = with(index(&[]), "subject", subject.clone());
        let empty_type = with(with(typed.clone(), "artifactType", json!("")), "annotations", json!({}));
        let mut expected = Vec::new();
        for (manifest, artifact_type, annotations) in [
            (typed, Some("application/x"), json!({ "note": "one" })),
            (untyped, Some(OCI_CONFIG), Value::Null),
            (of_index, Some("application/y"), Value::Null),
            (bare_index, None, Value::Null),
            (empty_type, Some("application/vnd.oci.empty.v1+json"), Value::Null),
        ] {
            server.push_blob("a", "{}").await;
            let mut entry = server.push_manifest("a", &sha256(manifest.to_string()), &manifest).await;
            if let Some(artifact_type) = artifact_type {
                entry["artifactType"] = json!(artifact_type);
            }
            if annotations != Value::Null {
                entry["annotations"] = annotations;
            }
            expected.push(entry);
        }
        // REF-10: in the order of their digests
        expected.sort_by_key(|entry| digest(entry).to_owned());
        assert_eq!(referrers(server, "a", digest(&subject)).await, expected);
        // Of this repository alone.
        assert_eq!(referrers(server, "b", digest(&subject)).await, [Value::Null; 0]);
    })
    .await;
}

// REF-4, DIG-5
#[tokio::test]
async fn a_subject_under_another_algorithm_is_another_subject() {
    everywhere(async |server| {
        let bytes = image(&[]).to_string();
        server.push_blob("a", "{}").await;
        let long = json!({ "mediaType": OCI_MANIFEST, "digest": sha512(&bytes), "size": bytes.len() });
        let short = descriptor(OCI_MANIFEST, &bytes);
        let of_long = server.push_manifest("a", "long", &artifact("a/b", &long, "")).await;
        let of_short = server.push_manifest("a", "short", &artifact("a/b", &short, "")).await;
        for (subject, referrer) in [(long, of_long), (short, of_short)] {
            let listed = referrers(server, "a", digest(&subject)).await;
            assert_eq!(listed.iter().map(digest).collect::<Vec<_>>(), [digest(&referrer)]);
        }
    })
    .await;
}

// REF-7; fifteen 9
#[tokio::test]
async fn a_filter_matches_any_of_the_types_that_it_names() {
    everywhere(async |server| {
        server.push_blob("a", "{}").await;
        for (tag, artifact_type) in [("x", "a/x+json"), ("y", "a/y"), ("z", "a/z")] {
            server.push_manifest("a", tag, &artifact(artifact_type, &nowhere(), "")).await;
        }
        let url = format!("/v2/a/referrers/{NOWHERE}");
        for (query, types) in [
            ("artifactType=a/y", &["a/y"][..]),
            ("artifactType=a%2Fy&ns=docker.io", &["a/y"]),
            ("artifactType=a/x%2Bjson", &["a/x+json"]),
            ("artifactType=a/y&artifactType=a/z", &["a/y", "a/z"]),
            ("artifactType=a/z&artifactType=&artifactType=a/none", &["a/z"]),
            ("artifactType=a/none", &[]),
            ("artifactType=a/", &[]),
        ] {
            let reply = server.get(&format!("{url}?{query}")).await;
            reply.is(200).has("oci-filters-applied", "artifactType").has("content-type", OCI_INDEX);
            let mut listed: Vec<_> =
                reply.list::<Value>("manifests").iter().map(|it| it["artifactType"].clone()).collect();
            listed.sort_by_key(Value::to_string);
            assert_eq!(listed, types, "{query}");
        }
        for query in ["", "artifactType=", "artifacttype=a/y"] {
            let reply = server.get(&format!("{url}?{query}")).await;
            reply.is(200).lacks("oci-filters-applied");
            assert_eq!(reply.list::<Value>("manifests").len(), 3);
        }
    })
    .await;
}

// REF-7: as Go's url.Values leaves a plus that was not escaped
#[tokio::test]
async fn a_plus_in_a_filter_is_a_space_as_in_every_query() {
    let server = in_memory().await;
    let reply = server.get(&format!("/v2/a/referrers/{NOWHERE}?artifactType=a/x+json")).await;
    reply.is(200).has("oci-filters-applied", "artifactType");
}

// REF-8, REF-7; fifteen 9
#[tokio::test]
async fn referrers_come_in_pages_only_when_asked_for_or_large_and_keep_their_filter() {
    everywhere(async |server| {
        server.push_blob("a", "{}").await;
        for it in 0..5 {
            let artifact_type = if it < 3 { "a/x+y" } else { "a/z" };
            server.push_manifest("a", &format!("t{it}"), &artifact(artifact_type, &nowhere(), &it.to_string())).await;
        }
        let all = referrers(server, "a", NOWHERE).await;
        assert_eq!(all.len(), 5);
        for (query, of_type) in [("n=1", None), ("n=2", None), ("n=2&artifactType=a/x%2By", Some("a/x+y"))] {
            let expected: Vec<_> =
                all.iter().filter(|it| of_type.is_none_or(|of| it["artifactType"] == of)).cloned().collect();
            let mut listed = Vec::new();
            let mut url = Some(format!("/v2/a/referrers/{NOWHERE}?{query}"));
            while let Some(page) = url {
                let reply = server.get(&page).await;
                reply.is(200).has("content-type", OCI_INDEX);
                assert_eq!(reply.headers.contains_key("oci-filters-applied"), of_type.is_some());
                listed.extend(reply.list::<Value>("manifests"));
                url = reply.next();
                assert_eq!(url.is_some(), listed.len() < expected.len(), "{query}");
            }
            assert_eq!(listed, expected);
        }
    })
    .await;
}

// REF-8
#[tokio::test]
async fn a_page_of_referrers_stays_below_what_clients_read() {
    let server = in_memory().await;
    server.push_blob("a", "{}").await;
    let large = "x".repeat(1_500_000);
    for it in 0..4 {
        let about =
            with(artifact("a/b", &nowhere(), ""), "annotations", json!({ "it": it.to_string(), "large": large }));
        server.push_manifest("a", &format!("t{it}"), &about).await;
    }
    let mut listed = 0;
    let mut url = Some(format!("/v2/a/referrers/{NOWHERE}"));
    while let Some(page) = url {
        let reply = server.get(&page).await;
        assert!(reply.is(200).body.len() < 4 * 1024 * 1024);
        let entries = reply.list::<Value>("manifests").len();
        assert!(entries > 0);
        listed += entries;
        url = reply.next();
    }
    assert_eq!(listed, 4);
}

// REF-9, REF-10
#[tokio::test]
async fn a_referrer_is_listed_once_from_its_push_to_its_delete_whatever_becomes_of_the_subject() {
    everywhere(async |server| {
        server.push_blob("a", "{}").await;
        let subject = descriptor(OCI_MANIFEST, image(&[]).to_string());
        let about = artifact("a/b", &subject, "x");
        for tag in ["t1", "t1", "t2"] {
            let pushed = server.push_manifest("a", tag, &about).await;
            let listed = referrers(server, "a", digest(&subject)).await;
            assert_eq!(listed.iter().map(digest).collect::<Vec<_>>(), [digest(&pushed)]);
        }
        server.push_manifest("a", "subject", &image(&[])).await;
        assert_eq!(referrers(server, "a", digest(&subject)).await.len(), 1);
        server.delete(&format!("/v2/a/manifests/{}", digest(&subject))).await.is(202);
        assert_eq!(referrers(server, "a", digest(&subject)).await.len(), 1);
        server.delete("/v2/a/manifests/t1").await.is(202);
        assert_eq!(referrers(server, "a", digest(&subject)).await.len(), 1);
        server.delete(&format!("/v2/a/manifests/{}", sha256(about.to_string()))).await.is(202);
        assert_eq!(referrers(server, "a", digest(&subject)).await.len(), 0);
    })
    .await;
}

// REF-10
#[tokio::test]
async fn a_long_chain_of_subjects_is_no_trouble() {
    everywhere(async |server| {
        server.push_blob("a", "{}").await;
        let mut subject = server.push_manifest("a", "t", &image(&[])).await;
        for it in 0..30 {
            let next = server.push_manifest("a", "t", &artifact("a/b", &subject, &it.to_string())).await;
            let listed = referrers(server, "a", digest(&subject)).await;
            assert_eq!(listed.iter().map(digest).collect::<Vec<_>>(), [digest(&next)]);
            subject = next;
        }
    })
    .await;
}

// REF-13
#[tokio::test]
async fn of_referrers_pushed_side_by_side_on_several_replicas_none_is_lost() {
    everywhere(async |server| {
        server.push_blob("a", "{}").await;
        let both = &[server.replica().await, server.replica().await];
        let writes = (0..20).map(async |it| {
            let about = artifact("a/b", &nowhere(), &it.to_string());
            both[it % 2].push_manifest("a", &format!("t{it}"), &about).await
        });
        let pushed = futures_util::future::join_all(writes).await;
        let mut expected: Vec<_> = pushed.iter().map(digest).collect();
        expected.sort_unstable();
        let listed = referrers(server, "a", NOWHERE).await;
        assert_eq!(listed.iter().map(digest).collect::<Vec<_>>(), expected);
    })
    .await;
}

// REF-12
#[tokio::test]
async fn fallback_tags_are_the_clients_own_and_none_is_made_up() {
    everywhere(async |server| {
        let subject = server.push_image("a", "v1", "layer").await;
        server.push_manifest("a", "about", &artifact("a/b", &subject, "")).await;
        let fallback = format!("/v2/a/manifests/{}", digest(&subject).replace(':', "-"));
        server.get(&fallback).await.refuses(404, "MANIFEST_UNKNOWN");
        let own = without(index(&[]), "mediaType").to_string();
        server.put(&fallback).header("content-type", OCI_INDEX).body(own.clone()).await.is(201);
        server.get(&fallback).await.is(200).body_is(&own);
        assert_eq!(referrers(server, "a", digest(&subject)).await.len(), 1);
        server.delete(&fallback).await.is(202);
        server.get(&fallback).await.refuses(404, "MANIFEST_UNKNOWN");
    })
    .await;
}
