//! The vocabulary: what the OCI specifications name, as types that cannot hold anything else.
//!
//! Pure: nothing here waits, reads or writes, and nothing here calls another room.

mod descriptor;
mod digest;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hasher;
mod json;
mod manifest;
mod name;
mod range;
mod text;

pub use descriptor::{Descriptor, MAX_SIZE};
pub use digest::{Algorithm, AnyDigest, Digest, DigestError, digests_in};
pub use error::{Code, ErrorBody, ErrorEntry};
pub use hasher::{HashState, Hasher};
pub use manifest::{Link, MAX_MANIFEST, MAX_REFERENCES, Manifest, ManifestError, ManifestType};
pub use name::{MAX_REPOSITORY, MAX_TAG, NameError, Reference, ReferenceError, Repository, Tag};
pub use range::{ContentRange, MAX_RANGES, RangeAnswer, answer_range};
