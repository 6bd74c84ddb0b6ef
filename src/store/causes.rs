//! Why something failed, told to the end.

use std::{error::Error, fmt, iter::successors};

/// An error with all its causes, in one line.
#[derive(Debug)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        for cause in successors(self.0.source(), |cause| (*cause).source()) {
            let cause = cause.to_string();
            // Some only pass on what their cause says.
            if cause != said {
                write!(f, ": {cause}")?;
            }
            said = cause;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::store::{self, ErrorKind};

    #[test]
    fn the_deepest_cause_is_told_too() {
        let deep = store::Error::new(ErrorKind::Full, "put b").with_source(io::Error::other("no room"));
        let error = store::Error::new(ErrorKind::Unavailable, "put a").with_source(deep);
        assert_eq!(Causes(&error).to_string(), "store unavailable: put a: store full: put b: no room");
    }
}
