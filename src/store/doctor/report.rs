//! What was found, as an operator reads it.

use std::fmt;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub probe: &'static str,
    pub verdict: Verdict,
    pub seen: String,
    /// What that means for this deployment.
    pub means: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// Not as the contract has it, and the registry does without.
    Adapted,
    /// Data would be lost.
    Unsafe,
}

/// A table, with two lines for each finding, and what follows from all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(pub Vec<Finding>);

impl Report {
    pub fn is_safe(&self) -> bool {
        self.0.iter().all(|finding| finding.verdict < Verdict::Unsafe)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Adapted => "adapted",
            Self::Unsafe => "UNSAFE",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { probe, verdict, seen, means } = self;
        writeln!(f, "{verdict:<8} {probe:<24} {seen}")?;
        write!(f, "{:34}{means}", "")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            writeln!(f, "{finding}")?;
        }
        f.write_str(if self.is_safe() {
            "\nThis store is safe for any number of replicas."
        } else {
            "\nThis store is NOT SAFE: the registry could lose data on it."
        })
    }
}
