//! The little that the histories are about: a few blobs, manifests and tags of one repository, and a second repository
//! to mount into.

use marina_distribution::oci::{Algorithm, Digest};

/// Images need the first two; the others are what the session's chunks add up to.
pub(crate) const BLOBS: [&[u8]; 5] = [b"conf", b"layr", b"012", b"0123456789ab", b"012xy"];
/// Where each chunk begins, its bytes, and the blob that the session then holds. Five bytes are a part: of these blobs one
/// has none, one has parts and a tail, one is a part.
pub(crate) const CHUNKS: [(u64, &[u8], usize); 3] = [(0, b"012", 2), (3, b"3456789ab", 3), (3, b"xy", 4)];

pub(crate) const TAGS: [&str; 2] = ["x", "y"];

pub(crate) const IMAGE: usize = 0;
pub(crate) const OTHER: usize = 1;
/// Has [`IMAGE`] as its subject.
pub(crate) const REFERRER: usize = 2;
/// Has [`IMAGE`] as its child.
pub(crate) const INDEX: usize = 3;
pub(crate) const MANIFESTS: usize = 4;

pub(crate) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Something that a manifest needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Blob(usize),
    Manifest(usize),
}

pub(crate) fn needs(manifest: usize) -> Vec<Need> {
    if manifest == INDEX { vec![Need::Manifest(IMAGE)] } else { vec![Need::Blob(0), Need::Blob(1)] }
}

pub(crate) fn blob(index: usize) -> Digest {
    Digest::of(Algorithm::Sha256, BLOBS[index])
}

pub(crate) fn manifest(index: usize) -> String {
    let image = |config: usize, layer: usize, more: &str| {
        let (config, layer) = (blob(config), blob(layer));
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_IMAGE}","config":{{"mediaType":"a/config","digest":"{config}","size":4}},"layers":[{{"mediaType":"a/layer","digest":"{layer}","size":4}}]{more}}}"#
        )
    };
    let child = || {
        let (digest, size) = (digest(IMAGE), manifest(IMAGE).len());
        format!(r#"{{"mediaType":"{OCI_IMAGE}","digest":"{digest}","size":{size}}}"#)
    };
    match index {
        IMAGE => image(0, 1, ""),
        OTHER => image(1, 0, ""),
        REFERRER => image(0, 1, &format!(r#","subject":{}"#, child())),
        _ => format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, child()),
    }
}

pub(crate) fn digest(manifest: usize) -> Digest {
    Digest::of(Algorithm::Sha256, self::manifest(manifest).as_bytes())
}

pub(crate) fn manifest_of(digest: &Digest) -> Option<usize> {
    (0..MANIFESTS).find(|index| self::digest(*index) == *digest)
}

pub(crate) fn need_of(digest: &Digest) -> Option<Need> {
    let blob = (0..BLOBS.len()).find(|index| blob(*index) == *digest).map(Need::Blob);
    blob.or_else(|| manifest_of(digest).map(Need::Manifest))
}
