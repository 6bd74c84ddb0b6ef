//! What holds of any file and environment.

use std::{ffi::OsString, path::Path};

use super::{
    Effective, Error,
    sources::{self, Sources},
};

/// A configuration that was read is displayed as a file that says the same. The input is a file and, after a byte of
/// zero, variables, one a line.
pub(crate) fn config(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (file, variables) = input.split_once('\0').unwrap_or((&input, ""));
    let Ok(given) = read(file, variables) else { return };
    let displayed = given.to_string();
    let again = read(&displayed, "");
    assert!(again.as_ref().is_ok_and(|again| again.config == given.config), "{displayed}{again:?}");
}

fn read(file: &str, variables: &str) -> Result<Effective, Error> {
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let (environment, _) = sources::environment(variables.map(|(name, value)| (OsString::from(name), value.into())))?;
    let file = sources::parse(Path::new("file"), file)?;
    Effective::read(&Sources { layers: vec![environment, file.layer], retention: file.retention })
}
