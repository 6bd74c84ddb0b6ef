//! Stores that are being worked on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::join_all;
use marina_distribution::{
    oci::{Reference, Tag},
    registry::{
        Clock, Error, Registry, Settings, SystemClock,
        check::{Check, News, Share},
    },
    store::{Condition, Store, memory::MemoryStore, metered::Metered},
};

use crate::fixture::{
    Damage::Remove, Fixture, blob_key, damage, image, key, manifest_key, push, push_blob, report, repository, sha256,
    subject, told_by,
};

#[tokio::test(start_paused = true)]
async fn only_what_nobody_touches_between_three_looks_is_reported() {
    let fixture = Fixture::in_memory().await;
    let store = fixture.copy().await;
    damage(store.as_ref(), &Remove(manifest_key(&fixture.index))).await;
    let at = key("repos/a/_tags/multi");
    // The tag points nowhere all the time, but it is another tag at each look.
    let touch = async {
        for n in 10..60 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let found = store.read(&at).await.unwrap().unwrap();
            let text = String::from_utf8(found.bytes.to_vec()).unwrap();
            let text = format!("l{n}{}", &text[3..]);
            store.put(&at, Bytes::from(text), Condition::Replace(found.version)).await.unwrap();
        }
    };
    let ((), (lines, _)) = tokio::join!(touch, report(Arc::clone(&store)));
    assert_eq!(lines, Vec::<String>::new());
    let reason = format!("points to {}, which is not there", fixture.index);
    assert_eq!(report(store).await.0, [format!("I3  {at}  {reason}")]);
}

/// A clock by which every reference in flight has expired when it is written.
#[derive(Debug)]
pub(crate) struct DaysAhead;

impl Clock for DaysAhead {
    fn now(&self) -> SystemTime {
        SystemClock.now() + Duration::from_hours(72)
    }
}

/// A client of its own replica, as fast as its store.
struct Client {
    registry: Arc<Registry>,
    random: u64,
}

impl Client {
    fn pick(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % of
    }

    /// One of the requests that get into each other's way.
    async fn act(&mut self) -> Result<(), Error> {
        let (name, other) = (repository("a"), repository("b"));
        let [one, two] = [self.pick(2), self.pick(2)].map(|n| if n == 0 { b"blob" } else { b"BLOB" });
        let text = image(&sha256(one), &sha256(two), "");
        let signature = image(&sha256(two), &sha256(one), &subject(&sha256(text.as_bytes())));
        let (image, referrer) = (sha256(text.as_bytes()), sha256(signature.as_bytes()));
        let latest = Tag::parse("latest").unwrap();
        let what = self.pick(16);
        let registry = &self.registry;
        match what {
            0 => registry.delete_blob(&name, &sha256(one)).await,
            1 => push_blob(registry, "a", one).await.map(drop),
            2 => registry.mount(&other, &sha256(one), Some(&name)).await.map(drop),
            3 => registry.delete_tag(&name, &latest).await,
            4..=6 => registry.delete_manifest(&name, &image).await,
            7..=9 => registry.delete_manifest(&name, &referrer).await,
            10..=12 => push(registry, "a", Reference::Digest(referrer), &signature).await.map(drop),
            _ => push(registry, "a", Reference::Tag(latest), &text).await.map(drop),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_under_pushes_deletes_and_expiries_is_clean_while_they_run_and_after() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let slow = |millis| Arc::new(Metered::with_latency(Arc::clone(&store), Duration::from_millis(millis)));
    let done = AtomicBool::new(false);
    let mut clients = Vec::new();
    for n in 0..8 {
        let registry = Registry::open(slow(2 * n + 3), Settings::default()).await.unwrap();
        clients.push(Client { registry, random: n });
    }
    let work = async {
        join_all(clients.iter_mut().map(|client| async {
            for _ in 0..200 {
                match client.act().await {
                    Ok(())
                    | Err(
                        Error::ManifestUnknown | Error::BlobUnknown(_) | Error::ManifestBlobUnknown(_) | Error::Busy,
                    ) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }))
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let hasty = Registry::open_with(slow(4), Settings::default(), Arc::new(DaysAhead)).await.unwrap();
    let expire = async {
        let mut references = 0;
        while !done.load(Ordering::Relaxed) {
            references += hasty.expire().await.unwrap().references;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(references > 100, "only {references} references expired");
    };
    let watch = async {
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) {
            assert_eq!(report(slow(40)).await.0, Vec::<String>::new());
            rounds += 1;
        }
        assert!(rounds > 10, "only {rounds} rounds");
    };
    tokio::join!(work, expire, watch);
    for client in &clients {
        client.registry.settle().await;
    }
    let (lines, summary) = report(Arc::clone(&store)).await;
    assert_eq!(lines, Vec::<String>::new());
    assert!(summary.manifests > 0 && summary.dropped > 0, "{summary}");
}

#[tokio::test(start_paused = true)]
async fn a_repair_beside_clients_gets_in_nobodys_way_and_what_it_put_away_is_healed_by_them() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let slow = |millis| Arc::new(Metered::with_latency(Arc::clone(&store), Duration::from_millis(millis)));
    let done = AtomicBool::new(false);
    let mut clients = Vec::new();
    for n in 0..4 {
        let registry = Registry::open(slow(2 * n + 3), Settings::default()).await.unwrap();
        clients.push(Client { registry, random: n });
    }
    let work = async {
        join_all(clients.iter_mut().map(|client| async {
            for _ in 0..300 {
                match client.act().await {
                    Ok(())
                    | Err(
                        Error::ManifestUnknown | Error::BlobUnknown(_) | Error::ManifestBlobUnknown(_) | Error::Busy,
                    ) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }))
        .await;
        done.store(true, Ordering::Relaxed);
    };
    // Harms the bytes of one blob or the other now and then.
    let harm = async {
        for blob in [b"blob", b"BLOB"].iter().cycle() {
            if done.load(Ordering::Relaxed) {
                break;
            }
            if let Some(record) = store.read(&key(&blob_key(&sha256(*blob), "_"))).await.unwrap() {
                let record = String::from_utf8(record.bytes.to_vec()).unwrap();
                let at = key(record.split('"').find(|text| text.starts_with("data/")).unwrap());
                let found = store.read(&at).await.unwrap().unwrap();
                store.put(&at, Bytes::from_static(b"harm"), Condition::Replace(found.version)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(2900)).await;
        }
    };
    let mender = Registry::open(slow(4), Settings::default()).await.unwrap();
    let mend = async {
        let (mut put_away, mut whole) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            let check = Check::new(slow(4)).deep(Share::ALL, None).repair(Arc::clone(&mender));
            let summary = check.run(|news| put_away += u64::from(matches!(news, News::Mended(it) if !it.is_whole)));
            whole += summary.await.unwrap().mended;
        }
        assert!(put_away > 0, "nothing was put away, {whole} made whole");
    };
    tokio::join!(work, harm, mend);
    for client in &clients {
        client.registry.settle().await;
    }
    let repair = || async {
        Check::new(Arc::clone(&store)).deep(Share::ALL, None).repair(Arc::clone(&mender)).run(|_| {}).await.unwrap();
    };
    repair().await;
    for blob in [b"blob", b"BLOB"] {
        push_blob(&mender, "a", blob).await.unwrap();
    }
    mender.settle().await;
    repair().await;
    assert_eq!(told_by(Check::new(Arc::clone(&store)).deep(Share::ALL, None)).await.0, Vec::<String>::new());
}
