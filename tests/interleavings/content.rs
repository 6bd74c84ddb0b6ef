//! The little world of these tests: two repositories, two blobs, four manifests, two tags.

use std::sync::LazyLock;

use bytes::Bytes;
use marina_distribution::oci::{Algorithm, Digest, Repository, Tag};

/// Two that fit a buffer, and one that has a part of five bytes and a tail.
pub(crate) const BLOBS: [&[u8]; 3] = [b"one", b"two", b"0123456"];
/// The one that comes in a session.
pub(crate) const PARTS: usize = 2;

/// An image of blob 0, an image of both, an index of the first, an image of nothing much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    D,
    Wide,
    Index,
    /// [`What::D`] with a subject: a referrer.
    Referrer,
    Other,
}

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn repository(number: usize) -> Repository {
    Repository::parse(["a", "b"][number]).unwrap()
}

pub(crate) fn tag(number: usize) -> Tag {
    Tag::parse(["t", "u"][number]).unwrap()
}

pub(crate) fn blob(number: usize) -> Digest {
    static DIGESTS: LazyLock<[Digest; 3]> = LazyLock::new(|| BLOBS.map(|bytes| Digest::of(Algorithm::Sha256, bytes)));
    DIGESTS[number]
}

static MANIFESTS: LazyLock<Vec<(What, Digest, Bytes)>> = LazyLock::new(|| {
    let all = [What::D, What::Wide, What::Index, What::Referrer, What::Other];
    all.map(|what| (what, Digest::of(Algorithm::Sha256, &what.made()), what.made())).into()
});

impl What {
    pub(crate) fn digest(self) -> Digest {
        MANIFESTS.iter().find(|(what, ..)| *what == self).unwrap().1
    }

    pub(crate) fn bytes(self) -> Bytes {
        MANIFESTS.iter().find(|(what, ..)| *what == self).unwrap().2.clone()
    }

    pub(crate) fn media_type(self) -> &'static str {
        if self == Self::Index { INDEX } else { IMAGE }
    }

    pub(crate) fn blobs(self) -> &'static [usize] {
        match self {
            Self::D | Self::Referrer => &[0],
            Self::Wide => &[0, 1],
            Self::Index => &[],
            Self::Other => &[1],
        }
    }

    fn made(self) -> Bytes {
        let of = |number: usize| {
            let (digest, size) = (blob(number), BLOBS[number].len());
            format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":{size}}}"#)
        };
        let image = |config: usize, layers: &[usize], more: &str| {
            let layers = layers.iter().map(|layer| of(*layer)).collect::<Vec<_>>().join(",");
            let config = of(config);
            format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{layers}]{more}}}"#)
        };
        Bytes::from(match self {
            Self::D => image(0, &[], ""),
            Self::Wide => image(0, &[1], ""),
            Self::Other => image(1, &[], ""),
            Self::Referrer => {
                let subject = Digest::of(Algorithm::Sha256, b"subject");
                let subject = format!(r#","subject":{{"mediaType":"{IMAGE}","digest":"{subject}","size":7}}"#);
                image(0, &[], &subject)
            }
            Self::Index => {
                let child = Self::D.made();
                let (child, size) = (Digest::of(Algorithm::Sha256, &child), child.len());
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{IMAGE}","digest":"{child}","size":{size}}}]}}"#
                )
            }
        })
    }
}
