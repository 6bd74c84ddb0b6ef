//! Manifests are looked at and read: by digest, and by following a tag.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::{Head, ManifestHead};
use crate::{
    oci::{Digest, Reference, Repository},
    registry::{Error, Registry, Result, layout, nonce::Nonce, register::Seen},
    store::{self, ErrorKind, Span},
};

/// How much of a manifest register is read to know its head: state, nonce and the first line fit easily.
const HEAD_SPAN: u64 = 1024;

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
        let tag = match reference {
            Reference::Digest(digest) => {
                let read = self.manifest_by_digest(repository, digest).await?;
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
            if let Some(found) = self.manifest_by_digest(repository, &digest).await? {
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
            (Reference::Digest(digest), Error::Store(_) | Error::Throttled(_)) => {
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

    async fn manifest_by_digest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<(ManifestHead, Bytes)>> {
        let ticket = self.manifests.ticket();
        let register = layout::manifest(repository, digest);
        let seen = register.read(self.store()).await?;
        let Some(manifest) = seen.present() else { return Ok(None) };
        if Digest::of(digest.algorithm(), &manifest.bytes) != *digest {
            let context = format!("{}: not the bytes that its name says", register.key());
            return Err(store::Error::new(ErrorKind::Corrupt, context).into());
        }
        let head = manifest.head(digest);
        self.manifests.remember(ticket, repository, &head, &manifest.bytes);
        Ok(Some((head, manifest.bytes.clone())))
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
        let mut bytes = BytesMut::new();
        let mut stream = object.body.into_stream();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        if matches!(bytes.first(), Some(b'g' | b'd' | b'q')) {
            return Ok(None);
        }
        let head = bytes.freeze();
        let line = head.get(1 + Nonce::LENGTH + 1..).and_then(|rest| rest.split(|&b| b == b'\n').next());
        let head = line.and_then(|line| serde_json::from_slice(line).ok());
        let damaged = || store::Error::new(ErrorKind::Corrupt, format!("{key} has no readable head"));
        let Head { media_type, size } = head.ok_or_else(damaged)?;
        Ok(Some(ManifestHead { digest: *digest, media_type, size }))
    }
}
