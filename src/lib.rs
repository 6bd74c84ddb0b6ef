//! **marina-distribution**: an OCI Distribution registry over an object store or a local directory.
//!
//! Three rooms and one vocabulary; arrows only point down, and a test says so:
//!
//! ```text
//! main → server → http → registry → store        all may use oci; oci calls nobody
//! ```
//!
//! * [`oci`]: what the specifications name: digests, names, manifests, ranges, error codes. Pure: no I/O.
//! * [`store`]: a flat, ordered, strongly consistent map from keys to bytes. It knows nothing of registries.
//! * [`registry`]: all registry logic, once. No HTTP, no S3, no disk.
//! * [`http`]: the only room that says method, header or status.
//! * [`config`]: flags, environment and file, parsed once into one typed struct.
//! * [`server`]: listens, drains, logs.

pub mod config;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod http;
pub mod oci;
pub mod registry;
pub mod server;
pub mod store;

#[cfg(test)]
mod on_s3;
