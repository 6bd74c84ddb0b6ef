//! How a check is told, line by line.

use std::fmt;

use super::{Finding, Invariant, Mend, Summary};

/// A line of a report.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, invariant, reason } = self;
        write!(f, "{invariant}  {key}  {reason}")
    }
}

/// A line under those of a finding.
impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, what, is_whole: _ } = self;
        write!(f, "->  {key}  {what}")
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Object => "object",
            Self::Catalog => "catalog",
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::Refused => "refused",
            Self::Stray => "stray",
        })
    }
}

/// The last lines of a report.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} repositories", self.repositories)?;
        writeln!(f, "{:>8} manifests", self.manifests)?;
        writeln!(f, "{:>8} tags", self.tags)?;
        writeln!(f, "{:>8} blobs of {} bytes", self.blobs, self.bytes)?;
        if self.hashed > 0 {
            writeln!(f, "{:>8} of them hashed, of {} bytes", self.hashed, self.hashed_bytes)?;
        }
        writeln!(f, "{:>8} open uploads", self.open_uploads)?;
        writeln!(f, "{:>8} references in flight", self.pending)?;
        writeln!(f, "{:>8} references dropped", self.dropped)?;
        if self.mended > 0 {
            writeln!(f, "{:>8} mended", self.mended)?;
        }
        if self.strays > 0 {
            writeln!(f, "{:>8} strays", self.strays)?;
        }
        write!(f, "{:>8} findings", self.findings)
    }
}
