//! Proof by faults. Nothing here is listed by hand but the requests: each is run once to see which store calls it makes,
//! and then again with trouble at each of them. What is right is not written down either: it is what the same requests
//! come to, one after the other, when nothing goes wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::cloned_ref_to_slice_refs, reason = "lists of one stand beside lists of several")]

mod operation;
mod races;
mod scenes;
mod single;
mod stalled;
mod walk;
mod world;

use marina_distribution::store::{
    Verb,
    faulty::{Call, Fault},
};
use operation::Op;
use races::Ring;
use single::{Stage, Trouble};
use stalled::{Race, Stop};
use world::LIMITS;

/// How many further calls are applied before a late request arrives; the last means at the very end.
const LATE: [usize; 4] = [1, 2, 5, usize::MAX];

/// What goes wrong with each call, once for each of these faults. A read leaves nothing behind: it fails, that is all.
fn each_call(calls: &[Call], faults: &[Fault]) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let is_read = matches!(call.verb, Verb::Read | Verb::Open | Verb::Head | Verb::List);
        let of_write = faults.iter().filter(|&&fault| !is_read || fault == Fault::NotApplied);
        troubles.extend(of_write.map(|&fault| Trouble::Call(at, fault)));
    }
    troubles
}

/// Tries every scene with the troubles that a request which makes such calls can have, and counts.
async fn try_all(troubles: impl Fn(&[Call]) -> Vec<Trouble>) -> usize {
    let (mut cases, mut failures) = (0, Vec::new());
    for scene in scenes::scenes() {
        let [of_s3, of_disk] = LIMITS;
        let stages = if scene.has_session() {
            vec![(of_s3, true), (of_s3, false), (of_disk, true)]
        } else {
            // A replica remembers nothing but sessions.
            vec![(of_s3, true), (of_disk, false)]
        };
        for (limits, warm) in stages {
            let stage = Stage { scene: &scene, limits, warm };
            let right = stage.right().await;
            for trouble in troubles(&right.calls) {
                cases += 1;
                if let Err(failure) = stage.trial(&right, &trouble).await {
                    failures.push(failure);
                    break;
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(failures.is_empty(), "{} failures, the first of each scene: {}", failures.len(), failures.join("\n\n"));
    cases
}

#[tokio::test(start_paused = true)]
async fn whichever_call_fails_or_loses_its_reply_nothing_acknowledged_is_lost_and_the_client_need_only_ask_again() {
    let cases = try_all(|calls| each_call(calls, &[Fault::NotApplied, Fault::ReplyLost])).await;
    assert!(cases > 3_000, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn whichever_failed_call_is_applied_late_nothing_acknowledged_is_lost_and_the_client_need_only_ask_again() {
    let late = LATE.map(|after| Fault::AppliedLate { after });
    let cases = try_all(|calls| each_call(calls, &late)).await;
    assert!(cases > 5_000, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn whichever_call_is_repeated_late_nothing_changes() {
    let late = LATE.map(|after| Fault::RepeatedLate { after });
    let cases = try_all(|calls| each_call(calls, &late)).await;
    assert!(cases > 5_000, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn wherever_the_process_dies_nothing_acknowledged_is_lost_and_another_goes_on() {
    let cases = try_all(|calls| (0..calls.len()).map(Trouble::Death).collect()).await;
    assert!(cases > 2_000, "{cases}");
}

/// Has each request of each ring race each of it, stopped before each of its calls, and counts.
async fn race_all(rings: Vec<Ring>) -> usize {
    let (mut cases, mut failures) = (0, Vec::new());
    for ring in rings {
        let [of_s3, of_disk] = LIMITS;
        let kinds = if ring.ops.iter().any(Op::is_of_session) { vec![of_s3, of_disk] } else { vec![of_s3] };
        for (stopped, limits) in ring.ops.iter().flat_map(|op| kinds.iter().map(move |&limits| (op, limits))) {
            for meanwhile in &ring.ops {
                let race = Race { before: &ring.before, stopped, meanwhile, limits };
                let right = race.right().await;
                'race: for at in 0..right.calls {
                    for stop in [Stop::Call, Stop::Process] {
                        match race.run(&right, stop, at).await {
                            Ok(ran) => cases += usize::from(ran),
                            Err(failure) => {
                                failures.push(failure);
                                break 'race;
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(failures.is_empty(), "{} failures, the first of each race: {}", failures.len(), failures.join("\n\n"));
    cases
}

#[tokio::test(start_paused = true)]
async fn wherever_an_upload_mount_or_delete_stalls_while_another_runs_it_is_as_if_one_came_after_the_other() {
    let cases = race_all(races::blobs()).await;
    assert!(cases > 2_000, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn wherever_a_request_of_a_session_stalls_while_another_runs_it_is_as_if_one_came_after_the_other() {
    let cases = race_all(races::sessions()).await;
    assert!(cases > 2_000, "{cases}");
}

#[tokio::test(start_paused = true)]
async fn wherever_a_push_or_delete_stalls_while_another_runs_it_is_as_if_one_came_after_the_other() {
    let cases = race_all(races::manifests()).await;
    assert!(cases > 4_000, "{cases}");
}
