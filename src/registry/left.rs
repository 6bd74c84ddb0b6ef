//! What work in the background leaves as it is.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Error, Result};
use crate::store::Causes;

/// How many refusals in one round are no longer a matter of single objects. Whatever else there is to do would be refused
/// as well, and leave entries behind that cannot be removed.
const REFUSALS: u64 = 1000;

/// Counts what was left.
#[derive(Debug, Default)]
pub(crate) struct Left(AtomicU64);

impl Left {
    /// One object that is damaged, or that the store refuses, must not keep all others waiting: the step that needs it is
    /// given up, and the log says so.
    pub(crate) fn go_on<T: Default>(
        &self,
        done: std::result::Result<T, impl Into<Error>>,
        what: &impl Display,
    ) -> Result<T> {
        match done.map_err(Into::into) {
            Err(error @ Error::Refused(_)) if self.0.load(Relaxed) >= REFUSALS => Err(error),
            Err(error @ (Error::Corrupt(_) | Error::Refused(_) | Error::ManifestInvalid(_))) => {
                tracing::error!(%what, error = %Causes(&error), "left as it is");
                self.0.fetch_add(1, Relaxed);
                Ok(T::default())
            }
            done => done,
        }
    }

    /// How many steps were given up since this was last asked.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// The same where nobody counts.
pub(crate) fn go_on<T: Default>(done: std::result::Result<T, impl Into<Error>>, what: &impl Display) -> Result<T> {
    Left::default().go_on(done, what)
}
