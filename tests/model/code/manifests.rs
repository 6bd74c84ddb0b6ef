//! Pushes of manifests, and deletes of them and of tags.

use marina_distribution::registry::{Retained, Retainer, Rule};

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

/// What retention does about one manifest from where it condemns it on. It looks through what can be put back as well, which
/// only spares more; and it has read the manifest once before, to judge it.
async fn retire(code: &Code, script: Script) -> (Rounds, Outcome) {
    let retains = async |registry: &Arc<Registry>| {
        let repositories = vec![glob::Pattern::new("**").unwrap()];
        let rule = Rule { repositories, untagged_older: Some(Duration::from_hours(1)), ..Rule::default() };
        match Retainer::new(Arc::clone(registry), vec![rule]).walk().await {
            Ok(Retained { manifests: 1, .. }) => Outcome::Acknowledged,
            Ok(Retained { spared: 1, .. }) => Outcome::Refused,
            Ok(done) => panic!("{done:?}"),
            Err(error) => ends::<()>(&Err(error)),
        }
    };
    let (rounds, outcome) = Code::at(48, code.below.clone()).await.run(script, retains).await;
    let looks = |round: &Vec<Step>| *round == [("list", "trash")];
    let judged = rounds.iter().position(looks).unwrap();
    (rounds.into_iter().skip(judged).filter(|round| !looks(round)).collect(), outcome)
}

#[tokio::test(start_paused = true)]
async fn manifests_are_retired_as_modelled() {
    let scripts: [(Script, Script); 11] = [
        (&[], &[]),
        (&[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))], &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Live))]),
        (&[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))], &[(PUT_MANIFEST, 0, Meddle::Rewritten(Is::Deleted))]),
        (&[(PUT_MANIFEST, 0, Meddle::ReplyLost)], &[(PUT_MANIFEST, 0, Meddle::ReplyLost)]),
        (&[(PUT_MANIFEST, 0, Meddle::NotApplied)], &[(PUT_MANIFEST, 0, Meddle::NotApplied)]),
        (&[(PUT_MANIFEST, 1, Meddle::Rewritten(Is::Live))], &[(PUT_MANIFEST, 1, Meddle::Rewritten(Is::Live))]),
        (
            &[(PUT_MANIFEST, 1, Meddle::Rewritten(Is::Condemned))],
            &[(PUT_MANIFEST, 1, Meddle::Rewritten(Is::Condemned))],
        ),
        (&[(PUT_MANIFEST, 1, Meddle::ReplyLost)], &[(PUT_MANIFEST, 1, Meddle::ReplyLost)]),
        (&[(READ_MANIFEST, 1, Meddle::Rewritten(Is::Live))], &[(READ_MANIFEST, 2, Meddle::Rewritten(Is::Live))]),
        (
            &[(READ_MANIFEST, 1, Meddle::Rewritten(Is::Condemned))],
            &[(READ_MANIFEST, 2, Meddle::Rewritten(Is::Condemned))],
        ),
        (&[(READ_MANIFEST, 2, Meddle::Rewritten(Is::Live))], &[(READ_MANIFEST, 3, Meddle::Rewritten(Is::Live))]),
    ];
    let listed = || Start::image().put(Key::Catalog(0), Is::Live, 0);
    for (script, of_code) in scripts {
        let code = Code::with_image(false, &[]).await;
        same(&format!("{script:?}"), &alone(listed(), Op::CollectManifest(D)), script, retire(&code, of_code).await);
    }
    let code = Code::with_image(false, &[]).await.manifest(Is::Condemned).await;
    let condemned = Start::empty().blob(0).manifest(D, Is::Condemned, 0).put(Key::Catalog(0), Is::Live, 0);
    same("condemned before", &alone(condemned, Op::CollectManifest(D)), &[], retire(&code, &[]).await);
}
