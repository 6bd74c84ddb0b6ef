//! Listings: an ordered walk that enters only what can matter for the page.

use std::{collections::BTreeMap, io};

use rustix::fs::FileType;

use super::{
    folder::{Root, names, stat},
    segments::Segments,
};
use crate::store::{Entry, Key};

impl Root {
    /// In each folder on the way `openat openat(.locks/<shard>.names) flock(EX) getdents…`, and for each entry of the page
    /// `fstatat`.
    ///
    /// A folder stands in the order with its `/`, since its keys do: `a-b` < `a.b` < `a/b` < `a0`. The names of a folder
    /// have to be read all, for the system has them in no order; whole folders are skipped.
    pub(super) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Vec<Entry>> {
        let mut walk = Walk { root: self, prefix, after: after.unwrap_or_default(), limit, page: Vec::new() };
        match prefix.rsplit_once('/') {
            None => walk.folder("")?,
            Some((folder, _)) if Key::parse(folder).is_some() => walk.folder(&format!("{folder}/"))?,
            Some(_) => {}
        }
        Ok(walk.page)
    }
}

struct Walk<'a> {
    root: &'a Root,
    prefix: &'a str,
    /// Empty is before all keys.
    after: &'a str,
    limit: usize,
    page: Vec<Entry>,
}

#[derive(Clone, Copy)]
enum Kind {
    Folder,
    File,
    Segments,
}

impl Walk<'_> {
    /// Visits a folder; its path is empty or ends in `/`.
    fn folder(&mut self, path: &str) -> io::Result<()> {
        let at = path.strip_suffix('/').unwrap_or(".");
        let Some(folder) = self.root.folder(at)? else { return Ok(()) };
        let locked = self.root.lock_for_listing(at)?;
        let names = names(&folder)?;
        drop(locked);
        let mut found = BTreeMap::new();
        for (name, is_folder) in names {
            let (name, kind) = match name.strip_suffix('#') {
                Some(name) if is_folder => (name, Kind::Segments),
                _ if is_folder => (name.as_str(), Kind::Folder),
                _ => (name.as_str(), Kind::File),
            };
            // Whatever else lies around here is not ours, and need not even be readable.
            if Key::parse(name).is_none() {
                continue;
            }
            let text = match kind {
                Kind::Folder => format!("{path}{name}/"),
                Kind::File | Kind::Segments => format!("{path}{name}"),
            };
            if self.wants(&text, kind) {
                found.insert(text, kind);
            }
        }
        for (text, kind) in found {
            if self.page.len() == self.limit {
                break;
            }
            let size = match kind {
                Kind::Folder => {
                    self.folder(&text)?;
                    continue;
                }
                Kind::File => stat(&self.root.fd, &text)
                    .map(|found| found.and_then(|(kind, size)| (kind == FileType::RegularFile).then_some(size))),
                Kind::Segments => {
                    Segments::open(self.root, &text).map(|segments| segments.map(|segments| segments.size()))
                }
            };
            // One bad file keeps no others from being listed, nor is it left out: who reads it is told what is the matter.
            let size = size.unwrap_or(Some(Entry::UNKNOWN));
            // Gone meanwhile: absent.
            if let (Some(size), Some(key)) = (size, Key::parse(text)) {
                self.page.push(Entry { key, size });
            }
        }
        Ok(())
    }

    /// Whether this is a key of the listing, or a folder that may have some.
    fn wants(&self, text: &str, kind: Kind) -> bool {
        match kind {
            Kind::Folder => {
                (text.starts_with(self.prefix) || self.prefix.starts_with(text))
                    && (text > self.after || self.after.starts_with(text))
            }
            Kind::File | Kind::Segments => text.starts_with(self.prefix) && text > self.after,
        }
    }
}
