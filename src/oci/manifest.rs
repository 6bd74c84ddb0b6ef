//! Manifests: what a registry must know of one, read from bytes that are stored as they came.

use std::{collections::BTreeMap, iter};

use data_encoding::BASE64;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny},
};

use super::{
    descriptor::{self, Descriptor},
    digest::{AnyDigest, Digest},
    json::{self, Object},
};

/// The largest manifest, in bytes: clients read no more.
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// How many things one manifest may need: each costs a look into the store.
pub const MAX_REFERENCES: usize = 10_000;

/// The types of manifests that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestType {
    Image,
    Index,
    DockerImage,
    DockerIndex,
    /// Withdrawn by OCI before 1.1; old content has it.
    Artifact,
    /// The same, as ORAS had it before.
    OrasArtifact,
}

impl ManifestType {
    pub const ALL: [Self; 6] =
        [Self::Image, Self::Index, Self::DockerImage, Self::DockerIndex, Self::Artifact, Self::OrasArtifact];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "application/vnd.oci.image.manifest.v1+json",
            Self::Index => "application/vnd.oci.image.index.v1+json",
            Self::DockerImage => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerIndex => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::Artifact => "application/vnd.oci.artifact.manifest.v1+json",
            Self::OrasArtifact => "application/vnd.cncf.oras.artifact.manifest.v1+json",
        }
    }

    /// Docker's types know no subject: a field of that name means nothing there.
    fn has_subject(self) -> bool {
        match self {
            Self::Image | Self::Index | Self::Artifact | Self::OrasArtifact => true,
            Self::DockerImage | Self::DockerIndex => false,
        }
    }
}

/// What a registry must know of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// One of [`ManifestType`].
    pub media_type: String,
    /// What must exist, each once, in order.
    pub references: Vec<Link>,
    /// What this manifest refers to, which need not exist.
    pub subject: Option<Descriptor>,
    /// As the referrers list shows it: an image without one has the type of its config.
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
}

/// Something that a manifest needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    Blob { digest: AnyDigest, size: u64 },
    Manifest { digest: AnyDigest, size: u64 },
}

impl Link {
    pub fn digest(&self) -> &AnyDigest {
        match self {
            Self::Blob { digest, .. } | Self::Manifest { digest, .. } => digest,
        }
    }
}

/// Why a text is no manifest, in sentences for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is larger than {MAX_MANIFEST} bytes")]
    TooLarge,
    #[error("the manifest is not I-JSON: {0}")]
    Json(String),
    #[error("{field}: {problem}")]
    Field { field: String, problem: String },
    #[error("manifests of type `{0}` are not supported")]
    UnknownType(String),
    #[error("Content-Type is `{content_type}`, but `mediaType` is `{media_type}`")]
    Contradiction { content_type: &'static str, media_type: String },
    #[error("neither Content-Type nor `mediaType` nor one of `config` and `manifests` tells the type of the manifest")]
    Untyped,
    #[error("`{field}` has no place in a manifest of type `{media_type}`")]
    Confused { field: &'static str, media_type: &'static str },
    #[error("the manifest refers to more than {MAX_REFERENCES} blobs and manifests")]
    TooManyReferences,
}

impl Manifest {
    /// Reads a manifest, pushed under this `Content-Type`.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
        json::check(text).map_err(|error| ManifestError::Json(shorten(&error.to_string())))?;

        let outline: Outline = read(text)?;
        let kind = outline.kind(content_type)?;
        outline.refuse_fields_of_other_types(kind)?;
        let (mut references, config_type) = match kind {
            ManifestType::Image | ManifestType::DockerImage => read::<Image>(text)?.needs(),
            ManifestType::Index | ManifestType::DockerIndex => read::<Index>(text)?.needs(),
            ManifestType::Artifact | ManifestType::OrasArtifact => read::<Artifact>(text)?.needs(),
        };
        if references.len() > MAX_REFERENCES {
            return Err(ManifestError::TooManyReferences);
        }
        references.sort_unstable();
        references.dedup();
        Ok(Self {
            media_type: kind.as_str().to_owned(),
            references,
            subject: outline.subject.filter(|_| kind.has_subject()).map(|entry| entry.descriptor),
            artifact_type: [outline.artifact_type, config_type].into_iter().flatten().find(|text| !text.is_empty()),
            annotations: outline.annotations,
        })
    }
}

/// What manifests of all types have, and which of the fields that tell them apart; `null` is as good as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<String>,
    subject: Option<Entry>,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "json::nullable")]
    annotations: BTreeMap<String, String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    blobs: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

impl Outline {
    /// The type by `Content-Type`, else by `mediaType`, else by the fields there are.
    fn kind(&self, content_type: Option<&str>) -> Result<ManifestType, ManifestError> {
        let content_type = content_type.map(essence).filter(|text| !is_generic(text));
        let media_type = self.media_type.as_deref().filter(|text| !text.is_empty());
        let known = |text: &str| ManifestType::parse(text).ok_or_else(|| ManifestError::UnknownType(shorten(text)));
        match (content_type.as_deref().map(known).transpose()?, media_type) {
            (Some(kind), Some(media_type)) if media_type != kind.as_str() => {
                Err(ManifestError::Contradiction { content_type: kind.as_str(), media_type: shorten(media_type) })
            }
            (Some(kind), _) => Ok(kind),
            (None, Some(media_type)) => known(media_type),
            (None, None) if self.config.is_some() => Ok(ManifestType::Image),
            (None, None) if self.manifests.is_some() => Ok(ManifestType::Index),
            (None, None) => Err(ManifestError::Untyped),
        }
    }

    /// A text that is one type to us and another to the client that pulls it could show them different content
    /// (CVE-2021-41190). So no two types name different things in one text: the collector relies on that.
    fn refuse_fields_of_other_types(&self, kind: ManifestType) -> Result<(), ManifestError> {
        let config = ("config", &self.config);
        let layers = ("layers", &self.layers);
        let manifests = ("manifests", &self.manifests);
        let blobs = ("blobs", &self.blobs);
        let schema_1 = ("fsLayers", &self.fs_layers);
        let others: &[_] = match kind {
            ManifestType::Image | ManifestType::DockerImage => &[manifests, schema_1],
            ManifestType::Index | ManifestType::DockerIndex => &[config, layers, blobs, schema_1],
            ManifestType::Artifact | ManifestType::OrasArtifact => &[config, layers, manifests, schema_1],
        };
        match others.iter().find(|(_, value)| value.is_some()) {
            Some((field, _)) => Err(ManifestError::Confused { field, media_type: kind.as_str() }),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "schemaVersion", deserialize_with = "two")]
    _version: (),
    config: Entry,
    #[serde(default, deserialize_with = "json::nullable")]
    layers: Vec<Entry>,
}

impl Image {
    /// What it needs, and the type of its config.
    fn needs(self) -> (Vec<Link>, Option<String>) {
        let config_type = self.config.descriptor.media_type.clone();
        (iter::once(self.config).chain(self.layers).filter_map(Entry::into_blob).collect(), Some(config_type))
    }
}

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion", deserialize_with = "two")]
    _version: (),
    #[serde(deserialize_with = "json::nullable")]
    manifests: Vec<Entry>,
}

impl Index {
    fn needs(self) -> (Vec<Link>, Option<String>) {
        (self.manifests.into_iter().filter_map(Entry::into_child).collect(), None)
    }
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(default, deserialize_with = "json::nullable")]
    blobs: Vec<Entry>,
}

impl Artifact {
    fn needs(self) -> (Vec<Link>, Option<String>) {
        (self.blobs.into_iter().filter_map(Entry::into_blob).collect(), None)
    }
}

/// A descriptor as it stands in a manifest.
///
/// * Its `data`, if any, was what `size` and `digest` say.
#[derive(Deserialize)]
#[serde(try_from = "Object<Fields>")]
struct Entry {
    descriptor: Descriptor,
    has_urls: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    media_type: String,
    digest: AnyDigest,
    #[serde(deserialize_with = "descriptor::size")]
    size: u64,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "json::nullable")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "json::nullable")]
    urls: Vec<String>,
    data: Option<String>,
}

impl TryFrom<Object<Fields>> for Entry {
    type Error = &'static str;

    fn try_from(Object(fields): Object<Fields>) -> Result<Self, Self::Error> {
        if let Some(data) = &fields.data {
            check_data(data, &fields.digest, fields.size)?;
        }
        let Fields { media_type, digest, size, artifact_type, annotations, urls, data: _ } = fields;
        let descriptor = Descriptor { media_type, digest, size, artifact_type, annotations };
        Ok(Self { descriptor, has_urls: !urls.is_empty() })
    }
}

fn check_data(data: &str, digest: &AnyDigest, size: u64) -> Result<(), &'static str> {
    let bytes = BASE64.decode(data.as_bytes()).map_err(|_| "`data` is not base64")?;
    if bytes.len() as u64 != size {
        return Err("`data` does not have the length that `size` says");
    }
    if digest.known().is_some_and(|digest| Digest::of(digest.algorithm(), &bytes) != *digest) {
        return Err("`data` does not have the digest that `digest` says");
    }
    Ok(())
}

impl Entry {
    /// A blob that must exist; `None` for a layer that is to be had elsewhere.
    fn into_blob(self) -> Option<Link> {
        let Descriptor { media_type, digest, size, .. } = self.descriptor;
        let elsewhere = self.has_urls && FOREIGN_LAYERS.iter().any(|prefix| media_type.starts_with(prefix));
        (!elsewhere).then_some(Link::Blob { digest, size })
    }

    /// A child of an index. Build caches are indexes of blobs: only what claims to be a manifest must be one.
    fn into_child(self) -> Option<Link> {
        if ManifestType::parse(&self.descriptor.media_type).is_none() {
            return self.into_blob();
        }
        Some(Link::Manifest { digest: self.descriptor.digest, size: self.descriptor.size })
    }
}

/// How the types of layers start that may not be distributed.
const FOREIGN_LAYERS: [&str; 2] =
    ["application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign."];

/// A media type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type says nothing about the manifest.
fn is_generic(media_type: &str) -> bool {
    matches!(media_type, "" | "application/json" | "application/octet-stream")
}

fn two<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    match u64::deserialize(from)? {
        2 => Ok(()),
        _ => Err(D::Error::custom("only 2 is supported")),
    }
}

fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, ManifestError> {
    json::read(text).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "manifest" } else { &path };
        ManifestError::Field { field: shorten(field), problem: shorten(&error.inner().to_string()) }
    })
}

/// A text from a manifest, short enough for an answer.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
