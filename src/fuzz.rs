//! What holds of any input whatever, room by room. `fuzz/` looks for an input of which it does not, and `cargo test`
//! says it of those that are kept in `fuzz/corpus`.

use crate::{config, http, oci, registry};

/// A property, which panics where it does not hold.
pub type Property = fn(&[u8]);

/// Every property, by its name.
pub const TARGETS: [(&str, Property); 10] = [
    ("config", config::fuzz::config),
    ("digest", oci::fuzz::digest),
    ("journal", registry::upload::journal::fuzz::journal),
    ("key", registry::fuzz::key),
    ("manifest", oci::fuzz::manifest),
    ("name", oci::fuzz::name),
    ("page", http::fuzz::page),
    ("range", oci::fuzz::range),
    ("register", registry::fuzz::register),
    ("route", http::fuzz::route),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_property_holds_of_every_input_that_is_kept() {
        for (name, property) in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let inputs: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(!inputs.is_empty(), "{name} has no corpus");
            for input in inputs {
                let bytes = fs::read(&input).unwrap();
                let held = std::panic::catch_unwind(|| property(&bytes));
                assert!(held.is_ok(), "{name} does not hold of {}", input.display());
            }
        }
    }
}
