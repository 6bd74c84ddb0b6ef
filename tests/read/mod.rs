//! Blobs, read whole.

use futures_util::StreamExt;
use marina_distribution::{
    oci::{Digest, Repository},
    registry::Registry,
    store::Span,
};

pub(crate) async fn blob(registry: &Registry, repository: &Repository, digest: &Digest) -> Vec<u8> {
    let blob = registry.find_blob(repository, digest).await.unwrap();
    let mut body = registry.read_blob(&blob, Span::ALL).await.unwrap().into_stream();
    let mut whole = Vec::new();
    while let Some(bytes) = body.next().await {
        whole.extend_from_slice(&bytes.unwrap());
    }
    whole
}
