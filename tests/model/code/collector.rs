//! Rounds of the collector, and what clients count on.

use std::sync::atomic::{AtomicUsize, Ordering};

use marina_distribution::{
    registry::Collector,
    store::{Condition, Verb, faulty},
};

use super::*;
use crate::{
    link::by_model,
    process::{Drops, Process},
    scenarios::{CONDEMNED, DROPPED, REST_OF_BYTES, TOMBSTONE, UNHELD, ask_and_push},
    world::{GHOST, OTHER, of_old},
};

/// One round: every queue, one after the other.
fn round(start: Start) -> Scenario {
    let processes = [DROPPED, CONDEMNED, UNHELD, REST_OF_BYTES, TOMBSTONE].map(|op| Process { op, wrong: None });
    Scenario { processes: processes.into(), catalog: true, ..alone(start, DROPPED) }
}

const OF_BLOB: Drops = Drops::Blob { repo: 0, blob: 0 };

/// Holds a round of the model to one of the code.
fn same_round(name: &str, scenario: &Scenario, script: Script, code: &Rounds) {
    let (rounds, _) = by_model(scenario, script);
    assert_eq!(*code, rounds, "{name}, {script:?}: the code, and the model");
    println!("{:3} rounds {:3} calls  {name}, {script:?}", rounds.len(), rounds.iter().flatten().count());
}

impl Code {
    /// A blob that nothing refers to; its reference in flight has expired.
    async fn unneeded() -> Self {
        let code = Self::new().await;
        code.registry.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await.unwrap();
        code.expire_at(25).await;
        code
    }

    async fn collect(&self, hours: u64, script: Script) -> Rounds {
        let later = Self::at(hours, self.below.clone()).await;
        let collects = async |registry: &Arc<Registry>| ends(&Collector::new(Arc::clone(registry)).round().await);
        let (rounds, outcome) = later.run(script, collects).await;
        assert_eq!(outcome, Outcome::Acknowledged, "{script:?}");
        rounds
    }

    /// A collector that dies after so many puts to keys like this.
    async fn collect_and_die(&self, hours: u64, puts: usize, like: &'static str) {
        let left = AtomicUsize::new(puts);
        let dies = move |call: &faulty::Call| {
            if left.load(Ordering::Relaxed) == 0 {
                return Fault::NotApplied;
            }
            if call.verb == Verb::Put && call.key.contains(like) {
                left.fetch_sub(1, Ordering::Relaxed);
            }
            Fault::None
        };
        let store = Arc::new(Faulty::new(self.below.clone(), dies));
        let registry = Registry::open_with(store, Settings::default(), Arc::new(Hours(hours))).await.unwrap();
        Collector::new(registry).round().await.unwrap_err();
    }

    /// What another one has, from there.
    async fn graft(&self, other: &Self, prefix: &str) {
        for entry in other.below.list(prefix, None, 1000).await.unwrap() {
            let found = other.below.read(&entry.key).await.unwrap().unwrap();
            self.below.put(&entry.key, found.bytes, Condition::Create).await.unwrap();
        }
    }

    async fn restore(&self, script: Script) -> (Rounds, Outcome) {
        let digest = digest(image(false).as_bytes());
        self.run(script, async |registry| ends(&registry.restore_manifest(&repo("a"), &digest).await)).await
    }

    async fn without(&self, prefix: &str) {
        for entry in self.below.list(prefix, None, 1000).await.unwrap() {
            self.below.delete(&entry.key).await.unwrap();
        }
    }
}

fn unneeded() -> Scenario {
    round(blob().dropped()).left(OF_BLOB)
}

#[tokio::test(start_paused = true)]
async fn holders_are_condemned_as_modelled() {
    let scripts: [Script; 6] = [
        &[],
        &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost)],
        &[(READ_HOLDER, 0, Meddle::Rewritten(Is::Condemned))],
        &[(READ_HOLDER, 0, Meddle::Rewritten(Is::Gone))],
    ];
    for script in scripts {
        same_round("unneeded", &unneeded(), script, &Code::unneeded().await.collect(26, script).await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_needed_is_spared_as_modelled() {
    let push = || push(image(false), &[]);
    let code = Code::unneeded().await;
    code.registry.put_manifest(&repo("a"), push()).await.unwrap();
    code.registry.settle().await;
    let named = round(blob().dropped().manifest(D, Is::Live, 0)).left(OF_BLOB);
    same_round("named", &named, &[], &code.collect(26, &[]).await);
    let code = Code::unneeded().await;
    code.registry.put_manifest(&repo("a"), push()).await.unwrap();
    code.registry.settle().await;
    let is_condemned = code.holder(Is::Condemned).await;
    let start = Start::empty().blob(0).holder(0, 0, Is::Condemned).dropped().manifest(D, Is::Live, 0);
    same_round("named and condemned", &round(start).left(OF_BLOB), &[], &is_condemned.collect(26, &[]).await);

    let code = Code::unneeded().await;
    let uploads = Code::at(26, code.below.clone()).await;
    uploads.registry.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await.unwrap();
    let attempt = Announced::Blob { repo: 0, blob: 0, brings: Brings::Attempt };
    let flying = Start::empty().blob(0).dropped().announced();
    same_round("being uploaded", &round(flying).left(OF_BLOB).dead(attempt), &[], &code.collect(26, &[]).await);

    let code = Code::unneeded().await;
    let dies = Code::at(26, code.below.clone()).await.dying_at(26, 3).await;
    dies.put_manifest(&repo("a"), push()).await.unwrap_err();
    let pushed = Announced::Manifest { repo: 0, manifest: D };
    same_round("being pushed", &round(flying).left(OF_BLOB).dead(pushed), &[], &code.collect(26, &[]).await);
}

#[tokio::test(start_paused = true)]
async fn what_has_rested_is_taken_as_modelled() {
    let start = blob().holder(0, 0, Is::Condemned).condemned();
    let scripts: [Script; 13] = [
        &[],
        &[(READ_HOLDER, 0, Meddle::Rewritten(Is::Live))],
        &[(READ_HOLDER, 0, Meddle::Rewritten(Is::Condemned))],
        &[(READ_HOLDER, 0, Meddle::Rewritten(Is::Gone))],
        &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost)],
        &[(READ_RECORD, 0, Meddle::Rewritten(Is::Gone))],
        &[(PUT_RECORD, 0, Meddle::Rewritten(Is::Live))],
        &[(READ_RECORD, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_RECORD, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_RECORD, 1, Meddle::Rewritten(Is::Condemned))],
        &[(PUT_RECORD, 1, Meddle::Rewritten(Is::Gone))],
        &[(PUT_RECORD, 1, Meddle::ReplyLost), (READ_RECORD, 2, Meddle::Rewritten(Is::Gone))],
    ];
    for script in scripts {
        let code = Code::unneeded().await;
        code.collect(26, &[]).await;
        same_round("rested", &round(start), script, &code.collect(51, script).await);
    }
    let code = Code::unneeded().await;
    code.registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await.unwrap();
    code.without("pending/").await;
    code.collect(26, &[]).await;
    same_round("held elsewhere", &round(start.holder(1, 0, Is::Live)), &[], &code.collect(51, &[]).await);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_collector_left_is_taken_as_modelled() {
    // After it left the entry that names the bytes; after it took the record.
    let condemned = Start::empty().condemned_record(0).holder(0, 0, Is::Gone);
    let taken = Start::empty().put(Key::Record(0), Is::Gone, 0).put(of_old(0), Is::Live, 0).holder(0, 0, Is::Gone);
    for (puts, like, start) in [(1, "gc/bytes/", condemned), (2, "/_", taken)] {
        let code = Code::unneeded().await;
        code.collect(26, &[]).await;
        code.collect_and_die(51, puts, like).await;
        code.without("gc/unheld/").await;
        let scenario = round(start.put(Key::Bytes(GHOST), Is::Live, 3));
        same_round(
            &format!("a collector that died after {puts} of {like}"),
            &scenario,
            &[],
            &code.collect(51, &[]).await,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_deleted_image_is_as_modelled() {
    let of_image = |start: Start| round(start.listed().dropped()).left(Drops::Manifest(D));
    let scripts: [Script; 5] = [
        &[],
        &[(("put", "catalog"), 0, Meddle::Rewritten(Is::Live))],
        &[(("put", "catalog"), 1, Meddle::Rewritten(Is::Live))],
        &[(("read", "catalog"), 1, Meddle::Rewritten(Is::Live))],
        &[(("read", "catalog"), 0, Meddle::Rewritten(Is::Gone))],
    ];
    for script in scripts {
        let code = Code::with_image(false, &[]).await;
        code.delete(&[], false).await;
        let scenario = of_image(blob().manifest(D, Is::Deleted, 0));
        same_round("deleted", &scenario, script, &code.collect(200, script).await);
    }
    for script in [&[][..], &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))]] {
        let code = Code::with_image(false, &[]).await;
        code.delete(&[], false).await;
        code.push(&[], push(image(false), &[])).await;
        same_round("back", &of_image(blob().manifest(D, Is::Live, 0)), script, &code.collect(200, script).await);
    }
    // Another push is under way when the line is looked at, or has died.
    let code = Code::with_image(false, &[]).await;
    code.delete(&[], false).await;
    Code::at(200, code.below.clone())
        .await
        .dying_at(200, 2)
        .await
        .put_manifest(&repo("a"), push(other(), &[]))
        .await
        .unwrap_err();
    let flying = blob().manifest(D, Is::Deleted, 0).announced();
    let pushed = Announced::Manifest { repo: 0, manifest: OTHER };
    same_round("deleted, and another pushed", &of_image(flying).dead(pushed), &[], &code.collect(200, &[]).await);
    let code = Code::new().await;
    code.dying(2).await.put_manifest(&repo("a"), push(other(), &[])).await.unwrap_err();
    // It wrote the line, which it does beside its manifest.
    code.graft(&Code::with_image(false, &[]).await, "catalog/").await;
    code.expire_at(25).await;
    let died = Start::empty().manifest(OTHER, Is::Gone, 0).listed().dropped();
    let died = round(died).left(Drops::Push { repo: 0, manifest: OTHER });
    same_round("a push that died", &died, &[], &code.collect(26, &[]).await);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_put_back_is_spared_and_put_back_as_modelled() {
    let code = Code::with_image(false, &[]).await;
    code.delete(&[], false).await;
    let trash = blob().listed().trash();
    let restored = |start: Start, script: Script, done| {
        let scenario = alone(start, Op::Restore(D)).left(Drops::Manifest(D));
        same(&format!("put back, {script:?}"), &Scenario { catalog: true, ..scenario }, script, done);
    };
    restored(trash, &[], code.restore(&[]).await);
    restored(blob().listed().manifest(D, Is::Live, 0).kept(), &[], code.restore(&[]).await);
    let script: Script = &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))];
    let code = Code::with_image(false, &[]).await.holder(Is::Condemned).await;
    code.delete(&[], false).await;
    let trash = Start::empty().blob(0).holder(0, 0, Is::Condemned).listed().trash();
    restored(trash, script, code.restore(script).await);
    restored(blob(), &[], Code::with_blob().await.restore(&[]).await);

    // Condemned, and rested since, but named by what can be put back.
    let code = Code::unneeded().await;
    code.collect(26, &[]).await;
    let deleted = Code::with_image(false, &[]).await;
    deleted.delete(&[], false).await;
    for prefix in ["dropped/", "repos/", "catalog/"] {
        code.graft(&deleted, prefix).await;
    }
    let lifted = Start::empty().blob(0).holder(0, 0, Is::Condemned).condemned().listed().trash();
    same_round("can be put back", &round(lifted).left(Drops::Manifest(D)), &[], &code.collect(51, &[]).await);
}

#[tokio::test(start_paused = true)]
async fn tombstones_are_removed_as_modelled() {
    let holder = Key::Holder { repo: 0, blob: 0 };
    let gone = Start::empty().blob(0).holder(0, 0, Is::Deleted).holder(1, 0, Is::Live).note(holder);
    let scripts: [Script; 3] = [
        &[],
        &[(("delete if", "holder"), 0, Meddle::Rewritten(Is::Deleted))],
        &[(READ_HOLDER, 0, Meddle::Rewritten(Is::Gone))],
    ];
    for script in scripts {
        let code = Code::with_blob().await;
        code.registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await.unwrap();
        code.registry.delete_blob(&repo("a"), &digest(BLOB)).await.unwrap();
        code.without("pending/").await;
        code.collect(1, &[]).await;
        same_round("a tombstone", &round(gone), script, &code.collect(26, script).await);
    }
    let code = Code::with_image(false, &[]).await;
    code.registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await.unwrap();
    code.registry.delete_blob(&repo("a"), &digest(BLOB)).await.unwrap();
    code.without("pending/").await;
    code.collect(1, &[]).await;
    let meant = gone.manifest(D, Is::Live, 0);
    same_round("one that a manifest means", &round(meant), &[], &code.collect(26, &[]).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_and_pushed_is_as_modelled() {
    let asks = async |registry: &Arc<Registry>| {
        let Ok(_) = registry.stat_blob(&repo("a"), &digest(BLOB)).await else { return Outcome::Acknowledged };
        ends(&registry.put_manifest(&repo("a"), push(image(false), &[])).await)
    };
    same("there", &alone(blob(), ask_and_push()), &[], Code::with_blob().await.run(&[], asks).await);
    let code = Code::with_blob().await.holder(Is::Condemned).await;
    let condemned = Start::empty().blob(0).holder(0, 0, Is::Condemned);
    same("condemned", &alone(condemned, ask_and_push()), &[], code.run(&[], asks).await);
}
