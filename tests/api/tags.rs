//! The lists of tags and of repositories: sections 14 and 17 of the requirements.

use marina_distribution::http;
use serde_json::json;

use super::support::{
    Server, Settings, everywhere,
    images::{OCI_MANIFEST, digest, image, sha256},
    in_memory, memory,
};

/// A repository of an image under each of these tags.
async fn tagged(server: &Server, repository: &str, tags: &[&str]) {
    server.push_blob(repository, "{}").await;
    for tag in tags {
        server.push_manifest(repository, tag, &image(&[])).await;
    }
}

async fn tags(server: &Server, url: &str) -> Vec<String> {
    server.get(url).await.is(200).list("tags")
}

// TAGS-1, TAGS-2; fifteen 10
#[tokio::test]
async fn a_repository_lists_its_tags_and_none_is_an_empty_list() {
    everywhere(async |server| {
        server.get("/v2/a/tags/list").await.refuses(404, "NAME_UNKNOWN");
        server.push_blob("a", "{}").await;
        let bytes = image(&[]).to_string();
        server.put_manifest("a", &sha256(&bytes), OCI_MANIFEST, &bytes).await.is(201);
        let reply = server.get("/v2/a/tags/list").await;
        reply.is(200).has("content-type", "application/json").json_is(&json!({ "name": "a", "tags": [] }));
        tagged(server, "a", &["v1"]).await;
        let reply = server.get("/v2/a/tags/list").await;
        reply.is(200).json_is(&json!({ "name": "a", "tags": ["v1"] })).lacks("link");
        server.head("/v2/a/tags/list").await.is(200).has("content-length", &reply.body.len().to_string());
        tagged(server, "deep/er/name", &["v1"]).await;
        assert_eq!(server.get("/v2/deep/er/name/tags/list").await.json()["name"], "deep/er/name");
    })
    .await;
}

const ALL: [&str; 15] =
    ["0", "1.0", "1.0-rc1", "1.0.1", "10", "2", "A", "Latest", "Z", "_x", "a", "a-b", "a.b", "a0", "latest"];

// TAGS-3, TAGS-4, NAME-5; fifteen 10
#[tokio::test]
async fn tags_come_in_the_order_of_their_bytes_and_case_counts() {
    everywhere(async |server| {
        let mut shuffled = ALL;
        shuffled.reverse();
        shuffled.swap(3, 9);
        tagged(server, "a", &shuffled).await;
        assert_eq!(tags(server, "/v2/a/tags/list").await, ALL);
    })
    .await;
}

// TAGS-5, TAGS-8, TAGS-9; fifteen 10
#[tokio::test]
async fn pages_of_any_size_link_to_the_next_until_all_tags_were_listed_once() {
    everywhere(async |server| {
        tagged(server, "a/b", &ALL).await;
        for n in [1, 2, 7, 14, 15, 16] {
            let mut listed = Vec::new();
            let mut url = Some(format!("/v2/a/b/tags/list?n={n}"));
            while let Some(page) = url {
                let reply = server.get(&page).await;
                let tags: Vec<String> = reply.is(200).list("tags");
                assert_eq!(tags.len(), n.min(ALL.len() - listed.len()), "{page}");
                listed.extend(tags);
                url = reply.next();
                assert_eq!(url.is_some(), listed.len() < ALL.len(), "{page}");
            }
            assert_eq!(listed, ALL);
        }
        let reply = server.get("/v2/a/b/tags/list?n=2").await;
        reply.has("link", "</v2/a/b/tags/list?n=2&last=1.0>; rel=\"next\"");
    })
    .await;
}

// TAGS-6, TAGS-7, TAGS-10; fifteen 10
#[tokio::test]
async fn n_may_be_zero_or_huge_but_must_be_a_number() {
    everywhere(async |server| {
        tagged(server, "a", &["x", "y"]).await;
        let reply = server.get("/v2/a/tags/list?n=0").await;
        reply.is(200).lacks("link").json_is(&json!({ "name": "a", "tags": [] }));
        for n in ["2", "1000000", "99999999999999999999999", ""] {
            let reply = server.get(&format!("/v2/a/tags/list?n={n}")).await;
            reply.is(200).lacks("link").json_is(&json!({ "name": "a", "tags": ["x", "y"] }));
        }
        for n in ["-1", "x", "1.5", "%2B1", "+1", "0x1", "1%20"] {
            server.get(&format!("/v2/a/tags/list?n={n}")).await.refuses(400, "UNSUPPORTED");
            server.get(&format!("/v2/_catalog?n={n}")).await.refuses(400, "UNSUPPORTED");
        }
    })
    .await;
}

// TAGS-8, TAGS-11; fifteen 10
#[tokio::test]
async fn last_need_not_exist_and_is_not_listed_again() {
    everywhere(async |server| {
        tagged(server, "a", &ALL).await;
        for (last, first) in
            [("0", 1), ("1.0-a", 2), ("1.00", 4), ("Latest", 8), ("M", 8), ("a", 11), ("zz", 15), ("!", 0)]
        {
            let url = format!("/v2/a/tags/list?last={last}");
            assert_eq!(tags(server, &url).await, ALL[first..], "{last}");
            assert_eq!(tags(server, &format!("{url}&n=3")).await, ALL[first..(first + 3).min(15)], "{last}");
        }
        let page = server.get("/v2/a/tags/list?n=5").await.next().unwrap();
        server.delete("/v2/a/manifests/10").await.is(202);
        server.delete("/v2/a/manifests/2").await.is(202);
        assert_eq!(tags(server, &page).await, ALL[6..11]);
        assert_eq!(tags(server, "/v2/a/tags/list?last=%2F").await.len(), 13);
        assert_eq!(tags(server, "/v2/a/tags/list?last=zzz").await, [""; 0]);
    })
    .await;
}

// TAGS-8, CAT-1
#[tokio::test]
async fn last_may_be_what_is_never_in_a_list() {
    everywhere(async |server| {
        tagged(server, "a", &ALL).await;
        let long = |text: &str| text.to_owned() + &"z".repeat(2000);
        for (last, first) in [
            ("", 0),
            ("..", 0),
            ("../..", 0),
            ("-", 0),
            ("%2F", 0),
            ("%00", 0),
            (&long("1.0"), 4),
            ("1.0%20", 2),
            ("A%2F..%2F..", 7),
            ("Z%00", 9),
            ("a%2F", 13),
            ("a%C3%A9", 14),
            (&long("a"), 14),
            ("%C3%A9", 15),
            ("~", 15),
        ] {
            let url = format!("/v2/a/tags/list?last={last}");
            assert_eq!(tags(server, &url).await, ALL[first..], "{last}");
        }
        tagged(server, "a-b", &["x"]).await;
        tagged(server, "a/b", &["x"]).await;
        for (last, first) in
            [("..", 0), ("A", 0), ("%2F", 0), ("a%00", 1), ("a-", 1), ("a-%7F", 2), ("a-b%2F", 2), ("a%2F%2F", 2)]
        {
            let listed: Vec<String> =
                server.get(&format!("/v2/_catalog?last={last}")).await.is(200).list("repositories");
            assert_eq!(listed, ["a", "a-b", "a/b"][first..], "{last}");
        }
        for last in ["a%2F~", &long("a"), "%C3%A9"] {
            let listed: Vec<String> =
                server.get(&format!("/v2/_catalog?last={last}")).await.is(200).list("repositories");
            assert_eq!(listed, [""; 0], "{last}");
        }
    })
    .await;
}

// TAGS-11
#[tokio::test]
async fn a_tag_that_comes_or_goes_is_listed_so_at_once() {
    everywhere(async |server| {
        tagged(server, "a", &["x"]).await;
        for _ in 0..3 {
            tagged(server, "a", &["y"]).await;
            assert_eq!(tags(server, "/v2/a/tags/list").await, ["x", "y"]);
            server.delete("/v2/a/manifests/y").await.is(202);
            assert_eq!(tags(server, "/v2/a/tags/list").await, ["x"]);
        }
        let pushed = server.push_manifest("a", "y", &image(&[])).await;
        server.delete(&format!("/v2/a/manifests/{}", digest(&pushed))).await.is(202);
        server.get("/v2/a/tags/list").await.is(200).json_is(&json!({ "name": "a", "tags": [] }));
    })
    .await;
}

// TAGS-10: by default at least a thousand
#[tokio::test]
async fn without_n_a_thousand_tags_come_at_once() {
    let server = in_memory().await;
    server.push_blob("a", "{}").await;
    let bytes = image(&[]).to_string();
    let names: Vec<_> = (0..1000).map(|it| format!("t{it:04}")).collect();
    for some in names.chunks(10) {
        let query: Vec<_> = some.iter().map(|it| format!("tag={it}")).collect();
        let reference = format!("{}?{}", sha256(&bytes), query.join("&"));
        server.put_manifest("a", &reference, OCI_MANIFEST, &bytes).await.is(201);
    }
    let reply = server.get("/v2/a/tags/list").await;
    assert_eq!(reply.is(200).lacks("link").list::<String>("tags"), names);
}

// NAME-6, REF-12
#[tokio::test]
async fn tags_that_look_like_digests_are_tags() {
    everywhere(async |server| {
        let subject = server.push_image("a", "v1", "layer").await;
        let fallback = digest(&subject).replace(':', "-");
        let signature = format!("{fallback}.sig");
        server.get(&format!("/v2/a/manifests/{fallback}")).await.refuses(404, "MANIFEST_UNKNOWN");
        for tag in [&fallback, &signature] {
            let pushed = server.push_manifest("a", tag, &image(&[])).await;
            server.get(&format!("/v2/a/manifests/{tag}")).await.is(200).has("docker-content-digest", digest(&pushed));
        }
        assert_eq!(tags(server, "/v2/a/tags/list").await, [fallback.as_str(), &signature, "v1"]);
        server.delete(&format!("/v2/a/manifests/{fallback}")).await.is(202);
        server.get(&format!("/v2/a/manifests/{}", digest(&subject))).await.is(200);
    })
    .await;
}

// CAT-1, NAME-8
#[tokio::test]
async fn the_catalog_lists_repositories_in_the_order_of_their_bytes() {
    everywhere(async |server| {
        let reply = server.get("/v2/_catalog").await;
        reply.is(200).has("content-type", "application/json").json_is(&json!({ "repositories": [] })).lacks("link");
        let all = ["a", "a-b", "a--b", "a.b", "a/b", "a/b/c", "a0", "a_b", "b"];
        for repository in all.iter().rev() {
            tagged(server, repository, &["v1"]).await;
        }
        let mut all = all;
        all.sort_unstable();
        server.get("/v2/_catalog").await.json_is(&json!({ "repositories": all }));
        for n in [1, 4, 9] {
            let mut listed = Vec::new();
            let mut url = Some(format!("/v2/_catalog?n={n}"));
            while let Some(page) = url {
                let reply = server.get(&page).await;
                listed.extend(reply.is(200).list::<String>("repositories"));
                url = reply.next();
                assert_eq!(url.is_some(), listed.len() < all.len());
            }
            assert_eq!(listed, all);
        }
        let reply = server.get("/v2/_catalog?n=1&last=a%2Fb").await;
        reply
            .json_is(&json!({ "repositories": ["a/b/c"] }))
            .has("link", "</v2/_catalog?n=1&last=a%2Fb%2Fc>; rel=\"next\"");
        server.get("/v2/_catalog?n=0").await.json_is(&json!({ "repositories": [] })).lacks("link");
        server.get("/v2/_catalog?last=zz").await.json_is(&json!({ "repositories": [] })).lacks("link");
        server.get("/v2/_catalog?n=99999999999999999999").await.json_is(&json!({ "repositories": all }));
    })
    .await;
}

#[tokio::test]
async fn the_history_of_a_tag_is_told_the_latest_change_first_and_page_by_page() {
    everywhere(async |server| {
        let url = "/v2/deep/er/_marina/tags/t/history";
        server.get(url).await.refuses(404, "NAME_UNKNOWN");
        let one = image(&[]).to_string();
        let other = image(&[]).to_string() + "\n";
        server.push_blob("deep/er", "{}").await;
        for bytes in [&one, &other] {
            server.put_manifest("deep/er", "t", OCI_MANIFEST, bytes).await.is(201);
        }
        server.delete("/v2/deep/er/manifests/t").await.is(202);
        server.get("/v2/deep/er/_marina/tags/u/history").await.refuses(404, "MANIFEST_UNKNOWN");
        server.get("/v2/deep/er/_marina/tags/.no/history").await.refuses(404, "MANIFEST_UNKNOWN");
        server.post(url).await.refuses(405, "UNSUPPORTED").has("allow", "GET, HEAD");

        let reply = server.replica().await.get(url).await;
        let told = reply.is(200).has("content-type", "application/json").lacks("link").json();
        assert_eq!((&told["name"], &told["tag"]), (&json!("deep/er"), &json!("t")));
        let steps = |told: &serde_json::Value| -> Vec<_> {
            let changes = told["history"].as_array().unwrap().iter();
            changes.map(|it| [it["from"]["digest"].clone(), it["to"]["digest"].clone()]).collect()
        };
        let (one, other) = (json!(sha256(&one)), json!(sha256(&other)));
        let expected = [[other.clone(), json!(null)], [one.clone(), other], [json!(null), one]];
        assert_eq!(steps(&told), expected);
        let latest = &told["history"][0];
        assert_eq!((&latest["by"], &latest["from"]["mediaType"]), (&json!("127.0.0.1"), &json!(OCI_MANIFEST)));
        assert!(latest["at"].as_str().unwrap().ends_with('Z'), "{latest}");

        let first = server.get(&format!("{url}?n=2")).await;
        let last = told["history"][1]["id"].as_str().unwrap();
        first.is(200).has("link", &format!("<{url}?n=2&last={last}>; rel=\"next\""));
        assert_eq!(steps(&first.json()), expected[..2]);
        let rest = server.get(&format!("{url}?n=2&last={last}")).await;
        rest.is(200).lacks("link");
        assert_eq!(steps(&rest.json()), expected[2..]);
    })
    .await;
}

#[tokio::test]
async fn a_history_names_the_client_behind_a_proxy_that_is_trusted() {
    let loopback = http::Networks::new([("127.0.0.0/8".parse().unwrap(), true)]);
    for (proxies, by) in [(loopback, "192.0.2.7"), (http::Networks::default(), "127.0.0.1")] {
        let http = http::Settings { proxies, ..http::Settings::default() };
        let server = Server::start(memory(), Settings { http, ..Settings::default() }).await;
        server.push_blob("a", "{}").await;
        let push = server.put("/v2/a/manifests/t").header("content-type", OCI_MANIFEST);
        push.header("x-forwarded-for", "203.0.113.9, 192.0.2.7").body(image(&[]).to_string()).await.is(201);
        let told = server.get("/v2/a/_marina/tags/t/history").await.json();
        assert_eq!(told["history"][0]["by"], json!(by));
    }
}
