//! Manifests are looked at and read: by digest, and by following a tag.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Head, ManifestHead, SMALL_MANIFEST, StoredManifest};
use crate::{
    oci::{Digest, Reference, Repository},
    registry::{
        Error, Registry, Result, layout,
        nonce::Nonce,
        register::{Seen, State},
        verified,
    },
    store::{self, Body, ErrorKind, Key, Object, Span},
};

/// How much of a manifest register is read to know its head: state, nonce and the first line fit easily.
const HEAD_SPAN: u64 = 1024;
/// How many lines come before the manifest: state and nonce, its head, its links.
const LINES: usize = 3;

/// How often a tag is followed anew when the manifest that it pointed to went away meanwhile.
const FOLLOW: usize = 8;

impl Registry {
    pub async fn head_manifest(&self, repository: &Repository, reference: &Reference) -> Result<ManifestHead> {
        match reference {
            // The tag says it all: no manifest is gone while a tag points to it.
            Reference::Tag(tag) => {
                let target = layout::tag(repository, tag).read(self.store()).await?;
                let target = target.live().ok_or(Error::ManifestUnknown)?;
                Ok(ManifestHead { digest: target.digest, media_type: target.media_type.clone(), size: target.size })
            }
            Reference::Digest(digest) => {
                let peeked = self.peek_manifest(repository, digest).await?;
                self.there_or_forgotten(repository, digest, peeked)
            }
        }
    }

    /// A manifest and its exact bytes, compared with their digest.
    pub async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<(ManifestHead, Bytes)> {
        let (head, bytes) = self.open_manifest(repository, reference).await?;
        Ok((head, gather(bytes).await?))
    }

    /// A manifest, and its bytes for whoever passes them on. Those of a large one are too many to be held in memory for a
    /// client that may be slow, and are compared while they are read: if they are damaged they end with an error in the
    /// place of the last of them.
    pub async fn open_manifest(&self, repository: &Repository, reference: &Reference) -> Result<(ManifestHead, Body)> {
        let tag = match reference {
            Reference::Digest(digest) => {
                let read = self.open_by_digest(repository, digest).await?;
                return self.there_or_forgotten(repository, digest, read);
            }
            Reference::Tag(tag) => layout::tag(repository, tag),
        };
        let mut before = Seen::absent();
        for _ in 0..FOLLOW {
            let target = tag.read(self.store()).await?;
            if target.is_same(&before) {
                // No delete looks like that: it takes the tags first.
                return Err(Error::ManifestUnknown);
            }
            let digest = target.live().ok_or(Error::ManifestUnknown)?.digest;
            if let Some(found) = self.open_by_digest(repository, &digest).await? {
                return Ok(found);
            }
            // Deleted since the tag was read, and the tag with it, or moved: look again.
            before = target;
        }
        Err(Error::Busy)
    }

    /// What was read here before, for a request that the store gave no answer to; else, what became of the request. No
    /// name but the digest leads to these bytes, so they are the right ones; whether another replica deleted them since,
    /// only the store knows.
    pub fn remembered_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        failed: Error,
    ) -> Result<(ManifestHead, Bytes)> {
        match (reference, &failed) {
            (Reference::Digest(digest), Error::Store(_) | Error::Refused(_) | Error::Throttled(_)) => {
                self.manifests.get(repository, digest).ok_or(failed)
            }
            _ => Err(failed),
        }
    }

    fn there_or_forgotten<T>(&self, repository: &Repository, digest: &Digest, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| {
            self.manifests.forget(repository, digest);
            Error::ManifestUnknown
        })
    }

    async fn open_by_digest(&self, repository: &Repository, digest: &Digest) -> Result<Option<(ManifestHead, Body)>> {
        let ticket = self.manifests.ticket();
        let register = layout::manifest(repository, digest);
        let Some(object) = self.store().open(register.key(), Span::ALL).await? else { return Ok(None) };
        if object.size > SMALL_MANIFEST as u64 {
            return open_large(register.key(), digest, object).await;
        }
        let bytes = gather(object.body).await?;
        let damaged = |why: &str| store::Error::new(ErrorKind::Corrupt, format!("{}: {why}", register.key()));
        let (_, state) = State::<StoredManifest>::decode(&bytes).map_err(damaged)?;
        let Some(manifest) = state.into_present() else { return Ok(None) };
        if Digest::of(digest.algorithm(), &manifest.bytes) != *digest {
            return Err(damaged("not the bytes that its name says").into());
        }
        let head = manifest.head(digest);
        self.manifests.remember(ticket, repository, &head, &manifest.bytes);
        Ok(Some((head, Body::Bytes(manifest.bytes))))
    }

    /// Whether a manifest is there, with its size; lifted if it is condemned.
    pub(crate) async fn lift_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        let register = layout::manifest(repository, digest);
        let seen = register.read(self.store()).await?;
        Ok(register.lift(self.store(), seen).await?.map(|manifest| manifest.head.size))
    }

    /// The head of a manifest that is present, from the first bytes of its register.
    async fn peek_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Option<ManifestHead>> {
        let key = layout::manifest(repository, digest).key().clone();
        let Some(object) = self.store().open(&key, Span::first(HEAD_SPAN)).await? else { return Ok(None) };
        let bytes = gather(object.body).await?;
        if !is_present(&bytes) {
            return Ok(None);
        }
        Ok(Some(head_in(&key, digest, &bytes)?))
    }
}

/// Of a register that is too large to be read whole: its lines, and what follows them as a stream.
async fn open_large(key: &Key, digest: &Digest, object: Object) -> Result<Option<(ManifestHead, Body)>> {
    let damaged = |why: &str| store::Error::new(ErrorKind::Corrupt, format!("{key}: {why}"));
    let mut stream = object.body.into_stream();
    let mut lines = BytesMut::new();
    let end = loop {
        lines.extend_from_slice(&stream.try_next().await?.ok_or_else(|| damaged("ends before its manifest"))?);
        if !is_present(&lines) {
            return Ok(None);
        }
        if let Some((end, _)) = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(LINES - 1) {
            break end + 1;
        }
    };
    let first = lines.split_off(end).freeze();
    let head = head_in(key, digest, &lines)?;
    if head.size.checked_add(end as u64) != Some(object.size) {
        return Err(damaged("of another size than it says").into());
    }
    let bytes = stream::iter([Ok(first)]).chain(stream).boxed();
    let bytes = verified::compared(bytes, key.clone(), head.size, *digest, || ());
    Ok(Some((head, Body::Stream(bytes))))
}

/// Whether these are the first bytes of the register of a manifest that is there.
fn is_present(register: &[u8]) -> bool {
    !matches!(register.first(), Some(b'g' | b'd' | b'q'))
}

/// What the first lines of a register say.
fn head_in(key: &Key, digest: &Digest, lines: &[u8]) -> store::Result<ManifestHead> {
    let line = lines.get(1 + Nonce::LENGTH + 1..).and_then(|rest| rest.split(|&b| b == b'\n').next());
    let head = line.and_then(|line| serde_json::from_slice(line).ok());
    let damaged = || store::Error::new(ErrorKind::Corrupt, format!("{key} has no readable head"));
    let Head { media_type, size } = head.ok_or_else(damaged)?;
    Ok(ManifestHead { digest: *digest, media_type, size })
}

async fn gather(body: Body) -> store::Result<Bytes> {
    let (mut stream, mut bytes) = (body.into_stream(), BytesMut::new());
    while let Some(piece) = stream.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        oci::Algorithm,
        registry::{Push, Settings},
        store::{Condition, Store, memory::MemoryStore},
    };

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    struct World {
        store: Arc<MemoryStore>,
        registry: Arc<Registry>,
        repository: Repository,
        digest: Digest,
        bytes: Bytes,
    }

    impl World {
        /// With a manifest that is sent as a stream.
        async fn new() -> Self {
            let store = Arc::new(MemoryStore::default());
            let registry = Registry::open(store.clone(), Settings::default()).await.unwrap();
            let repository = Repository::parse("a").unwrap();
            let note = "x".repeat(SMALL_MANIFEST);
            let head = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}""#);
            let bytes = Bytes::from(format!(r#"{head},"manifests":[],"annotations":{{"x":"{note}"}}}}"#));
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            let push = Push {
                target: Reference::Digest(digest),
                tags: Vec::new(),
                content_type: Some(INDEX.into()),
                bytes: bytes.clone(),
                condition: None,
            };
            registry.put_manifest(&repository, push).await.unwrap();
            Self { store, registry, repository, digest, bytes }
        }

        async fn read(&self) -> Result<Bytes> {
            Ok(self.registry.manifest(&self.repository, &Reference::Digest(self.digest)).await?.1)
        }

        async fn damage(&self, damage: impl FnOnce(&mut Vec<u8>)) {
            let key = layout::manifest(&self.repository, &self.digest).key().clone();
            let there = self.store.read(&key).await.unwrap().unwrap();
            let mut bytes = there.bytes.to_vec();
            damage(&mut bytes);
            self.store.put(&key, bytes.into(), Condition::Replace(there.version)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_large_manifest_is_streamed_byte_for_byte() {
        let world = World::new().await;
        assert_eq!(world.read().await.unwrap(), world.bytes);
        world.registry.delete_manifest(&world.repository, &world.digest).await.unwrap();
        assert!(matches!(world.read().await, Err(Error::ManifestUnknown)));
    }

    // PULL-11
    #[tokio::test]
    async fn a_large_manifest_that_is_damaged_never_comes_to_its_end() {
        type Damage = fn(&mut Vec<u8>);
        let damages: [Damage; 6] = [
            |bytes| *bytes.last_mut().unwrap() ^= 1,
            |bytes| bytes[1000] ^= 1,
            |bytes| bytes.truncate(SMALL_MANIFEST + 10),
            |bytes| bytes.push(b'x'),
            |bytes| bytes[30] ^= 1,
            |bytes| bytes.retain(|byte| *byte != b'\n'),
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let world = World::new().await;
            world.damage(damage).await;
            assert!(matches!(world.read().await, Err(Error::Corrupt(_))), "damage {number}");
        }
        let world = World::new().await;
        world.damage(|bytes| bytes[0] = b'q').await;
        assert!(matches!(world.read().await, Err(Error::ManifestUnknown)), "in quarantine");
    }
}
