//! What requests are made of: few names and few bytes, so that they meet.

use std::{fmt::Write as _, sync::LazyLock};

use marina_distribution::oci::{Algorithm, Digest};
use serde_json::{Value, json};

/// The last is none.
pub(crate) const REPOSITORIES: [&str; 5] = ["a", "a/b", "a-b", "tags/list", "A"];
/// The last is none.
pub(crate) const TAGS: [&str; 4] = ["latest", "v1", "V1", ".x"];

/// Parts have 5 bytes: none, less than one, one, a bit more, several with a tail, several without.
pub(crate) const BLOBS: [&str; 6] = ["", "{}", "abcde", "abcdef", "0123456789abcdefghijklm", "ABCDEFGHIJKLMNOPQRST"];

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A manifest to push, and what one must know of it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) media_type: &'static str,
    pub(crate) is_valid: bool,
    /// What must be there, with the size that is claimed.
    pub(crate) blobs: Vec<(String, usize)>,
    pub(crate) children: Vec<(String, usize)>,
    pub(crate) subject: Option<String>,
    pub(crate) artifact_type: Option<&'static str>,
    pub(crate) annotations: Value,
}

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(Algorithm::Sha256, bytes.as_ref()).to_string()
}

pub(crate) fn sha512(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(Algorithm::Sha512, bytes.as_ref()).to_string()
}

pub(crate) static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let image = sample(IMAGE, &["{}", "abcde"], json!({ "mediaType": IMAGE }));
    let other = sample(IMAGE, &["{}", BLOBS[4], BLOBS[5]], json!({ "mediaType": IMAGE, "annotations": { "k": "v" } }));
    let typeless = sample(IMAGE, &["{}"], json!({}));
    let about = |subject: &Sample, artifact_type| {
        let subject = json!({ "mediaType": IMAGE, "digest": sha256(&subject.text), "size": subject.text.len() });
        let fields = json!({ "mediaType": IMAGE, "artifactType": artifact_type, "subject": subject });
        Sample { artifact_type: Some(artifact_type), ..sample(IMAGE, &["{}"], fields) }
    };
    let (signature, listing) = (about(&image, "x/signature"), about(&image, "x/listing+json"));
    let nested = about(&signature, "x/signature");
    let wrong_size = Sample { blobs: vec![(sha256("{}"), 3)], ..sample(IMAGE, &["{}"], json!({ "size": 3 })) };
    vec![
        index(&[&image, &other]),
        index(&[]),
        Sample { media_type: DOCKER, artifact_type: Some("a/config"), ..typeless.clone() },
        Sample { is_valid: false, text: "{".to_owned(), ..image.clone() },
        image,
        other,
        typeless,
        signature,
        listing,
        nested,
        wrong_size,
    ]
});

/// An image of these blobs, of which the first is its config.
fn sample(media_type: &'static str, blobs: &[&str], fields: Value) -> Sample {
    let mut manifest = fields;
    let size = manifest.as_object_mut().unwrap().remove("size");
    let link = |kind: &str, blob: &str| json!({ "mediaType": kind, "digest": sha256(blob), "size": size.clone().unwrap_or(json!(blob.len())) });
    manifest["schemaVersion"] = json!(2);
    manifest["config"] = link("a/config", blobs[0]);
    manifest["layers"] = blobs[1..].iter().map(|blob| link("a/layer", blob)).collect();
    Sample {
        media_type,
        is_valid: true,
        blobs: blobs.iter().map(|blob| (sha256(blob), blob.len())).collect(),
        children: Vec::new(),
        subject: manifest["subject"]["digest"].as_str().map(ToOwned::to_owned),
        artifact_type: Some("a/config"),
        annotations: manifest["annotations"].clone(),
        text: manifest.to_string(),
    }
}

fn index(children: &[&Sample]) -> Sample {
    let link = |child: &&Sample| json!({ "mediaType": child.media_type, "digest": sha256(&child.text), "size": child.text.len() });
    let manifests: Vec<_> = children.iter().map(link).collect();
    Sample {
        text: json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string(),
        media_type: INDEX,
        is_valid: true,
        blobs: Vec::new(),
        children: children.iter().map(|child| (sha256(&child.text), child.text.len())).collect(),
        subject: None,
        artifact_type: None,
        annotations: Value::Null,
    }
}

/// A part of a URL's query, escaped.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
