//! Walks and clients that stall or fail between any two of their calls.

use std::{sync::Arc, time::Duration};

use marina_distribution::{
    oci::{Digest, Reference},
    registry::{Collector, Error, Registry, Rule},
    store::faulty::Fault,
};

use super::world::*;

/// What clients do meanwhile.
const MEANWHILE: [&str; 7] =
    ["move a tag", "set a tag again", "tag it", "index it", "push it again", "delete it", "push the subject"];

/// What was acknowledged: tags with what they point to, and manifests.
type Told = (Vec<(&'static str, Digest)>, Vec<String>);

async fn meanwhile(what: &str, registry: &Arc<Registry>) -> Result<Told, Error> {
    let (old, subject) = (plain("old"), plain("subject"));
    Ok(match what {
        "move a tag" => (vec![("t1", push(registry, "t1", &plain("new")).await?)], vec![plain("new")]),
        "set a tag again" => (vec![("t1", push(registry, "t1", &plain("t1")).await?)], vec![plain("t1")]),
        "tag it" => (vec![("o", push(registry, "o", &old).await?)], vec![old]),
        "index it" => (vec![("i", push(registry, "i", &index_of("i", &old)).await?)], vec![old]),
        "push it again" => (vec![], vec![put(registry, &old).await.map(|_| old)?]),
        "delete it" => {
            drop(registry.delete_manifest(&repository(), &digest(&old)).await);
            (vec![], vec![])
        }
        "push the subject" => (vec![], vec![put(registry, &subject).await.map(|_| subject)?]),
        _ => panic!("{what}"),
    })
}

/// What was told, if nothing was refused but an index of what is gone.
fn told(what: &str, result: Result<Told, Error>) -> Told {
    match result {
        Ok(told) => told,
        Err(Error::ManifestBlobUnknown(_)) if what == "index it" => (vec![], vec![]),
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn everything() -> Vec<String> {
    let mut all: Vec<_> = ["t1", "t2", "t3", "new", "old", "subject"].map(plain).into();
    all.extend([index_of("i", &plain("old")), of_subject("orphan", &plain("subject"))]);
    all
}

async fn holds(world: &World, (tags, manifests): &Told) -> Result<(), String> {
    world.is_sound().await?;
    for (tag, digest) in tags {
        let target = world.target(tag).await;
        if target != Some(*digest) {
            return Err(format!("{tag} is {target:?}"));
        }
    }
    for manifest in manifests {
        if !world.has(manifest).await {
            return Err(format!("{manifest} is gone"));
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn wherever_a_walk_stalls_what_clients_push_meanwhile_stays() {
    for what in MEANWHILE {
        let mut spared = 0;
        for (at, undelete) in (0..).flat_map(|at| [(at, 0), (at, 7 * DAY)]) {
            let world = World::to_be_pruned(Duration::from_secs(undelete)).await;
            let stopped = world.troubled.stop(at, world.troubled.walk(pruning())).await;
            let told = told(what, meanwhile(what, &world.sound).await);
            world.sound.settle().await;
            Collector::new(Arc::clone(&world.sound)).round().await.unwrap();
            world.troubled.faulty.release();
            let Some(task) = stopped else { break };
            let done = task.await.unwrap().unwrap();
            // With none the collector may just have seen to what is about to go.
            spared += if undelete > 0 { done.spared } else { 0 };
            let fail = |error| panic!("{what} before call {at}: {error}");
            holds(&world, &told).await.unwrap_or_else(fail);
            assert_eq!(condemned(&world).await, 0, "{what} before call {at}");
            // Nothing is left that nothing leads to.
            world.walk(&pruning()).await;
            holds(&world, &told).await.unwrap_or_else(fail);
            world.ends_empty(&everything()).await.unwrap_or_else(fail);
        }
        assert!(spared > 0, "{what}: never in between");
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_client_stalls_while_a_walk_goes_through_what_it_is_told_holds() {
    for what in MEANWHILE {
        for at in 0.. {
            let world = World::to_be_pruned(Duration::from_secs(7 * DAY)).await;
            let client = Arc::clone(&world.troubled.registry);
            let stopped = world.troubled.stop(at, async move { meanwhile(what, &client).await }).await;
            let Some(task) = stopped else { break };
            world.walk(&pruning()).await;
            world.troubled.faulty.release();
            let told = told(what, task.await.unwrap());
            world.troubled.registry.settle().await;
            let fail = |error| panic!("{what} before call {at}: {error}");
            holds(&world, &told).await.unwrap_or_else(fail);
            world.ends_empty(&everything()).await.unwrap_or_else(fail);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_client_and_a_walk_stall_for_days_what_the_client_is_told_holds() {
    for what in ["tag it", "index it"] {
        'client: for client_at in 0.. {
            for walk_at in 0.. {
                let world = World::to_be_pruned(Duration::from_secs(7 * DAY)).await;
                let (client, registry) = (world.another().await, &world.troubled);
                let pushing = Arc::clone(&client.registry);
                let stopped = client.stop(client_at, async move { meanwhile(what, &pushing).await }).await;
                let Some(pushing) = stopped else { break 'client };
                world.forward(3 * DAY);
                let Some(walking) = registry.stop(walk_at, registry.walk(pruning())).await else { break };
                client.faulty.release();
                let told = told(what, pushing.await.unwrap());
                client.registry.settle().await;
                registry.faulty.release();
                walking.await.unwrap().unwrap();
                let fail = |error| panic!("{what} before call {client_at}, walk before call {walk_at}: {error}");
                holds(&world, &told).await.unwrap_or_else(fail);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_walks_that_stall_never_take_for_each_other_what_a_push_has_lifted() {
    'one: for one_at in 0.. {
        for other_at in 0.. {
            let world = World::to_be_pruned(Duration::from_secs(7 * DAY)).await;
            // The other one stalls twice: after the second time it has condemned what it had judged before the push.
            let (one, again) = (&world.troubled, world.another().await);
            let other = world.another_over(again.faulty.clone()).await;
            again.plan(move |index| if index >= other_at + 2 { Fault::Halted } else { Fault::None });
            let Some(first) = one.stop(one_at, one.walk(vec![untagged(2)])).await else { break 'one };
            let Some(second) = other.stop(other_at, other.walk(vec![untagged(2)])).await else { break };
            let told = told("index it", meanwhile("index it", &world.sound).await);
            other.faulty.release();
            again.halted().await;
            one.faulty.release();
            first.await.unwrap().unwrap();
            again.faulty.release();
            second.await.unwrap().unwrap();
            let fail = |error| panic!("before calls {one_at} and {other_at}: {error}");
            holds(&world, &told).await.unwrap_or_else(fail);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_walk_fails_or_dies_the_next_one_finishes() {
    let calls = {
        let world = World::to_be_pruned(Duration::from_secs(7 * DAY)).await;
        world.troubled.plan(|_| Fault::None);
        world.troubled.walk(pruning()).await.unwrap();
        world.troubled.calls()
    };
    for at in 0..calls {
        for (fault, dies) in [(Fault::NotApplied, false), (Fault::ReplyLost, false), (Fault::NotApplied, true)] {
            let world = World::to_be_pruned(Duration::from_secs(7 * DAY)).await;
            let hits = move |index| index == at || (dies && index > at);
            world.troubled.plan(move |index| if hits(index) { fault } else { Fault::None });
            // It may fail: the next goes on.
            drop(world.troubled.walk(pruning()).await);
            world.troubled.plan(|_| Fault::None);
            world.is_sound().await.unwrap_or_else(|error| panic!("call {at}: {error}"));
            world.walk(&pruning()).await;
            assert_eq!(world.tags().await, ["t3"], "call {at}");
            assert!(!world.has(&plain("old")).await, "call {at}");
            world.ends_empty(&everything()).await.unwrap_or_else(|error| panic!("call {at}: {error}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_a_dead_walk_condemned_is_there_as_ever_and_the_next_walk_or_push_lifts_it() {
    let left_condemned = async || {
        let world = World::to_be_pruned(Duration::from_secs(7 * DAY)).await;
        for at in 0.. {
            world.troubled.plan(move |index| if index >= at { Fault::NotApplied } else { Fault::None });
            drop(world.troubled.walk(vec![untagged(2)]).await);
            if condemned(&world).await > 0 {
                break;
            }
        }
        world.troubled.plan(|_| Fault::None);
        world
    };
    let world = left_condemned().await;
    assert!(world.has(&plain("old")).await);
    let reference = Reference::Digest(digest(&plain("old")));
    assert!(world.sound.head_manifest(&repository(), &reference).await.is_ok());
    world.walk(&[Rule { keep_last: None, ..untagged(90) }]).await;
    assert_eq!(condemned(&world).await, 0);
    assert!(world.has(&plain("old")).await);

    let world = left_condemned().await;
    push(&world.sound, "i", &index_of("i", &plain("old"))).await.unwrap();
    world.walk(&pruning()).await;
    assert!(world.has(&plain("old")).await);
}
