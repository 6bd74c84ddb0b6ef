//!
//! Pure: nothing here waits, reads or writes, and nothing here calls another room.

mod digest;
mod hasher;
mod text;

pub use digest::{Algorithm, AnyDigest, Digest, DigestError};
pub use hasher::{HashState, Hasher};
