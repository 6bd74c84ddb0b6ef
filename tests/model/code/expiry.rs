//! What was begun and never ended, two days later.

use super::*;
use crate::{
    process::Process,
    programs::{EXPIRED, FINISHED},
    world::{GHOST, of_session},
};

/// A reference in flight whose process is number 5 and dead.
fn died(start: Start, announced: Announced) -> Scenario {
    alone(start.announced(), Op::Expire { process: GHOST, tries: 0 }).dead(announced)
}

#[tokio::test(start_paused = true)]
async fn expiries_are_as_modelled() {
    let attempt = Announced::Blob { repo: 0, blob: 0, brings: Brings::Attempt };
    // Its bytes were put, its record was not.
    let code = Code::new().await;
    let dying = code.dying(2).await;
    dying.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await.unwrap_err();
    let start = Start::empty().attempted();
    same("an upload that died", &died(start, attempt), &[], code.expire().await);
    let code = Code::with_blob().await;
    code.registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await.unwrap();
    let mounted = Announced::Blob { repo: 1, blob: 0, brings: Brings::Nothing };
    same("a mount", &died(blob().holder(1, 0, Is::Live), mounted), &[], code.expire().await);

    let pushed = Announced::Manifest { repo: 0, manifest: D };
    // After the reads, the reference in flight, the look: before its manifest, and after it.
    for (calls, start) in [(4, blob()), (6, blob().manifest(D, Is::Live, 0).put(Key::Catalog(0), Is::Live, 0))] {
        let code = Code::with_blob().await;
        code.dying(calls).await.put_manifest(&repo("a"), push(image(true), &[])).await.unwrap_err();
        let scenario = died(start, pushed).with_subject();
        same(&format!("a push that died after {calls} calls"), &scenario, &[], code.expire().await);
    }
}

const EXPIRE_SESSION: Op = Op::ExpireSession { session: 0, blob: 0 };

#[tokio::test(start_paused = true)]
async fn expiries_of_sessions_are_as_modelled() {
    let code = Code::new().await;
    code.session(PARTS).await;
    same("a session", &alone(Start::empty().session(0), EXPIRE_SESSION), &[], code.expire().await);
    let marked = Start::empty().put(Key::End(0), Is::Live, EXPIRED);
    same("what is left of it, long after", &alone(marked, Op::RemoveMark(0)), &[], code.expire_at(96).await);

    let code = Code::new().await;
    let id = code.session(PARTS).await;
    code.registry.cancel_upload(&repo("a"), id).await.unwrap();
    let cancelled = alone(Start::empty().session(0).put(Key::End(0), Is::Live, 0), EXPIRE_SESSION);
    same("a cancelled one", &cancelled, &[], code.expire().await);

    let code = Code::new().await;
    let id = code.registry.start_upload(&repo("a"), Algorithm::Sha256);
    code.registry.finish(&repo("a"), id, &digest(BLOB), chunk(BLOB)).await.unwrap();
    // No round looks at it, but the one that removes it.
    let small = alone(blob().put(Key::End(0), Is::Live, FINISHED), Op::RemoveMark(0));
    same("a finished one without parts, long after", &small, &[], code.clean().await.expire_at(96).await);
}

#[tokio::test(start_paused = true)]
async fn expiries_of_finished_sessions_are_as_modelled() {
    let Key::Data(data) = of_session(0) else { panic!("it is of a session") };
    let open = Start::empty().session(0);
    let complete = Start::empty().put(Key::Journal(0), Is::Live, 0).put(of_session(0), Is::Live, 0);
    let recorded = complete.put(Key::Record(0), Is::Live, data);
    let held = recorded.put(Key::Holder { repo: 0, blob: 0 }, Is::Live, data);
    // A cold finisher that dies after it has taken the end, completed the bytes, recorded them; and one that does not.
    for (calls, start) in [(4, open), (5, complete), (6, recorded), (7, held)] {
        let code = Code::new().await;
        let id = code.session(PARTS).await;
        let finished = code.dying(calls).await.finish(&repo("a"), id, &digest(PARTS), chunk(b"")).await;
        assert_eq!(finished.is_ok(), calls == 7);

        // The round that meets the reference in flight leaves the bytes, and gives up the reference.
        let brings = Announced::Blob { repo: 0, blob: 0, brings: Brings::Session(0) };
        let mut first = died(start.put(Key::End(0), Is::Live, FINISHED), brings).tries(1);
        first.processes.insert(0, Process { op: EXPIRE_SESSION, wrong: None });
        same(&format!("a finisher, {calls} calls"), &first, &[], code.expire().await);
        // The bytes go with the next one, if nothing names them.
        let next = alone(start.put(Key::End(0), Is::Live, EXPIRED | FINISHED), EXPIRE_SESSION);
        same(&format!("a finisher, {calls} calls, the next round"), &next, &[], code.expire().await);
    }
}
