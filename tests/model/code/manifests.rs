//! Pushes of manifests, and deletes of them and of tags.

use super::*;

#[tokio::test(start_paused = true)]
async fn pushes_are_as_modelled() {
    let one = || push(image(false), &["t"]);
    same("new", &alone(blob(), pushes(D, 1)), &[], Code::with_blob().await.push(&[], one()).await);
    same("blob unknown", &alone(Start::empty(), pushes(D, 1)), &[], Code::new().await.push(&[], one()).await);
    let code = Code::with_blob().await.holder(Is::Condemned).await;
    same(
        "holder condemned",
        &alone(blob().holder(0, 0, Is::Condemned), pushes(D, 1)),
        &[],
        code.push(&[], one()).await,
    );
    let both = push(image(false), &["t", "u"]);
    same("two tags", &alone(blob(), pushes(D, 3)), &[], Code::with_blob().await.push(&[], both).await);

    let listed = Start::tagged().put(Key::Catalog(0), Is::Live, 0);
    let scripts: [Script; 17] = [
        &[],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_MANIFEST, 0, Meddle::NotApplied)],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost)],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Deleted)), (READ_MANIFEST, 1, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_TAG, 0, Meddle::ReplyLost)],
        &[(PUT_TAG, 0, Meddle::Moved { on_condition: false })],
        &[(PUT_TAG, 0, Meddle::Moved { on_condition: true })],
        // Unclear: it may have happened before what is read back.
        &[(PUT_TAG, 0, Meddle::ReplyLost), (READ_TAG, 1, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_TAG, 0, Meddle::NotApplied), (READ_TAG, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::ReplyLost), (READ_TAG, 1, Meddle::Moved { on_condition: false })],
        &[(PUT_TAG, 0, Meddle::ReplyLost), (READ_TAG, 1, Meddle::Moved { on_condition: true })],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost), (READ_MANIFEST, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost), (READ_MANIFEST, 1, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_PENDING, 0, Meddle::ReplyLost)],
    ];
    for script in scripts {
        let code = Code::with_image(false, &["t"]).await;
        same(&format!("again, {script:?}"), &alone(listed, pushes(D, 1)), script, code.push(script, one()).await);
    }
    let refused = Push {
        target: Reference::Tag(Tag::parse("t").unwrap()),
        condition: Some(TagCondition::Absent),
        ..push(image(false), &[])
    };
    let op = Op::Push(Job { repo: 0, manifest: D, tags: 1, condition: Some(u8::MAX) });
    same("condition", &alone(listed, op), &[], Code::with_image(false, &["t"]).await.push(&[], refused).await);

    let referrer = || push(image(true), &["t"]);
    let with_subject = |start| alone(start, pushes(D, 1)).with_subject();
    same("referrer", &with_subject(blob()), &[], Code::with_blob().await.push(&[], referrer()).await);
    let script: Script = &[(("put", "entry"), 0, Meddle::Rewritten(Is::Deleted))];
    let code = Code::with_image(true, &["t"]).await;
    same("referrer, entry gone", &with_subject(listed.entry()), script, code.push(script, referrer()).await);

    let code = Code::with_image(false, &[]).await.manifest(Is::Condemned).await;
    let start = blob().manifest(D, Is::Condemned, 0).put(Key::Catalog(0), Is::Live, 0);
    same("index of a condemned child", &alone(start, pushes(INDEX, 0)), &[], code.push(&[], push(index(), &[])).await);
}

#[tokio::test(start_paused = true)]
async fn deletes_are_as_modelled() {
    let delete = Op::DeleteManifest(D);
    let scripts: [Script; 9] = [
        &[],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))],
        &[(READ_MANIFEST, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost)],
        // Unclear, of a tag and of the manifest: read all of it again.
        &[(PUT_TAG, 0, Meddle::ReplyLost), (READ_TAG, 1, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_MANIFEST, 0, Meddle::NotApplied), (READ_MANIFEST, 2, Meddle::Rewritten(Is::Live))],
        &[(PUT_MANIFEST, 0, Meddle::ReplyLost), (READ_MANIFEST, 2, Meddle::Rewritten(Is::Deleted))],
    ];
    for script in scripts {
        let code = Code::with_image(false, &["t"]).await;
        same(&format!("tagged, {script:?}"), &alone(Start::tagged(), delete), script, code.delete(script, false).await);
    }
    same("unknown", &alone(blob(), delete), &[], Code::with_blob().await.delete(&[], false).await);
    let both = Start::image().manifest(D, Is::Live, 3).tag(0, D).tag(1, D).entry();
    let code = Code::with_image(true, &["t", "u"]).await;
    same("a referrer of two tags", &alone(both, delete).with_subject(), &[], code.delete(&[], true).await);

    let scripts: [Script; 6] = [
        &[],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_TAG, 0, Meddle::NotApplied), (READ_TAG, 1, Meddle::Rewritten(Is::Live))],
        &[(PUT_TAG, 0, Meddle::ReplyLost), (READ_TAG, 1, Meddle::Rewritten(Is::Deleted))],
        &[(PUT_TAG, 0, Meddle::ReplyLost), (READ_TAG, 1, Meddle::Moved { on_condition: true })],
    ];
    for script in scripts {
        let code = Code::with_image(false, &["t"]).await;
        let tag = Tag::parse("t").unwrap();
        let done = code.run(script, async |registry| ends(&registry.delete_tag(&repo("a"), &tag).await)).await;
        same(&format!("tag, {script:?}"), &alone(Start::tagged(), Op::DeleteTag(0)), script, done);
    }
}
