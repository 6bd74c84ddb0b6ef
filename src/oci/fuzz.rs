//! What holds of any text that a client may call a name, a digest, a range or a manifest.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    AnyDigest, ContentRange, Digest, DigestError, MAX_RANGES, MAX_REFERENCES, MAX_REPOSITORY, MAX_SIZE, MAX_TAG,
    Manifest, ManifestType, RangeAnswer, Reference, Repository, Tag, answer_range,
};

/// What is written as JSON reads back as the same.
pub(crate) fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let back = serde_json::to_string(value).and_then(|text| serde_json::from_str::<T>(&text));
    assert_eq!(back.ok().as_ref(), Some(value));
}

/// A name has one spelling, its parts are names too, and a reference is a tag or a digest and never both.
pub(crate) fn name(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    if let Ok(name) = Repository::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= MAX_REPOSITORY);
        assert!(text.split('/').all(|part| Repository::parse(part).is_ok()));
        reads_back(&name);
    }
    let tag = Tag::parse(text);
    if let Some(tag) = &tag {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= MAX_TAG);
        reads_back(tag);
    }
    match Reference::parse(text) {
        Ok(Reference::Tag(named)) => assert_eq!(tag, Some(named)),
        Ok(Reference::Digest(digest)) => assert_eq!((tag, Digest::parse(text)), (None, Ok(digest))),
        Err(_) => assert!(tag.is_none() && Digest::parse(text).is_err()),
    }
}

/// A digest has one spelling; what is well-formed and not ours is kept as it came.
pub(crate) fn digest(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let any = AnyDigest::parse(text);
    match Digest::parse(text) {
        Ok(digest) => {
            assert_eq!(digest.to_string(), text);
            assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
            assert_eq!(any, Ok(AnyDigest::Known(digest)));
            reads_back(&digest);
        }
        Err(DigestError::Unsupported) => assert_eq!(any, Ok(AnyDigest::Unsupported(text.to_owned()))),
        Err(DigestError::Malformed) => assert_eq!(any, Err(DigestError::Malformed)),
    }
    if let Ok(any) = any {
        assert_eq!(any.to_string(), text);
        reads_back(&any);
    }
}

/// Runs lie within the content and cost no more than it; what they say, spelt out, is the same. The first eight bytes
/// are the size of the content.
pub(crate) fn range(input: &[u8]) {
    let Some((size, header)) = input.split_first_chunk() else { return };
    let (size, header) = (u64::from_le_bytes(*size), &*String::from_utf8_lossy(header));
    if let RangeAnswer::Partial(runs) = answer_range(Some(header), size) {
        assert!((1..=MAX_RANGES).contains(&runs.len()));
        assert!(runs.iter().all(|(start, length)| *length > 0 && *start < size && *length <= size - *start));
        assert!(runs.iter().map(|(_, length)| u128::from(*length)).sum::<u128>() <= u128::from(size));
        let spelt: Vec<_> = runs.iter().map(|(start, length)| format!("{start}-{}", start + (length - 1))).collect();
        assert_eq!(answer_range(Some(&format!("bytes={}", spelt.join(","))), size), RangeAnswer::Partial(runs));
    }
    if let Some(range @ ContentRange { start, end }) = ContentRange::parse(header) {
        assert!(start <= end && end < MAX_SIZE && range.len() == end - start + 1);
        for text in
            [format!("{start}-{end}"), format!("bytes {start}-{end}/*"), format!("bytes {start}-{end}/{}", end + 1)]
        {
            assert_eq!(ContentRange::parse(&text), Some(range), "{text}");
        }
    }
}

/// What a manifest says does not hang on how its type was told, and no answer about it is long. The first byte is the
/// digit of the type that it is pushed under; any other is none.
pub(crate) fn manifest(input: &[u8]) {
    let Some((digit, bytes)) = input.split_first() else { return };
    let content_type = digit.checked_sub(b'0').and_then(|at| ManifestType::ALL.get(usize::from(at)));
    match Manifest::parse(content_type.map(|it| it.as_str()), bytes) {
        Ok(manifest) => {
            let kind = ManifestType::parse(&manifest.media_type);
            assert!(kind.is_some() && content_type.is_none_or(|it| kind == Some(*it)));
            assert!(manifest.references.len() <= MAX_REFERENCES);
            assert!(manifest.references.is_sorted_by(|one, other| one < other));
            assert_ne!(manifest.artifact_type.as_deref(), Some(""));
            if let Some(subject) = &manifest.subject {
                assert!(subject.size <= MAX_SIZE);
                reads_back(subject);
            }
            let content_type = format!("{}; charset=utf-8", manifest.media_type.to_ascii_uppercase());
            assert_eq!(Manifest::parse(Some(&content_type), bytes), Ok(manifest));
        }
        Err(error) => assert!(error.to_string().chars().count() < 500, "{error}"),
    }
}
