//! A store with some of everything, and the ways to damage it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{
        Chunk, Error, Push, Registry, SessionId, Settings,
        check::{Check, News, Summary, check},
    },
    store::{
        Condition, Key, Limits, Put, Store,
        memory::{MemoryStore, TINY_PARTS},
    },
};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

pub(crate) fn tag(name: &str) -> Reference {
    Reference::Tag(Tag::parse(name).unwrap())
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) fn body(bytes: &'static [u8]) -> Chunk {
    let body = Box::pin(stream::iter([Ok(Bytes::from_static(bytes))]));
    Chunk { start: None, declared: None, length: Some(bytes.len() as u64), body }
}

/// An image of one config and one layer of four bytes each.
pub(crate) fn image(config: &Digest, layer: &Digest, more: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"a/config","digest":"{config}","size":4}},"layers":[{{"mediaType":"a/layer","digest":"{layer}","size":4}}]{more}}}"#
    )
}

/// What makes an image a referrer.
pub(crate) fn subject(digest: &Digest) -> String {
    format!(r#","subject":{{"mediaType":"{IMAGE}","digest":"{digest}","size":1}}"#)
}

pub(crate) async fn push_blob(registry: &Arc<Registry>, name: &str, bytes: &'static [u8]) -> Result<Digest, Error> {
    let digest = sha256(bytes);
    registry.upload_whole(&repository(name), &digest, body(bytes)).await?;
    Ok(digest)
}

pub(crate) async fn push(registry: &Arc<Registry>, name: &str, target: Reference, text: &str) -> Result<Digest, Error> {
    let bytes = Bytes::from(text.to_owned());
    let push = Push { target, tags: Vec::new(), content_type: None, bytes, condition: None };
    registry.put_manifest(&repository(name), push).await.map(|pushed| pushed.digest)
}

pub(crate) fn blob_key(digest: &Digest, leaf: &str) -> String {
    let hex = digest.hex();
    format!("blobs/sha256/{}/{hex}/{leaf}", &hex[..2])
}

pub(crate) fn manifest_key(digest: &Digest) -> String {
    format!("repos/a/_manifests/sha256/{}", digest.hex())
}

/// A store with some of everything, made by a registry.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: Digest,
    pub(crate) layer: Digest,
    /// More than a part, so that it came as parts.
    pub(crate) large: Digest,
    pub(crate) image: Digest,
    pub(crate) index: Digest,
    pub(crate) signature: Digest,
    pub(crate) open: SessionId,
}

impl Fixture {
    pub(crate) async fn new(store: Arc<dyn Store>) -> Self {
        let registry = Registry::open(Arc::clone(&store), Settings::default()).await.unwrap();
        let name = repository("a");
        let config = push_blob(&registry, "a", b"conf").await.unwrap();
        let layer = push_blob(&registry, "a", b"layr").await.unwrap();
        let bytes: &'static [u8] = Box::leak(vec![7; 70_000].into_boxed_slice());
        let large = sha256(bytes);
        let session = registry.start_upload(&name, Algorithm::Sha256);
        registry.append(&name, session, body(bytes)).await.unwrap();
        registry.finish(&name, session, &large, body(b"")).await.unwrap();
        let open = registry.start_upload(&name, Algorithm::Sha256);
        registry.append(&name, open, body(b"123")).await.unwrap();
        registry.append(&name, open, body(b"456")).await.unwrap();
        let cancelled = registry.start_upload(&name, Algorithm::Sha256);
        registry.append(&name, cancelled, body(b"123")).await.unwrap();
        registry.cancel_upload(&name, cancelled).await.unwrap();

        let text = image(&config, &layer, "");
        let image_digest = push(&registry, "a", tag("latest"), &text).await.unwrap();
        push(&registry, "a", tag("v1"), &text).await.unwrap();
        let child = format!(r#"{{"mediaType":"{IMAGE}","digest":"{image_digest}","size":{}}}"#, text.len());
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{child}]}}"#);
        let index = push(&registry, "a", tag("multi"), &index).await.unwrap();
        let signature = image(&config, &layer, &subject(&image_digest));
        let signature =
            push(&registry, "a", Reference::Digest(sha256(signature.as_bytes())), &signature).await.unwrap();

        assert!(registry.mount(&repository("b-c/d"), &config, Some(&name)).await.unwrap());
        let sparse = Settings { allow_missing_references: true, ..Settings::default() };
        let sparse = Registry::open(Arc::clone(&store), sparse).await.unwrap();
        push(&sparse, "b-c/d", tag("sparse"), &text).await.unwrap();
        registry.settle().await;
        sparse.settle().await;
        Self { store, config, layer, large, image: image_digest, index, signature, open }
    }

    pub(crate) async fn in_memory() -> Self {
        let limits = Limits { min_part: 5000, part: 5000, ..TINY_PARTS };
        Self::new(Arc::new(MemoryStore::new(limits))).await
    }

    /// The same in a store of its own.
    pub(crate) async fn copy(&self) -> Arc<dyn Store> {
        let copy = MemoryStore::default();
        for entry in self.store.list("", None, usize::MAX).await.unwrap() {
            let found = self.store.read(&entry.key).await.unwrap().unwrap();
            copy.put(&entry.key, found.bytes, Condition::Create).await.unwrap();
        }
        Arc::new(copy)
    }

    pub(crate) fn entry(&self) -> String {
        format!("repos/a/_referrers/sha256/{}/sha256-{}", self.image.hex(), self.signature.hex())
    }

    /// Where the bytes of a blob are.
    pub(crate) async fn data(&self, digest: &Digest) -> String {
        let record = read(self.store.as_ref(), &blob_key(digest, "_")).await;
        record.split('"').find(|text| text.starts_with("data/")).unwrap().to_owned()
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub(crate) async fn read(store: &dyn Store, at: &str) -> String {
    let found = store.read(&key(at)).await.unwrap().unwrap_or_else(|| panic!("nothing at {at}"));
    String::from_utf8(found.bytes.to_vec()).unwrap()
}

pub(crate) async fn create(store: &dyn Store, at: &str, text: &str) {
    let put = store.put(&key(at), Bytes::from(text.to_owned()), Condition::Create).await.unwrap();
    assert_ne!(put, Put::Lost, "{at}");
}

/// How a store is damaged.
pub(crate) enum Damage {
    Remove(String),
    Create(String, String),
    /// Once, in the text that is there.
    Edit(String, String, String),
    /// A register's state, to this letter and no value.
    Bury(String, char),
}

pub(crate) async fn damage(store: &dyn Store, damage: &Damage) {
    let (at, text) = match damage {
        Damage::Remove(at) => {
            assert!(store.head(&key(at)).await.unwrap().is_some(), "nothing at {at}");
            return store.delete(&key(at)).await.unwrap();
        }
        Damage::Create(at, text) => return create(store, at, text).await,
        Damage::Edit(at, from, to) => {
            let text = read(store, at).await;
            assert!(text.contains(from.as_str()), "no {from} in {text}");
            (at, text.replacen(from, to, 1))
        }
        Damage::Bury(at, state) => (at, format!("{state}{}", &read(store, at).await[1..23])),
    };
    let found = store.read(&key(at)).await.unwrap().unwrap();
    store.put(&key(at), Bytes::from(text), Condition::Replace(found.version)).await.unwrap();
}

/// What a check says, as the lines of its report.
pub(crate) async fn told_by(check: Check) -> (Vec<String>, Summary) {
    let mut lines = Vec::new();
    let summary = check
        .run(|news| match news {
            News::Finding(finding) => lines.push(finding.to_string()),
            News::Mended(_) | News::UpTo(..) => {}
        })
        .await
        .unwrap();
    assert_eq!(summary.findings + summary.strays, lines.len() as u64);
    (lines, summary)
}

/// What `check` says, as the lines of its report.
pub(crate) async fn report(store: Arc<dyn Store>) -> (Vec<String>, Summary) {
    let mut lines = Vec::new();
    let summary = check(store, |finding| lines.push(finding.to_string())).await.unwrap();
    assert_eq!(summary.findings, lines.len() as u64);
    (lines, summary)
}
