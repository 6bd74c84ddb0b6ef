//! Deleting manifests and tags: section 16 of the requirements.

use serde_json::json;

use super::support::{
    everywhere,
    images::{BLAKE3, NOWHERE, artifact, digest, image, index},
    in_memory,
};

// DEL-1, DEL-9
#[tokio::test]
async fn a_deleted_tag_leaves_the_manifest_and_its_other_tags() {
    everywhere(async |server| {
        let pushed = server.push_image("a", "v1", "layer").await;
        server.push_image("a", "v2", "layer").await;
        server.delete("/v2/a/manifests/v1").await.is(202).has("content-length", "0").lacks("docker-content-digest");
        server.get("/v2/a/manifests/v1").await.refuses(404, "MANIFEST_UNKNOWN");
        server.delete("/v2/a/manifests/v1").await.refuses(404, "MANIFEST_UNKNOWN");
        server.get("/v2/a/manifests/v2").await.is(200);
        server.get(&format!("/v2/a/manifests/{}", digest(&pushed))).await.is(200);
        server.get("/v2/a/tags/list").await.json_is(&json!({ "name": "a", "tags": ["v2"] }));
    })
    .await;
}

// DEL-2, DEL-8, DEL-9; fifteen 14
#[tokio::test]
async fn a_manifest_deleted_by_digest_takes_its_tags_and_its_referrer_entry_along() {
    everywhere(async |server| {
        let subject = server.push_image("a", "subject", "layer").await;
        let about = artifact("a/b", &subject, "x");
        let pushed = server.push_manifest("a", "t1", &about).await;
        for tag in ["t2", "t3"] {
            server.push_manifest("a", tag, &about).await;
        }
        let url = format!("/v2/a/manifests/{}", digest(&pushed));
        let referrers = format!("/v2/a/referrers/{}", digest(&subject));
        assert_eq!(server.get(&referrers).await.json()["manifests"].as_array().unwrap().len(), 1);
        server.delete(&url).await.is(202).has("content-length", "0");
        for gone in ["t1", "t2", "t3", digest(&pushed)] {
            server.get(&format!("/v2/a/manifests/{gone}")).await.refuses(404, "MANIFEST_UNKNOWN");
            server.head(&format!("/v2/a/manifests/{gone}")).await.is(404);
        }
        server.get("/v2/a/tags/list").await.json_is(&json!({ "name": "a", "tags": ["subject"] }));
        server.get(&referrers).await.is(200);
        assert_eq!(server.get(&referrers).await.json()["manifests"], json!([]));
        server.delete(&url).await.refuses(404, "MANIFEST_UNKNOWN");
        server.get("/v2/a/manifests/subject").await.is(200);

        server.push_manifest("a", "t1", &about).await;
        server.get("/v2/a/manifests/t1").await.is(200).body_is(about.to_string());
        assert_eq!(server.get(&referrers).await.json()["manifests"].as_array().unwrap().len(), 1);
    })
    .await;
}

// DEL-3
#[tokio::test]
async fn a_tag_that_moved_on_survives_the_delete_of_what_it_left() {
    everywhere(async |server| {
        let old = server.push_image("a", "v1", "layer").await;
        server.push_manifest("a", "v1", &image(&[])).await;
        server.delete(&format!("/v2/a/manifests/{}", digest(&old))).await.is(202);
        server.get("/v2/a/manifests/v1").await.is(200).body_is(image(&[]).to_string());
    })
    .await;
}

// DEL-2, DIG-4
#[tokio::test]
async fn a_manifest_that_is_not_there_cannot_be_deleted() {
    let server = in_memory().await;
    server.stock("a").await;
    for reference in [NOWHERE, "v1", BLAKE3, ".x"] {
        server.delete(&format!("/v2/a/manifests/{reference}")).await.refuses(404, "MANIFEST_UNKNOWN");
        server.delete(&format!("/v2/never/manifests/{reference}")).await.is(404);
    }
}

// DEL-6
#[tokio::test]
async fn an_index_and_its_children_are_deleted_each_for_itself() {
    everywhere(async |server| {
        let one = server.push_image("a", "one", "layer").await;
        let two = server.push_manifest("a", "two", &image(&[])).await;
        let both = server.push_manifest("a", "both", &index(&[one.clone(), two.clone()])).await;
        server.delete(&format!("/v2/a/manifests/{}", digest(&one))).await.is(202);
        server.get("/v2/a/manifests/both").await.is(200);
        server.delete(&format!("/v2/a/manifests/{}", digest(&both))).await.is(202);
        server.get("/v2/a/manifests/two").await.is(200).has("docker-content-digest", digest(&two));
        server.get(&format!("/v2/a/manifests/{}", digest(&two))).await.is(200);
    })
    .await;
}
