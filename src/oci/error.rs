//! The error codes of the specification, and the body that carries them.

use std::fmt;

use serde_json::{Value, json};

/// The codes that the specification lists, and one for what it has none for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TooManyRequests,
    Unauthorized,
    /// The fault is ours. Never in a refusal: only with a 5xx, where clients know it from other registries.
    Unknown,
    Unsupported,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorEntry {
    pub code: Code,
    pub message: String,
    pub detail: Option<Value>,
}

impl ErrorEntry {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None }
    }

    #[must_use]
    pub fn with_detail(self, detail: Value) -> Self {
        Self { detail: Some(detail), ..self }
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({ "code": self.code.as_str(), "message": self.message.as_str() });
        if let (Some(detail), Some(fields)) = (&self.detail, entry.as_object_mut()) {
            fields.insert("detail".to_owned(), detail.clone());
        }
        entry
    }
}

/// The body of an error response.
///
/// * It has at least one entry.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorBody {
    first: ErrorEntry,
    rest: Vec<ErrorEntry>,
}

impl ErrorBody {
    pub fn new(first: ErrorEntry) -> Self {
        Self { first, rest: Vec::new() }
    }

    #[must_use]
    pub fn and(mut self, entry: ErrorEntry) -> Self {
        self.rest.push(entry);
        self
    }

    /// The JSON text, to be sent as `application/json`.
    pub fn to_json(&self) -> String {
        let entries: Vec<Value> = std::iter::once(&self.first).chain(&self.rest).map(ErrorEntry::to_json).collect();
        json!({ "errors": entries }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ERR-1
    #[test]
    fn a_body_lists_its_entries_in_order_and_leaves_out_absent_details() {
        let body = ErrorBody::new(ErrorEntry::new(Code::NameUnknown, "no \"such\" repository"))
            .and(ErrorEntry::new(Code::ManifestBlobUnknown, "missing").with_detail(json!({"digest": "sha256:0"})));
        assert_eq!(
            serde_json::from_str::<Value>(&body.to_json()).unwrap(),
            json!({"errors": [
                {"code": "NAME_UNKNOWN", "message": "no \"such\" repository"},
                {"code": "MANIFEST_BLOB_UNKNOWN", "message": "missing", "detail": {"digest": "sha256:0"}},
            ]})
        );
    }
}
