//! Any sequence of requests to two replicas has the answers that a registry of a few maps in memory gives: the same status,
//! the same headers, the same bytes.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod answer;
mod ask;
mod content;
mod download;
mod draw;
mod registry;
mod session;

use std::{cell::RefCell, collections::BTreeSet, env, sync::Arc};

use axum::{Router, body::Body, http::Request};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use marina_distribution::{
    http,
    registry::{Registry, Settings},
    store::{Store, memory::MemoryStore},
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use answer::Answer;
use ask::{Ask, At, Name};
use content::BLOBS;
use draw::{asks, upload};
use registry::Reference;

/// How many sequences, unless `REFERENCE_CASES` says otherwise, and how long they are at most.
const CASES: u32 = 300;
const LONGEST: usize = 60;

async fn send(router: &TowerToHyperService<Router>, request: Request<Body>) -> Answer {
    Answer::read(router.call(request).await.unwrap()).await
}

/// Which kinds of requests had which statuses.
type Seen = RefCell<BTreeSet<(String, u16)>>;
/// How many there are at least in all sequences, or they no longer come to what they should.
const KINDS: usize = 38;

/// Sends all of them, each to the replica that is named beside it, after the uploads that most manifests need; and compares
/// each answer.
async fn compare(is_stocked: bool, asks: Vec<(usize, Ask)>, seen: &Seen) -> Result<(), TestCaseError> {
    let upload = |blob| Ask::Start { repository: 0, mount: None, whole: Some((Name::Blob(blob), blob)), hint: None };
    let stock = (0..BLOBS.len()).map(|blob| (0, upload(blob))).filter(|_| is_stocked);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let open = || Registry::open(Arc::clone(&store), Settings::default());
    let registries = [open().await.unwrap(), open().await.unwrap()];
    let routers = registries
        .each_ref()
        .map(|it| TowerToHyperService::new(http::router(Arc::clone(it), http::Settings::default())));
    let mut reference = Reference::default();
    for (replica, ask) in stock.chain(asks) {
        let nowhere = At { url: String::new(), offset: 0, whole: Vec::new() };
        let at = match ask.session().map(|index| reference.sessions.get(index)) {
            // No session of that number was started.
            Some(None) => continue,
            Some(Some(session)) => session.at(ask.chunk()),
            None => nowhere,
        };
        let request = ask.request(&at);
        let line = format!("{} {}", request.method(), request.uri());
        let mut expected = reference.answer(&ask);
        let answer = send(&routers[replica], request).await;
        if let Some(session) = reference.sessions.last_mut().filter(|session| session.id.is_empty()) {
            answer.header("docker-upload-uuid").unwrap_or_default().clone_into(&mut session.id);
            for (_, value) in &mut expected.headers {
                *value = value.replace("{id}", &session.id);
            }
        }
        let kind = format!("{ask:?}").split(' ').next().unwrap_or_default().to_owned();
        seen.borrow_mut().insert((kind, answer.status));
        let location = answer.header("location").map(ToOwned::to_owned);
        prop_assert_eq!(answer, expected, "{}: {:?}", line, ask);
        // Of whatever pieces a blob was made, the other replica has the very bytes.
        if let Some((url, bytes)) = location.and_then(|url| reference.bytes_at(&url).map(|bytes| (url, bytes))) {
            let read = send(&routers[1 - replica], Request::get(&url).body(Body::empty()).unwrap()).await;
            prop_assert_eq!((read.status, &*read.body), (200, bytes), "{}: {:?}", line, ask);
        }
    }
    for registry in registries {
        registry.settle().await;
    }
    Ok(())
}

#[test]
fn any_requests_have_the_answers_of_a_registry_of_a_few_maps() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = env::var("REFERENCE_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let seen = Seen::default();
    let sequences = prop_oneof![
        3 => (prop::bool::weighted(0.8), vec((0..2_usize, asks()), 1..LONGEST)),
        2 => (Just(false), upload()),
    ];
    let compared = TestRunner::new(config)
        .run(&sequences, |(is_stocked, asks)| runtime.block_on(compare(is_stocked, asks, &seen)));
    compared.unwrap_or_else(|why| panic!("{why}"));
    let seen = seen.into_inner();
    assert!(seen.len() >= KINDS, "only {seen:?}");
}
