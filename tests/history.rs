//! What each tag was is known, and can be put back, for as long as `undelete` says; on an injected clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clock;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{
        Change, Clock, Collector, Error, PageRequest, Push, Registry, Restored, Result, Settings, TagCondition,
        Version, check, on_behalf_of,
    },
    store::{
        Store, Verb,
        faulty::{Call, Fault, Faulty},
        memory::MemoryStore,
    },
};

use self::clock::Turned;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

struct World {
    store: Arc<MemoryStore>,
    clock: Arc<Turned>,
    registry: Arc<Registry>,
}

impl World {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Turned::new();
        let registry = Registry::open_with(store.clone(), settings, clock.clone()).await.unwrap();
        Self { store, clock, registry }
    }

    async fn replica(&self) -> Arc<Registry> {
        Registry::open_with(self.store.clone(), Settings::default(), self.clock.clone()).await.unwrap()
    }

    fn forward(&self, seconds: u64) -> SystemTime {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
        self.clock.now()
    }

    /// A round of another replica every hour, after which all is sound.
    async fn hours(&self, hours: u64) {
        let collector = Collector::new(self.replica().await);
        for _ in 0..hours {
            self.forward(HOUR);
            self.registry.settle().await;
            collector.round().await.unwrap();
        }
        let mut findings = Vec::new();
        check::check(self.store.clone(), |finding| findings.push(finding.to_string())).await.unwrap();
        assert!(findings.is_empty(), "{findings:?}");
    }

    async fn history(&self, tag: &str) -> Vec<Change> {
        let page = PageRequest::default();
        self.replica().await.history(&repository(), &named(tag), &page).await.unwrap().items
    }

    async fn restore(&self, tag: &str, version: Version) -> Result<Restored> {
        self.replica().await.restore_tag(&repository(), &named(tag), version).await
    }

    async fn target(&self, tag: &str) -> Option<Digest> {
        let found = self.registry.head_manifest(&repository(), &Reference::Tag(named(tag))).await;
        found.ok().map(|head| head.digest)
    }

    async fn delete(&self, digest: &Digest) {
        self.registry.delete_manifest(&repository(), digest).await.unwrap();
    }
}

fn repository() -> Repository {
    Repository::parse("team/app").unwrap()
}

fn named(tag: &str) -> Tag {
    Tag::parse(tag).unwrap()
}

/// A manifest that names nothing.
fn manifest(note: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"annotations":{{"note":"{note}"}}}}"#)
}

async fn push(registry: &Arc<Registry>, tags: &[&str], note: &str) -> Digest {
    let bytes = manifest(note);
    let digest = Digest::of(Algorithm::Sha256, bytes.as_bytes());
    let tags = tags.iter().map(|tag| named(tag)).collect();
    let target = Reference::Digest(digest);
    let push = Push { target, tags, content_type: None, bytes: bytes.into(), condition: None };
    registry.put_manifest(&repository(), push).await.unwrap();
    digest
}

/// From and to, the latest first.
fn steps(changes: &[Change]) -> Vec<(Option<Digest>, Option<Digest>)> {
    let digest = |head: &Option<marina_distribution::registry::ManifestHead>| head.as_ref().map(|head| head.digest);
    changes.iter().map(|change| (digest(&change.from), digest(&change.to))).collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_of_a_tag_is_written_down_with_its_time_and_by_whom() {
    let world = World::new().await;
    let start = world.clock.now();
    let a = on_behalf_of(Some("192.0.2.1".into()), push(&world.registry, &["t", "t.1"], "a")).await;
    let then = world.forward(60);
    let b = push(&world.registry, &["t"], "b").await;
    push(&world.registry, &["t"], "b").await;
    world.forward(2 * DAY);
    world.registry.delete_tag(&repository(), &named("t")).await.unwrap();
    world.forward(60);
    let c = push(&world.registry, &["t"], "c").await;
    world.forward(60);
    world.delete(&c).await;

    let changes = world.history("t").await;
    let expected = [(Some(c), None), (None, Some(c)), (Some(b), None), (Some(a), Some(b)), (None, Some(a))];
    assert_eq!(steps(&changes), expected, "what changes nothing is no change");
    let first = changes.last().unwrap();
    assert_eq!((first.at(), first.by.as_deref()), (start, Some("192.0.2.1")));
    assert_eq!((changes.get(3).unwrap().at(), changes.get(3).unwrap().by.as_deref()), (then, None));
    assert_eq!(first.to.as_ref().unwrap().media_type, INDEX);
    assert_eq!(steps(&world.history("t.1").await), [(None, Some(a))], "each tag has its own");
}

#[tokio::test(start_paused = true)]
async fn a_history_is_read_page_by_page_over_any_number_of_days() {
    let world = World::new().await;
    for n in 0..25 {
        push(&world.registry, &["t"], &n.to_string()).await;
        world.forward(6 * HOUR);
    }
    let whole = steps(&world.history("t").await);
    assert_eq!(whole.len(), 25);
    let (mut paged, mut page) = (Vec::new(), PageRequest { n: Some(4), last: None });
    loop {
        let listed = world.registry.history(&repository(), &named("t"), &page).await.unwrap();
        assert!(listed.items.len() <= 4);
        page.last = listed.items.last().map(|change| change.id.to_string());
        paged.extend(listed.items);
        if !listed.more {
            break;
        }
    }
    assert_eq!(steps(&paged), whole);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_a_client_made_up_costs_no_more_lists_than_a_history_has_days() {
    let world = World::new().await;
    push(&world.registry, &["t"], "a").await;
    let store = Arc::new(Faulty::new(world.store.clone(), |_: &Call| Fault::None));
    let registry = Registry::open_with(store.clone(), Settings::default(), world.clock.clone()).await.unwrap();
    // Its time counts down: the first of all ids is the last of all times.
    let last = Some("00000000-0000-7000-8000-000000000000".to_owned());
    let listed = registry.history(&repository(), &named("t"), &PageRequest { n: None, last }).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert!(store.calls().iter().filter(|call| call.verb == Verb::List).count() <= 9);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_what_never_was_is_told_what_is_missing() {
    let world = World::new().await;
    let ask = async |tag: &str| world.registry.history(&repository(), &named(tag), &PageRequest::default()).await;
    assert!(matches!(ask("t").await, Err(Error::NameUnknown)));
    push(&world.registry, &["t"], "a").await;
    assert!(matches!(ask("u").await, Err(Error::ManifestUnknown)));
    world.forward(30 * DAY);
    assert_eq!(ask("t").await.unwrap().items, [], "a tag that did not change for long");
}

#[tokio::test(start_paused = true)]
async fn a_push_that_loses_leaves_no_line_and_one_that_was_refused_none_either() {
    let world = World::new().await;
    let a = push(&world.registry, &["t"], "a").await;
    let bytes = manifest("b");
    let refused = Push {
        target: Reference::Tag(named("t")),
        tags: Vec::new(),
        content_type: None,
        bytes: bytes.into(),
        condition: Some(TagCondition::Absent),
    };
    assert!(matches!(world.registry.put_manifest(&repository(), refused).await, Err(Error::TagConditionFailed)));
    let pushes = ["c", "d", "e"].map(|note| push(&world.registry, &["t"], note));
    futures_util::future::join_all(pushes).await;
    world.registry.settle().await;
    let changes = steps(&world.history("t").await);
    let last = world.target("t").await;
    assert!(changes.iter().any(|(_, to)| *to == last), "{changes:?}");
    let from_a = changes.iter().filter(|(from, _)| *from == Some(a)).count();
    assert_eq!(from_a, 1, "only one of them can have come upon it: {changes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_which_no_line_can_be_written_is_not_acknowledged() {
    let world = World::new().await;
    let fails = |call: &Call| match (call.verb, call.key.starts_with("history/")) {
        (Verb::Put, true) => Fault::NotApplied,
        _ => Fault::None,
    };
    let store = Arc::new(Faulty::new(world.store.clone(), fails));
    let registry = Registry::open_with(store, Settings::default(), world.clock.clone()).await.unwrap();
    let target = Reference::Tag(named("t"));
    let push = Push { target, tags: Vec::new(), content_type: None, bytes: manifest("a").into(), condition: None };
    assert!(matches!(registry.put_manifest(&repository(), push).await, Err(Error::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn a_tag_goes_back_to_what_it_was_before_and_back_again() {
    let world = World::new().await;
    let a = push(&world.registry, &["t"], "a").await;
    world.forward(60);
    let b = push(&world.registry, &["t"], "b").await;
    world.hours(3).await;
    let restored = world.restore("t", Version::Before).await.unwrap();
    assert_eq!(restored, Restored { digest: a, manifests: 0, tags: vec![named("t")] });
    assert_eq!(world.target("t").await, Some(a));
    world.forward(60);
    world.restore("t", Version::Before).await.unwrap();
    assert_eq!(world.target("t").await, Some(b));

    world.forward(60);
    world.registry.delete_tag(&repository(), &named("t")).await.unwrap();
    world.hours(24 * 6).await;
    world.restore("t", Version::Before).await.unwrap();
    assert_eq!(world.target("t").await, Some(b), "what it was when it was deleted");
    world.hours(24 * 8).await;
    let refused = world.restore("t", Version::Before).await;
    assert!(matches!(refused, Err(Error::NotRestorable(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tag_goes_back_to_what_it_was_at_a_time() {
    let world = World::new().await;
    let before = world.clock.now();
    world.forward(60);
    let a = push(&world.registry, &["t"], "a").await;
    let at_a = world.forward(60);
    world.forward(60);
    let b = push(&world.registry, &["t"], "b").await;
    let at_b = world.forward(DAY);
    world.forward(60);
    world.delete(&b).await;
    let deleted = world.forward(60);
    world.hours(5).await;

    assert_eq!(world.restore("t", Version::At(at_b)).await.unwrap().manifests, 1, "its manifest was deleted too");
    assert_eq!(world.target("t").await, Some(b));
    world.forward(60);
    world.restore("t", Version::At(at_a)).await.unwrap();
    assert_eq!(world.target("t").await, Some(a));
    for absent in [before, deleted] {
        let refused = world.restore("t", Version::At(absent)).await;
        assert!(matches!(refused, Err(Error::NotRestorable(_))), "{refused:?}");
    }
    let long_ago = before - Duration::from_secs(10 * DAY);
    let refused = world.restore("t", Version::At(long_ago)).await;
    assert!(matches!(refused, Err(Error::NotRestorable(_))), "{refused:?}");
    assert_eq!(world.target("t").await, Some(a), "a refusal changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_comes_back_with_the_tags_that_went_with_it_and_no_others() {
    let world = World::new().await;
    let a = push(&world.registry, &["t", "u", "v", "w"], "a").await;
    world.forward(60);
    let b = push(&world.registry, &["u"], "b").await;
    world.registry.delete_tag(&repository(), &named("v")).await.unwrap();
    world.forward(HOUR);
    world.delete(&a).await;
    world.forward(60);
    push(&world.registry, &["w"], "b").await;
    world.hours(24 * 6).await;

    let restored = world.replica().await.restore_manifest(&repository(), &a).await.unwrap();
    assert_eq!(restored, Restored { digest: a, manifests: 1, tags: vec![named("t")] });
    let tags = ["t", "u", "v", "w"].map(|tag| world.target(tag));
    assert_eq!(futures_util::future::join_all(tags).await, [Some(a), Some(b), None, Some(b)]);
    world.hours(24 * 9).await;
    assert_eq!(world.target("t").await, Some(a), "and it stays");
}

#[tokio::test(start_paused = true)]
async fn lines_are_collected_when_they_are_too_old_and_nothing_is_left() {
    let world = World::new().await;
    let a = push(&world.registry, &["t"], "a").await;
    let b = push(&world.registry, &["t"], "b").await;
    let lines = async || world.store.list("history/", None, usize::MAX).await.unwrap().len();
    world.hours(24 * 7).await;
    assert_eq!(lines().await, 2);
    assert!(world.history("t").await.len() <= 2);
    world.hours(25).await;
    assert_eq!((lines().await, world.history("t").await), (0, Vec::new()));
    assert_eq!(world.target("t").await, Some(b));
    for digest in [a, b] {
        world.delete(&digest).await;
    }
    world.hours(24 * 12).await;
    let left = world.store.list("", None, usize::MAX).await.unwrap();
    let left: Vec<_> = left.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(left, ["fleet/session-key"]);
}

#[tokio::test(start_paused = true)]
async fn where_undelete_is_turned_off_nothing_is_written() {
    let world = World::with(Settings { undelete: Duration::ZERO, ..Settings::default() }).await;
    push(&world.registry, &["t"], "a").await;
    push(&world.registry, &["t"], "b").await;
    assert_eq!(world.store.list("history/", None, 1).await.unwrap(), []);
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_hides_no_change_that_comes_after_it() {
    let world = World::new().await;
    world.forward(40 * DAY);
    push(&world.registry, &["x"], "one").await;
    world.clock.0.fetch_sub(40 * DAY, Ordering::Relaxed);
    push(&world.registry, &["t"], "one").await;
    push(&world.registry, &["t"], "two").await;
    let history = world.registry.history(&repository(), &named("t"), &PageRequest::default()).await.unwrap();
    assert_eq!(history.items.len(), 2);
    world.registry.restore_tag(&repository(), &named("t"), Version::Before).await.unwrap();
}
