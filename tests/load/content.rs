//! What clients push: few enough things that they meet, small enough that a round is short.

use marina_distribution::oci::{Algorithm, Digest};
use serde_json::{Value, json};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Sizes around nothing, the tail of a session, one part, and several.
const SIZES: [usize; 14] =
    [0, 1, 2, 700, 4_000, 9_000, 20_000, 30_000, 65_536, 90_000, 200_000, 400_000, 1_500_000, 3_000_000];

/// splitmix64
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

/// The same blobs for all clients.
pub(crate) fn blobs() -> Vec<Blob> {
    let fill = |n: usize, size: usize| {
        let mut random = Random(n as u64);
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes.truncate(size);
        Blob { digest: sha256(&bytes), bytes }
    };
    SIZES.iter().enumerate().map(|(n, size)| fill(n, *size)).collect()
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn blob(of: &Blob) -> Value {
    descriptor("application/octet-stream", &of.digest, of.bytes.len())
}

/// An image of a config and layers, told from others of the same by its note.
pub(crate) fn image(config: &Blob, layers: &[&Blob], subject: Option<&str>, note: usize) -> String {
    let layers: Vec<_> = layers.iter().map(|it| blob(it)).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(config),
        "layers": layers,
        "annotations": { "note": note.to_string() },
    });
    if let Some(subject) = subject {
        manifest["subject"] = descriptor(MANIFEST, subject, 1);
    }
    manifest.to_string()
}

pub(crate) fn index(children: &[(&str, usize)]) -> String {
    let manifests: Vec<_> = children.iter().map(|(digest, size)| descriptor(MANIFEST, digest, *size)).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string()
}
