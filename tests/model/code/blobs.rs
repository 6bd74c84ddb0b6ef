//! Uploads, sessions, mounts, and deletes of blobs.

use super::*;

#[tokio::test(start_paused = true)]
async fn uploads_are_as_modelled() {
    let new = Start::empty();
    same("new", &alone(new, UPLOAD), &[], Code::new().await.upload(&[]).await);
    same("there", &alone(blob(), UPLOAD), &[], Code::with_blob().await.upload(&[]).await);
    for is in [Is::Condemned, Is::Gone, Is::Deleted] {
        let code = Code::with_blob().await.holder(is).await;
        same(&format!("holder {is:?}"), &alone(blob().holder(0, 0, is), UPLOAD), &[], code.upload(&[]).await);
    }
    let code = Code::with_blob().await.holder(Is::Gone).await.record(Is::Condemned).await;
    let start = Start::empty().condemned_record(0).holder(0, 0, Is::Gone);
    same("record condemned", &alone(start, UPLOAD), &[], code.upload(&[]).await);
    let code = Code::with_blob().await.holder(Is::Gone).await.record(Is::Gone).await;
    let start = Start::empty().put(Key::Record(0), Is::Gone, 0).holder(0, 0, Is::Gone);
    same("all gone", &alone(start, UPLOAD), &[], code.upload(&[]).await);

    let scripts: [Script; 9] = [
        &[(PUT_RECORD, 0, Meddle::Fenced)],
        &[(PUT_HOLDER, 0, Meddle::Fenced)],
        &[(PUT_PENDING, 0, Meddle::NotApplied)],
        &[(PUT_RECORD, 0, Meddle::NotApplied)],
        &[(PUT_RECORD, 0, Meddle::ReplyLost)],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost)],
        &[(PUT_HOLDER, 0, Meddle::NotApplied), (PUT_HOLDER, 1, Meddle::ReplyLost)],
        // Unclear: it may have happened before what is read back.
        &[(PUT_HOLDER, 0, Meddle::ReplyLost), (READ_HOLDER, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost), (READ_HOLDER, 0, Meddle::Rewritten(Is::Live))],
    ];
    for script in scripts {
        same(&format!("new, {script:?}"), &alone(new, UPLOAD), script, Code::new().await.upload(script).await);
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_as_modelled() {
    let open = Start::empty().session(0);
    for (content, tail) in [(PARTS, false), (TAIL, true)] {
        let code = Code::new().await;
        let id = code.session(content).await;
        same("remembered", &alone(open, session(true, tail)), &[], code.finish(id, content).await);
        let code = Code::new().await;
        let id = code.session(content).await;
        let replica = Code::at(0, code.below.clone()).await;
        same("read", &alone(open, session(false, tail)), &[], replica.finish(id, content).await);
        // Once more, its reply having been lost.
        let again = Start::empty().session(0).put(Key::End(0), Is::Live, 1).blob(0);
        same("again", &alone(again, session(false, tail)), &[], replica.finish(id, content).await);
    }
    let code = Code::new().await;
    let id = code.registry.start_upload(&repo("a"), Algorithm::Sha256);
    let small = Op::Upload { repo: 0, blob: 0, from: From::Small { session: 0 } };
    let work =
        async |registry: &Arc<Registry>| ends(&registry.finish(&repo("a"), id, &digest(BLOB), chunk(BLOB)).await);
    same("small", &alone(Start::empty(), small), &[], code.run(&[], work).await);
}

#[tokio::test(start_paused = true)]
async fn mounts_are_as_modelled() {
    let mount = Op::Mount { from: 0, to: 1, blob: 0 };
    same("source there", &alone(blob(), mount), &[], Code::with_blob().await.mount(&[]).await);
    same("nothing there", &alone(Start::empty(), mount), &[], Code::new().await.mount(&[]).await);
    let code = Code::with_blob().await.holder(Is::Condemned).await;
    same("source condemned", &alone(blob().holder(0, 0, Is::Condemned), mount), &[], code.mount(&[]).await);
    let code = Code::with_blob().await.record(Is::Condemned).await;
    let start = Start::empty().condemned_record(0).holder(0, 0, Is::Live);
    same("record condemned", &alone(start, mount), &[], code.mount(&[]).await);
    let scripts: [Script; 5] = [
        &[(PUT_HOLDER, 0, Meddle::Fenced)],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost)],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost), (READ_HOLDER, 2, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost), (READ_HOLDER, 2, Meddle::Rewritten(Is::Live))],
        &[(PUT_PENDING, 0, Meddle::ReplyLost)],
    ];
    for script in scripts {
        same(&format!("{script:?}"), &alone(blob(), mount), script, Code::with_blob().await.mount(script).await);
    }
}

#[tokio::test(start_paused = true)]
async fn deletes_are_as_modelled() {
    let scripts: [Script; 5] = [
        &[],
        &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_HOLDER, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_HOLDER, 0, Meddle::NotApplied), (READ_HOLDER, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_HOLDER, 0, Meddle::ReplyLost), (READ_HOLDER, 1, Meddle::Rewritten(Is::Deleted))],
    ];
    for script in scripts {
        let code = Code::with_blob().await;
        let done =
            code.run(script, async |registry| ends(&registry.delete_blob(&repo("a"), &digest(BLOB)).await)).await;
        same(&format!("blob, {script:?}"), &alone(blob(), Op::DeleteBlob { repo: 0, blob: 0 }), script, done);
    }
}
