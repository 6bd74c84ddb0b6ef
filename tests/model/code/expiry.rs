//! What was begun and never ended, two days later.

use super::*;

/// A reference in flight whose process is number 5 and dead.
fn died(start: Start, announced: Announced) -> Scenario {
    alone(start.put(Key::Pending(20), Is::Live, 0), Op::Expire { process: 5, tries: 0 }).dead(announced)
}

#[tokio::test(start_paused = true)]
async fn expiries_are_as_modelled() {
    let attempt = Announced::Blob { repo: 0, blob: 0, brings: Brings::Attempt };
    // Its bytes were put, its record was not.
    let code = Code::new().await;
    let dying = code.dying(2).await;
    dying.upload_whole(&repo("a"), &digest(BLOB), chunk(BLOB)).await.unwrap_err();
    let start = Start::empty().put(Key::Data(24), Is::Live, 0);
    same("an upload that died", &died(start, attempt), &[], code.expire().await);
    let code = Code::with_blob().await;
    code.registry.mount(&repo("b"), &digest(BLOB), Some(&repo("a"))).await.unwrap();
    let mounted = Announced::Blob { repo: 1, blob: 0, brings: Brings::Nothing };
    same("a mount", &died(blob().holder(1, 0, Is::Live), mounted), &[], code.expire().await);

    let pushed = Announced::Manifest { repo: 0, manifest: D };
    // After the reads, the reference in flight, the look: before its manifest, and after it.
    for (calls, start) in [(4, blob()), (6, blob().manifest(D, Is::Live, 0).put(Key::Catalog, Is::Live, 0))] {
        let code = Code::with_blob().await;
        code.dying(calls).await.put_manifest(&repo("a"), push(image(true), &[])).await.unwrap_err();
        let scenario = died(start, pushed).with_subject();
        same(&format!("a push that died after {calls} calls"), &scenario, &[], code.expire().await);
    }

    let code = Code::new().await;
    code.session(PARTS).await;
    let expires = Op::ExpireSession { session: 0, blob: 0 };
    same("a session", &alone(Start::empty().session(0), expires), &[], code.expire().await);
}
