//! Two collectors, each stopped anywhere.

use marina_distribution::{registry::Collector, store::faulty::Fault};

use crate::{
    content::{Doc, push},
    world::World,
};

/// How many of the calls of the second collector are tried with each of the first.
const OTHER: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Second {
    /// It makes so many whole rounds.
    Works(u64),
    /// It is stopped before this call as well, and goes on before the first.
    GoesOnFirst(usize),
    /// It is stopped as well, and goes on after the first.
    GoesOnLast(usize),
}

async fn finish(world: &World) -> Result<(), String> {
    world.is_sound().await?;
    world.rounds(3, 25).await?;
    for (repository, blob) in [("a", "kept"), ("b", "shared")] {
        world.reads(repository, blob).await?;
        let again = push(&world.sound, repository, Some("again"), Doc::Image(blob)).await;
        again.map_err(|error| format!("{error:?}"))?;
    }
    world.ends_empty().await
}

/// The first is stopped before call `at` of a round that comes after so many sound ones. `false`: it makes fewer.
async fn trial(before: u64, at: usize, second: Second) -> Result<bool, String> {
    let world = World::with_garbage().await;
    world.rounds(before, 2).await?;
    world.forward(2);
    let (one, other) = (world.replica().await, world.replica().await);
    let round = |collector: Collector| async move { collector.round().await.map(drop) };
    let Ok(stopped) = one.stop(at, round(one.collector())).await else { return Ok(false) };
    let failed = |error| format!("{error:?}");
    match second {
        Second::Works(rounds) => {
            world.rounds(rounds, 2).await?;
            one.release(stopped).await.map_err(failed)?;
        }
        Second::GoesOnFirst(at) => {
            if let Ok(task) = other.stop(at, round(other.collector())).await {
                other.release(task).await.map_err(failed)?;
            }
            one.release(stopped).await.map_err(failed)?;
        }
        Second::GoesOnLast(at) => {
            let task = other.stop(at, round(other.collector())).await;
            one.release(stopped).await.map_err(failed)?;
            if let Ok(task) = task {
                other.release(task).await.map_err(failed)?;
            }
        }
    }
    finish(&world).await?;
    Ok(true)
}

/// The calls of the round that comes after so many sound ones.
async fn calls(before: u64) -> usize {
    let world = World::with_garbage().await;
    world.rounds(before, 2).await.unwrap();
    world.forward(2);
    let replica = world.replica().await;
    replica.plan(|_| Fault::None);
    replica.collector().round().await.unwrap();
    replica.calls().len()
}

#[tokio::test(start_paused = true)]
async fn of_two_collectors_that_stall_anywhere_and_go_on_in_any_order_neither_takes_what_is_needed() {
    let (mut trials, mut failures) = (0, Vec::new());
    for before in 0..4 {
        let calls = calls(before).await;
        // Spread over its round, and others with each call of the first.
        let others = |at: usize| (0..OTHER).map(move |n| (at * 5 + n * calls.div_ceil(OTHER)) % calls);
        for at in 0..calls {
            let works = [1, 4].map(Second::Works);
            let both = others(at).flat_map(|other| [Second::GoesOnFirst(other), Second::GoesOnLast(other)]);
            for second in works.into_iter().chain(both) {
                trials += 1;
                match trial(before, at, second).await {
                    Ok(true) => {}
                    Ok(false) => unreachable!("a round has {calls} calls"),
                    Err(failure) => failures.push(format!("after {before}, before call {at}, {second:?}: {failure}")),
                }
            }
        }
    }
    println!("{trials} trials");
    assert!(failures.is_empty(), "{} failures: {}", failures.len(), failures.join("\n"));
}
