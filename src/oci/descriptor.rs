//! A descriptor: what a thing is, its digest, its size.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::digest::AnyDigest;

/// The largest size that content may have: the specifications count in signed 64-bit integers.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// What a thing is, its digest, its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: AnyDigest,
    #[serde(deserialize_with = "size")]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Reads a size: an integer from 0 to [`MAX_SIZE`].
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(from)?;
    if size > MAX_SIZE {
        return Err(D::Error::custom("a size above 2^63-1"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(value: Value) -> Option<Descriptor> {
        serde_json::from_value(value).ok()
    }

    // REF-4, REF-6
    #[test]
    fn the_form_has_the_names_of_the_specification_and_leaves_out_what_is_empty() {
        let bare = json!({"mediaType": "a/b", "digest": EMPTY, "size": 0});
        let full = json!({
            "mediaType": "a/b", "digest": "blake3:00", "size": 7, "artifactType": "c/d", "annotations": {"k": "", "l": "m"},
        });
        for form in [bare, full] {
            assert_eq!(serde_json::to_value(read(form.clone()).unwrap()).unwrap(), form);
        }
    }

    // TYPE-8
    #[test]
    fn a_size_is_an_integer_of_63_bits() {
        let of_size = |size: Value| read(json!({"mediaType": "a/b", "digest": EMPTY, "size": size}));
        assert_eq!(of_size(json!(9_223_372_036_854_775_807_u64)).unwrap().size, MAX_SIZE);
        for bad in [json!(9_223_372_036_854_775_808_u64), json!(-1), json!(1.0), json!("1"), json!(null), json!([])] {
            assert_eq!(of_size(bad.clone()), None, "{bad}");
        }
    }

    // TYPE-8
    #[test]
    fn media_type_digest_and_size_are_required() {
        let good = json!({"mediaType": "a/b", "digest": EMPTY, "size": 0});
        assert!(read(good.clone()).is_some());
        for field in ["mediaType", "digest", "size"] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert_eq!(read(bad), None, "{field}");
        }
    }
}
