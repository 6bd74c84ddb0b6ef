//! libFuzzer, pointed at one of the registry's properties: the one that `FUZZ_TARGET` names.

#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use marina_distribution::fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let names = TARGETS.map(|(name, _)| name).join(", ");
    TARGETS.into_iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("FUZZ_TARGET is none of {names}")).1
});

fuzz_target!(|data: &[u8]| TARGET(data));
