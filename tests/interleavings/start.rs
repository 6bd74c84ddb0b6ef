//! What the store holds when the processes start, made by real operations and then, where it must be, by hand.

use std::sync::Arc;

use marina_distribution::{
    oci::Algorithm,
    registry::SessionId,
    store::{Store, memory::MemoryStore},
};

use crate::{
    content::{BLOBS, PARTS, What, blob, repository},
    explore::Prepared,
    process::{chunk, push, registry, rewrite},
    walk,
};

#[derive(Clone, Default)]
pub(crate) struct Start {
    /// Blobs, each in repository 0.
    blobs: &'static [usize],
    mounted: bool,
    manifests: Vec<(What, &'static [usize])>,
    condemned: Vec<String>,
    deleted: bool,
    /// A session that has taken so many bytes of its blob.
    session: Option<usize>,
}

const NONCE: &str = "DDDDDDDDDDDDDDDDDDDDDA";

impl Start {
    pub(crate) fn blobs(blobs: &'static [usize]) -> Self {
        Self { blobs, ..Self::default() }
    }

    pub(crate) fn with(mut self, what: What, tags: &'static [usize]) -> Self {
        self.manifests.push((what, tags));
        self
    }

    pub(crate) fn mounted(self) -> Self {
        Self { mounted: true, ..self }
    }

    pub(crate) fn session(self, taken: usize) -> Self {
        Self { session: Some(taken), ..self }
    }

    /// A client deleted blob 0 from repository 0.
    pub(crate) fn deleted(self) -> Self {
        Self { deleted: true, ..self }
    }

    pub(crate) fn condemned_holder(mut self) -> Self {
        self.condemned.push(walk::holder(&blob(0).to_string(), "a"));
        self
    }

    pub(crate) fn condemned_record(mut self) -> Self {
        self.condemned.push(format!("{}_", walk::holders(&blob(0).to_string())));
        self
    }

    pub(crate) fn condemned_manifest(mut self, what: What) -> Self {
        self.condemned.push(walk::manifest("a", &what.digest().to_string()));
        self
    }

    pub(crate) async fn prepare(&self) -> Prepared {
        let store = Arc::new(MemoryStore::default());
        let registry = registry(store.clone(), 0).await;
        let here = repository(0);
        for number in self.blobs {
            registry.upload_whole(&here, &blob(*number), chunk(None, BLOBS[*number])).await.unwrap();
        }
        if self.mounted {
            assert!(registry.mount(&repository(1), &blob(0), Some(&here)).await.unwrap());
        }
        for (what, tags) in &self.manifests {
            registry.put_manifest(&here, push(*what, tags)).await.unwrap();
        }
        if self.deleted {
            registry.delete_blob(&here, &blob(0)).await.unwrap();
        }
        registry.settle().await;
        for register in &self.condemned {
            assert!(rewrite(store.as_ref(), register, b'c', NONCE).await.unwrap());
        }
        let session = self.session.map(|_| registry.start_upload(&here, Algorithm::Sha256));
        let mut objects = Vec::new();
        for entry in store.list("", None, usize::MAX).await.unwrap() {
            let left_over = ["dropped/", "pending/"].iter().any(|prefix| entry.key.as_str().starts_with(prefix));
            if !left_over {
                objects.push((entry.key.clone(), store.read(&entry.key).await.unwrap().unwrap().bytes));
            }
        }
        // In an order that does not depend on random names.
        objects.sort_by_key(|(key, bytes)| (key.as_str().starts_with("data/"), bytes.len(), key.as_str().len()));
        Prepared { objects, session }
    }

    /// The bytes of the session, once more for each run: parts are not copied from store to store.
    pub(crate) async fn append(&self, store: &Arc<MemoryStore>, session: SessionId) {
        let taken = self.session.unwrap_or_default();
        if taken > 0 {
            let registry = registry(store.clone(), 0).await;
            registry.append(&repository(0), session, chunk(Some(0), &BLOBS[PARTS][..taken])).await.unwrap();
        }
    }
}
