//! What one register relies on of others.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    oci::{AnyDigest, Digest, Link, Manifest, Repository},
    registry::{
        PARALLEL, layout,
        manifest::StoredManifest,
        pages::Pages,
        pending::{self, PendingManifest},
        register::{Register, Seen, Value},
    },
    store::{ErrorKind, Result, Store},
};

/// What a manifest names, was there when it was pushed, and is not any more, though no client deleted it.
pub(super) async fn lost_links(
    store: &dyn Store,
    repository: &Repository,
    stored: &StoredManifest,
    manifest: &Manifest,
) -> Result<Vec<AnyDigest>> {
    let checked = manifest.references.iter().filter(|link| !stored.links.unchecked.contains(link.digest()));
    let looks: Vec<_> = checked
        .map(|link| async move {
            let is_lost = match link {
                Link::Blob { digest: AnyDigest::Known(digest), .. } => {
                    is_lost(store, &layout::holder(digest, repository)).await?
                }
                Link::Manifest { digest: AnyDigest::Known(digest), .. } => {
                    is_lost(store, &layout::manifest(repository, digest)).await?
                }
                // Nothing can hold these, so they were not checked.
                Link::Blob { digest: AnyDigest::Unsupported(_), .. }
                | Link::Manifest { digest: AnyDigest::Unsupported(_), .. } => true,
            };
            Ok(is_lost.then(|| link.digest().clone()))
        })
        .collect();
    stream::iter(looks).buffered(PARALLEL).try_filter_map(|lost| async move { Ok(lost) }).try_collect().await
}

/// Whether a manifest is not in the referrers list where it belongs, and nobody is about to put it there.
pub(super) async fn lacks_entry(
    store: &dyn Store,
    repository: &Repository,
    subject: &Digest,
    digest: &Digest,
) -> Result<bool> {
    let entry = layout::referrer(repository, subject, digest);
    if !is_lost(store, &entry).await? {
        return Ok(false);
    }
    // Its push drops the reference in flight only when the entry is there. So, in this order: if the reference was gone
    // before we looked, then the entry is there by now.
    Ok(!is_in_flight(store, repository, digest).await? && is_lost(store, &entry).await?)
}

pub(super) async fn is_in_flight(store: &dyn Store, repository: &Repository, digest: &Digest) -> Result<bool> {
    let mut pages = Pages::new(&layout::pending_manifests(repository));
    while let Some(keys) = pages.next(store).await? {
        let reads = keys.iter().map(|key| pending::read::<PendingManifest>(store, key));
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
        while let Some(read) = reads.next().await {
            match read {
                Ok(Some(entry)) if entry.digest == *digest => return Ok(true),
                // It may be of this.
                Err(error) if error.kind == ErrorKind::Refused => return Ok(true),
                Err(error) if error.kind != ErrorKind::Corrupt => return Err(error),
                // Of something else, consumed, or unreadable, which is said of its own key.
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(false)
}

/// Whether nothing is there, and no client has deleted it.
pub(super) async fn is_lost<T: Value>(store: &dyn Store, register: &Register<T>) -> Result<bool> {
    let seen = readable(store, register).await?;
    Ok(seen.is_some_and(|seen| seen.present().is_none() && !seen.is_by_client()))
}

/// Another register; `None` if it cannot be read, which is said of its own key.
pub(super) async fn readable<T: Value>(store: &dyn Store, register: &Register<T>) -> Result<Option<Seen<T>>> {
    match register.read(store).await {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.kind.is_of_one() => Ok(None),
        Err(error) => Err(error),
    }
}
