//! Content to push: blobs, images, indexes, artifacts.

use marina_distribution::oci::{Algorithm, Digest};
use serde_json::{Value, json};

use super::{Reply, Server, id_of};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What no test pushes.
pub(crate) const NOWHERE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// The digest of nothing.
pub(crate) const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Of an algorithm that is well known, but not to us.
pub(crate) const BLAKE3: &str = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(Algorithm::Sha256, bytes.as_ref()).to_string()
}

pub(crate) fn sha512(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(Algorithm::Sha512, bytes.as_ref()).to_string()
}

/// Bytes in which no run is like another.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    (0u32..).flat_map(|it| it.wrapping_mul(2_654_435_761).to_be_bytes()).take(size).collect()
}

pub(crate) fn descriptor(media_type: &str, bytes: impl AsRef<[u8]>) -> Value {
    let bytes = bytes.as_ref();
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

/// An image of a config `{}` and of these layers.
pub(crate) fn image(layers: &[&str]) -> Value {
    let layers: Vec<_> = layers.iter().map(|it| descriptor(OCI_LAYER, it)).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, "{}"), "layers": layers })
}

pub(crate) fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
}

/// An artifact that is about `subject`, told from others by its annotation.
pub(crate) fn artifact(artifact_type: &str, subject: &Value, note: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(OCI_EMPTY, "{}"),
        "layers": [descriptor(OCI_EMPTY, "{}")],
        "subject": subject,
        "annotations": { "note": note },
    })
}

pub(crate) fn with(mut manifest: Value, field: &str, value: Value) -> Value {
    manifest[field] = value;
    manifest
}

pub(crate) fn without(mut manifest: Value, field: &str) -> Value {
    manifest.as_object_mut().unwrap().remove(field);
    manifest
}

impl Server {
    /// Makes the repository hold what the manifests of these tests name.
    pub(crate) async fn stock(&self, repository: &str) {
        self.push_blob(repository, "{}").await;
        self.push_blob(repository, "layer").await;
    }

    /// The session stands where it should: by any of its URLs, and asking changes nothing.
    pub(crate) async fn stands(&self, session: &str, range: &str) {
        let (path, _) = session.split_once('?').unwrap_or((session, ""));
        for reply in [self.get(session).await, self.head(session).await] {
            reply.is(204).has("range", range).has("location", path).has("docker-upload-uuid", id_of(path));
        }
    }

    /// Starts a session; answers its URL.
    pub(crate) async fn start_upload(&self, repository: &str) -> String {
        self.post(&format!("/v2/{repository}/blobs/uploads/")).await.is(202).location()
    }

    pub(crate) async fn push_blob(&self, repository: &str, bytes: impl AsRef<[u8]>) -> String {
        let digest = sha256(&bytes);
        self.push_blob_as(repository, &digest, bytes).await;
        digest
    }

    pub(crate) async fn push_blob_as(&self, repository: &str, digest: &str, bytes: impl AsRef<[u8]>) {
        let session = self.start_upload(repository).await;
        self.put(&format!("{session}?digest={digest}")).body(bytes.as_ref().to_vec()).await.is(201);
    }

    /// Pushes bytes as a manifest of a type, whatever the answer.
    pub(crate) async fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &str) -> Reply {
        let url = format!("/v2/{repository}/manifests/{reference}");
        self.put(&url).header("content-type", media_type).body(bytes.to_owned()).await
    }

    /// Pushes a manifest, whose type it says itself; answers its descriptor.
    pub(crate) async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Value {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let bytes = manifest.to_string();
        self.put_manifest(repository, reference, media_type, &bytes).await.is(201);
        descriptor(media_type, &bytes)
    }

    /// Pushes an image of one layer, with its blobs; answers its descriptor.
    pub(crate) async fn push_image(&self, repository: &str, reference: &str, layer: &str) -> Value {
        self.push_blob(repository, "{}").await;
        self.push_blob(repository, layer).await;
        self.push_manifest(repository, reference, &image(&[layer])).await
    }
}

/// The digest of a descriptor.
pub(crate) fn digest(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap()
}
