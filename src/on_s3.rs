//! The registry on the S3 driver, on a server in this process: pushes, pulls and deletes, also where answers get lost.

mod redirects;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use hyper::StatusCode;

use crate::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{self, Chunk, PageRequest, Push, Registry, SCRATCH_KEYS, Settings, Whole},
    store::{
        ErrorKind, Span, Store, Verb,
        metered::Metered,
        s3::testing::{Fault, Operation, Quirks, Server},
    },
};

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

struct Client {
    registry: Arc<Registry>,
    name: Repository,
}

impl Client {
    /// A blob in one request, or in chunks of a few bytes: a part is five.
    async fn push(&self, bytes: &'static [u8], chunk: Option<usize>) -> registry::Result<Digest> {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let Some(chunk) = chunk else {
            assert_eq!(self.registry.upload_whole(&self.name, &digest, body(0, bytes)).await?, Whole::Stored);
            return Ok(digest);
        };
        let id = self.registry.start_upload(&self.name, Algorithm::Sha256);
        let mut sent = 0;
        for piece in bytes.chunks(chunk) {
            let progress = self.registry.append(&self.name, id, body(sent, piece)).await?;
            sent += piece.len() as u64;
            assert_eq!(progress.received, sent);
        }
        self.registry.finish(&self.name, id, &digest, body(sent, b"")).await?;
        Ok(digest)
    }

    async fn pull(&self, digest: &Digest) -> registry::Result<Vec<u8>> {
        let blob = self.registry.find_blob(&self.name, digest).await?;
        let body = self.registry.read_blob(&blob, Span::ALL).await?;
        let chunks: Vec<Bytes> = body.into_stream().try_collect().await?;
        Ok(chunks.concat())
    }

    /// All that a client does in its life.
    async fn live(&self) -> registry::Result<()> {
        let blobs = [(&b"config"[..], None), (b"0123456789abcdefghij", None), (b"in chunks, of many parts", Some(7))];
        let mut pushed = Vec::new();
        for (bytes, chunk) in blobs {
            let digest = self.push(bytes, chunk).await?;
            assert_eq!(self.pull(&digest).await?, bytes);
            pushed.push((digest, bytes.len()));
        }
        let manifest = image(pushed[0], &pushed[1..]);
        let tag = Reference::Tag(Tag::parse("v1.0-rc").unwrap());
        let push = Push {
            target: tag.clone(),
            tags: Vec::new(),
            content_type: Some(MEDIA_TYPE.into()),
            bytes: manifest.clone().into(),
            condition: None,
        };
        let digest = self.registry.put_manifest(&self.name, push).await?.digest;
        for reference in [&tag, &Reference::Digest(digest)] {
            let (head, bytes) = self.registry.manifest(&self.name, reference).await?;
            assert_eq!((head.digest, bytes), (digest, Bytes::from(manifest.clone())));
        }
        let tags = self.registry.tags(&self.name, &PageRequest::default()).await?;
        assert_eq!(tags.items.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1.0-rc"]);
        self.registry.delete_manifest(&self.name, &digest).await?;
        assert!(matches!(self.registry.manifest(&self.name, &tag).await, Err(registry::Error::ManifestUnknown)));
        assert_eq!(self.registry.tags(&self.name, &PageRequest::default()).await?.items, []);
        self.registry.delete_blob(&self.name, &pushed[0].0).await?;
        assert!(matches!(self.pull(&pushed[0].0).await, Err(registry::Error::BlobUnknown(_))));
        self.registry.settle().await;
        Ok(())
    }
}

fn body(start: u64, bytes: &'static [u8]) -> Chunk {
    let length = Some(bytes.len() as u64);
    Chunk { start: Some(start), declared: None, length, body: Box::pin(stream::iter([Ok(Bytes::from_static(bytes))])) }
}

/// An image of a config and layers, with their sizes.
fn image(config: (Digest, usize), layers: &[(Digest, usize)]) -> String {
    let descriptor = |(digest, size): &(Digest, usize)| {
        format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{size}}}"#)
    };
    let layers: Vec<String> = layers.iter().map(descriptor).collect();
    let (config, layers) = (descriptor(&config), layers.join(","));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE}","config":{config},"layers":[{layers}]}}"#)
}

async fn client(server: &Server) -> (Client, Arc<Metered>) {
    client_of(Arc::new(server.store().await)).await
}

async fn client_of(store: Arc<dyn Store>) -> (Client, Arc<Metered>) {
    let store = Arc::new(Metered::new(store));
    let registry = Registry::open(Arc::<Metered>::clone(&store), Settings::default()).await.unwrap();
    (Client { registry, name: Repository::parse("library/some-image").unwrap() }, store)
}

#[tokio::test]
async fn a_client_lives_well_on_every_kind_of_store_and_each_call_is_one_request() {
    for quirks in [Quirks::S3, Quirks::MINIO, Quirks::SEAWEED] {
        let server = Server::start(quirks).await;
        let (client, store) = client(&server).await;
        store.take();
        server.take_calls();
        client.live().await.unwrap();
        let mut expected = BTreeMap::new();
        for (verb, count) in store.take().calls {
            *expected.entry(request(verb)).or_default() += count;
        }
        assert_eq!(server.take_calls(), expected);
    }
}

/// What a verb asks of S3.
fn request(verb: Verb) -> Operation {
    match verb {
        Verb::Read | Verb::Open => Operation::Get,
        Verb::Head => Operation::Head,
        Verb::Put => Operation::Put,
        Verb::Delete | Verb::DeleteIf => Operation::Delete,
        Verb::List => Operation::List,
        Verb::Begin => Operation::Begin,
        Verb::PutPart => Operation::Part,
        Verb::Complete => Operation::Complete,
        Verb::Abort => Operation::Abort,
        Verb::SyncParts => Operation::Other,
    }
}

#[tokio::test]
async fn whichever_answer_gets_lost_the_client_does_not_notice() {
    for (operation, nth) in requests_of_a_life().await {
        let server = Server::start(Quirks::MINIO).await;
        let (client, _) = client(&server).await;
        server.fail_later(operation, nth, &Fault::Unanswered);
        client.live().await.unwrap_or_else(|error| panic!("{operation:?} {nth}: {error:?}"));
    }
}

#[tokio::test]
async fn a_store_that_throttles_makes_clients_wait_and_not_give_up() {
    let server = Server::start(Quirks::S3).await;
    let (client, _) = client(&server).await;
    server.fail(Operation::Get, &Fault::SLOW_DOWN, 4);
    let error = client.pull(&Digest::of(Algorithm::Sha256, b"")).await.unwrap_err();
    assert!(matches!(error, registry::Error::Throttled(_)), "{error:?}");
    // Of a write it is settled whether it happened.
    server.fail(Operation::Put, &Fault::SLOW_DOWN, 4);
    client.live().await.unwrap();
}

#[tokio::test]
async fn a_client_lives_well_on_every_store_that_the_driver_had_to_find_out_about() {
    for quirks in [Quirks::S3, Quirks::MINIO, Quirks::SEAWEED] {
        let server = Server::start(quirks).await;
        let store = server.unknown_store().await.reliable(SCRATCH_KEYS, false).await.unwrap();
        client_of(store).await.0.live().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_unless_a_single_writer_is_taken_for_granted() {
    let server = Server::start(Quirks::GARAGE).await;
    let refused = server.unknown_store().await.reliable(SCRATCH_KEYS, false).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("would overwrite the tags") && refused.contains("--single-writer"), "{refused}");
    let store = server.unknown_store().await.reliable(SCRATCH_KEYS, true).await.unwrap();
    client_of(store).await.0.live().await.unwrap();
}

#[tokio::test]
async fn an_object_that_the_store_refuses_keeps_no_other_from_being_served() {
    let server = Server::start(Quirks::S3).await;
    let store = server.unknown_store().await.reliable(SCRATCH_KEYS, false).await.unwrap();
    let (client, _) = client_of(store).await;
    server.fail(Operation::Get, &Fault::Refused(StatusCode::FORBIDDEN, ""), 20);
    for _ in 0..20 {
        assert_eq!(client.registry.ready().await, Err(ErrorKind::Refused));
    }
    client.live().await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_away_serves_again_by_itself() {
    let server = Server::start(Quirks::S3).await;
    let store = server.unknown_store().await.reliable(SCRATCH_KEYS, false).await.unwrap();
    let (client, _) = client_of(store).await;
    server.fail(Operation::Get, &Fault::Refused(StatusCode::INTERNAL_SERVER_ERROR, ""), 4 * 5);
    for _ in 0..5 {
        assert_eq!(client.registry.ready().await, Err(ErrorKind::Unavailable));
    }
    // The breaker is open; the next to be let through closes it.
    while client.registry.ready().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.live().await.unwrap();
}

async fn requests_of_a_life() -> Vec<(Operation, usize)> {
    let server = Server::start(Quirks::MINIO).await;
    let (client, _) = client(&server).await;
    server.take_calls();
    client.live().await.unwrap();
    let calls = server.take_calls();
    calls
        .into_iter()
        .flat_map(|(operation, count)| (0..usize::try_from(count).unwrap()).map(move |nth| (operation, nth)))
        .collect()
}
