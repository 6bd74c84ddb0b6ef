//! Trouble at each call of a round, and of a walk.

use marina_distribution::{
    registry::{Collector, Settings},
    store::{
        Condition, Key, Store, Verb,
        faulty::{Call, Fault},
    },
};

use crate::{
    content::{Doc, digest, push, repo, upload},
    world::World,
};

/// How many further calls are applied before a late request arrives; the last means at the very end.
const LATE: [usize; 3] = [1, 4, usize::MAX];
/// Bytes of a session and of an attempt, which nothing names.
const STRAYS: [&str; 2] = [
    "data/10/019b0000-0000-4000-8000-000000000010",
    "data/11/019b0000-0000-4000-8000-000000000011-019b0000-0000-4000-8000-000000000012",
];

/// What gets into trouble.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// One round, after so many sound ones.
    Round(u64),
    /// A walk through a store of which all queues are lost, and a record and bytes that were to come; and the round after
    /// that.
    Walk,
}

impl Work {
    async fn world(self) -> World {
        let world = World::with_garbage().await;
        match self {
            Self::Round(before) => world.rounds(before, 2).await.unwrap(),
            Self::Walk => {
                for queue in ["pending/", "dropped/", "gc/"] {
                    world.remove(queue).await;
                }
                for stray in STRAYS {
                    world.memory.put(&Key::parse(stray).unwrap(), "stray".into(), Condition::Create).await.unwrap();
                }
            }
        }
        world.forward(2);
        world
    }

    async fn run(self, collector: &Collector) {
        // It may fail: the next goes on.
        if let Self::Walk = self
            && collector.walk(&mut |_| {}).await.is_err()
        {
            return;
        }
        drop(collector.round().await);
    }
}

/// With trouble; then what is needed is there, and nothing else stays.
async fn trial(work: Work, trouble: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Result<Vec<Call>, String> {
    let world = work.world().await;
    let replica = world.replica().await;
    replica.plan(trouble);
    work.run(&replica.collector()).await;
    let calls = replica.calls();
    replica.plan(|_| Fault::None);
    world.is_sound().await?;
    world.rounds(1, 2).await?;
    replica.deliver_late().await;
    world.is_sound().await?;
    if let Work::Walk = work {
        world.walk().await?;
    }
    world.rounds(3, 25).await?;
    for (repository, blob) in [("a", "kept"), ("b", "shared")] {
        world.reads(repository, blob).await?;
        let again = push(&world.sound, repository, Some("again"), Doc::Image(blob)).await;
        again.map_err(|error| format!("{error:?}"))?;
    }
    world.ends_empty().await?;
    Ok(calls)
}

/// A read that is late is one that failed.
fn is_write(call: &Call) -> bool {
    matches!(call.verb, Verb::Put | Verb::Delete | Verb::DeleteIf | Verb::Complete | Verb::Abort)
}

/// Tries every call of each of the rounds that the garbage takes, and of a walk.
async fn try_all(
    is_tried: impl Fn(&Call) -> bool,
    fault: impl Fn(usize, usize) -> Fault + Copy + Send + Sync + 'static,
) -> usize {
    let (mut failures, mut trials) = (Vec::new(), 0);
    for work in (0..4).map(Work::Round).chain([Work::Walk]) {
        let calls = trial(work, |_| Fault::None).await.unwrap();
        for (at, call) in calls.iter().enumerate().filter(|(_, call)| is_tried(call)) {
            trials += 1;
            if let Err(failure) = trial(work, move |index| fault(at, index)).await {
                failures.push(format!("call {at} of {work:?}, {call:?}: {failure}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures of {trials}: {}", failures.len(), failures.join("\n"));
    trials
}

#[tokio::test(start_paused = true)]
async fn whichever_call_is_lost_or_loses_its_reply_the_next_rounds_finish_and_take_nothing_needed() {
    for fault in [Fault::NotApplied, Fault::ReplyLost] {
        let trials = try_all(|_| true, move |at, index| if index == at { fault } else { Fault::None }).await;
        println!("{fault:?}: {trials} trials");
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_collector_dies_the_next_one_finishes_and_takes_nothing_needed() {
    let trials = try_all(|_| true, |at, index| if index >= at { Fault::NotApplied } else { Fault::None }).await;
    println!("{trials} deaths");
}

#[tokio::test(start_paused = true)]
async fn whichever_call_arrives_late_nothing_needed_is_taken_and_nothing_stays() {
    for after in LATE {
        let fault = Fault::AppliedLate { after };
        let trials = try_all(is_write, move |at, index| if index == at { fault } else { Fault::None }).await;
        println!("{fault:?}: {trials} trials");
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_call_arrives_again_nothing_needed_is_taken_and_nothing_stays() {
    for after in LATE {
        let fault = Fault::RepeatedLate { after };
        let trials = try_all(is_write, move |at, index| if index == at { fault } else { Fault::None }).await;
        println!("{fault:?}: {trials} trials");
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_round_stalls_who_was_told_that_a_blob_exists_can_push_and_keeps_it() {
    // The rounds that condemn it, and that take it when it has rested.
    for rested in [false, true] {
        for at in 0.. {
            let world = World::new(Settings::default()).await;
            let replica = world.replica().await;
            upload(&world.sound, "a", "orphan").await.unwrap();
            world.sound.settle().await;
            let told = world.sound.stat_blob(&repo("a"), &digest("orphan")).await.is_ok();
            assert!(told);
            world.forward(25);
            if rested {
                world.rounds(1, 0).await.unwrap();
                world.forward(25);
            }
            let told = world.sound.stat_blob(&repo("a"), &digest("orphan")).await.is_ok();
            assert_eq!(told, !rested, "what is condemned answers that it is absent");
            let collector = replica.collector();
            let stopped = replica.stop(at, async move { collector.round().await }).await;
            let pushed = push(&world.sound, "a", Some("t"), Doc::Image("orphan")).await;
            assert!(pushed.is_ok() || rested, "{at}: {pushed:?}");
            let is_over = stopped.is_err();
            if let Ok(task) = stopped {
                drop(replica.release(task).await);
            }
            world.is_sound().await.unwrap();
            world.rounds(12, 13).await.unwrap();
            if pushed.is_ok() {
                world.reads("a", "orphan").await.unwrap();
            }
            if is_over {
                break;
            }
        }
    }
}
