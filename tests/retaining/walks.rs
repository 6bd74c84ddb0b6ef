//! What a walk takes, and says.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use glob::Pattern;
use marina_distribution::{
    registry::{Chunk, Collector, PageRequest, Retained, Retainer, Rule, Version},
    store::{Condition, Key, Store, faulty::Fault},
};

use super::world::*;

#[tokio::test(start_paused = true)]
async fn tags_beyond_the_limits_go_and_the_history_says_by_whom_and_they_can_be_put_back() {
    let world = World::new().await;
    for tag in ["a", "b", "c"] {
        push(&world.sound, tag, &plain(tag)).await.unwrap();
        world.forward(60);
    }
    world.forward(2 * DAY);
    // Set again to what it is: that counts as well.
    push(&world.sound, "a", &plain("a")).await.unwrap();
    let done = world.walk(&[last(2)]).await;
    assert_eq!(done, Retained { repositories: 1, tags: 1, kept: 2, ..Retained::default() });
    assert_eq!(world.tags().await, ["a", "c"]);
    assert!(world.has(&plain("b")).await, "a rule for tags takes no manifest");
    let history = world.sound.history(&repository(), &named("b"), &PageRequest::default()).await.unwrap();
    assert_eq!(history.items.first().unwrap().by.as_deref(), Some("retention"));
    world.sound.restore_tag(&repository(), &named("b"), Version::Before).await.unwrap();
    world.forward(60);
    // What was put back was set when it was put back.
    world.walk(&[last(2)]).await;
    assert_eq!(world.tags().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_rule_is_for_costs_a_list_and_stays() {
    let world = World::new().await;
    push(&world.sound, "a", &plain("a")).await.unwrap();
    world.forward(900 * DAY);
    world.troubled.plan(|_| Fault::None);
    let elsewhere = Rule { repositories: vec![Pattern::new("team").unwrap()], ..last(1) };
    assert_eq!(world.troubled.walk(vec![elsewhere]).await.unwrap(), Retained::default());
    assert_eq!(world.troubled.calls(), 1);
    assert_eq!(world.tags().await, ["a"]);
}

/// The calls of a walk.
async fn cost(world: &World, rules: Vec<Rule>) -> usize {
    world.sound.settle().await;
    world.troubled.plan(|_| Fault::None);
    world.troubled.walk(rules).await.unwrap();
    world.troubled.calls()
}

#[tokio::test(start_paused = true)]
async fn a_walk_costs_a_read_for_each_tag_and_manifest_and_a_few_calls_for_each_that_goes() {
    let world = World::new().await;
    for number in 0..10 {
        push(&world.sound, &format!("t{number}"), &plain(&format!("m{number}"))).await.unwrap();
        put(&world.sound, &plain(&format!("u{number}"))).await.unwrap();
        world.forward(60);
    }
    world.forward(30 * HOUR);
    let (catalog, list, read) = (1, 1, 1);
    assert_eq!(cost(&world, vec![last(10)]).await, catalog + list + 10 * read);
    assert_eq!(cost(&world, vec![untagged(2)]).await, catalog + 2 * list + 30 * read);
    // Each is announced to the collector, buried, and noted in the history.
    assert_eq!(cost(&world, vec![last(7)]).await, catalog + list + 10 * read + 3 * 3);
    world.forward(3 * DAY);
    // Two looks, and for each: read, condemned, read, announced, read, buried. Those that had a tag: its tag, twice.
    let looks = 2 * 3 * list;
    assert_eq!(cost(&world, vec![untagged(2)]).await, catalog + 2 * list + 27 * read + looks + 13 * 6 + 3 * 2);
}

#[tokio::test(start_paused = true)]
async fn an_index_goes_first_then_its_children_and_then_what_refers_to_them() {
    let world = World::new().await;
    let (child, rules) = (plain("child"), [untagged(2)]);
    let (index, signature) = (index_of("index", &child), of_subject("signature", &child));
    put(&world.sound, &child).await.unwrap();
    push(&world.sound, "t", &index).await.unwrap();
    put(&world.sound, &signature).await.unwrap();
    world.forward(3 * DAY);
    let there = async || (world.has(&index).await, world.has(&child).await, world.has(&signature).await);
    assert_eq!(world.walk(&rules).await.manifests, 0, "a tag keeps all of them");
    world.sound.delete_tag(&repository(), &named("t")).await.unwrap();
    world.forward(HOUR);
    assert_eq!(world.walk(&rules).await.manifests, 1);
    assert_eq!(there().await, (false, true, true));
    let spared = world.walk(&rules).await;
    assert_eq!((spared.manifests, spared.spared), (0, 1), "an index that can be put back needs it");
    world.sound.restore_manifest(&repository(), &digest(&index)).await.unwrap();
    assert_eq!(world.walk(&rules).await.manifests, 0, "what was put back is young");
    world.forward(3 * DAY);
    assert_eq!(world.walk(&rules).await.manifests, 1);
    world.forward(8 * DAY);
    assert_eq!(world.walk(&rules).await.manifests, 1);
    assert_eq!(there().await, (false, false, true));
    assert_eq!(world.walk(&rules).await.manifests, 1);
    assert_eq!(there().await, (false, false, false));
    world.ends_empty(&[]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_an_index_is_damaged_no_manifest_goes_and_tags_do() {
    let world = World::new().await;
    let (child, other) = (plain("child"), digest("other").hex());
    let index = index_of("index", &child);
    put(&world.sound, &child).await.unwrap();
    push(&world.sound, "t", &index).await.unwrap();
    world.forward(60);
    push(&world.sound, "u", &plain("u")).await.unwrap();
    world.forward(3 * DAY);
    let key = format!("repos/team/app/_manifests/sha256/{}", digest(&index).hex());
    let key = Key::parse(key).unwrap();
    let found = world.memory.read(&key).await.unwrap().unwrap();
    let damaged = String::from_utf8(found.bytes.to_vec()).unwrap().replace(&digest(&child).hex(), &other);
    world.memory.put(&key, damaged.into(), Condition::Replace(found.version)).await.unwrap();
    world.troubled.walk(pruning()).await.unwrap();
    assert!(world.has(&child).await);
    assert_eq!(world.tags().await, ["u"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_retired_manifest_named_goes_the_way_of_all_that_was_deleted() {
    let world = World::new().await;
    let blob = "layer";
    let body = Box::pin(stream::iter([Ok(Bytes::from(blob))]));
    let chunk = Chunk { start: None, declared: None, length: Some(blob.len() as u64), body };
    world.sound.upload_whole(&repository(), &digest(blob), chunk).await.unwrap();
    let config = descriptor("application/x", blob);
    let image = format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[]}}"#);
    push(&world.sound, "t", &plain("other")).await.unwrap();
    put(&world.sound, &image).await.unwrap();
    world.forward(3 * DAY);
    assert_eq!(world.walk(&[untagged(2)]).await.manifests, 1);
    world.forward(2 * DAY);
    Collector::new(Arc::clone(&world.sound)).round().await.unwrap();
    world.sound.restore_manifest(&repository(), &digest(&image)).await.unwrap();
    assert!(world.sound.find_blob(&repository(), &digest(blob)).await.is_ok(), "it is kept to be put back");
    world.forward(3 * DAY);
    assert_eq!(world.walk(&[untagged(2)]).await.manifests, 1);
    world.ends_empty(&[plain("other")]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_decision_names_the_thing_its_size_the_rule_and_the_reason() {
    let world = World::to_be_pruned(Duration::ZERO).await;
    let lines = world.decisions(&pruning()).await;
    let (tag, old) = (digest(&plain("t1")), digest(&plain("old")));
    for expected in [
        format!("- team/app:t1 ({tag}, 116 bytes), rule 1: set 2027-01-15T08:00:00Z, beyond its limits"),
        format!("- team/app@{old} (117 bytes), rule 2: pushed 2027-01-15T11:00:00Z, and nothing needs it"),
    ] {
        assert!(lines.contains(&expected), "{expected} is not in {lines:#?}");
    }
    let kept = lines.iter().filter(|line| line.starts_with("  ")).count();
    assert_eq!((lines.len(), kept), (5, 1), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn of_a_fleet_one_replica_walks_in_each_interval() {
    let world = World::to_be_pruned(Duration::ZERO).await;
    let replicas = [&world.troubled.registry, &world.sound].map(|of| Retainer::new(Arc::clone(of), pruning()));
    let turns = async || {
        let mut turns = Vec::new();
        for replica in &replicas {
            turns.push(replica.turn(Duration::from_secs(DAY)).await.unwrap().map(|done| done.tags));
        }
        turns
    };
    assert_eq!(turns().await, [Some(2), None]);
    world.forward(DAY - 1);
    assert_eq!(turns().await, [None, None]);
    world.forward(1);
    assert_eq!(turns().await, [Some(0), None]);
}
