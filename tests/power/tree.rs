//! What lies in a directory.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::PermissionsExt,
    path::Path,
    rc::Rc,
};

/// A directory and all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tree {
    File { mode: u32, bytes: Rc<Vec<u8>> },
    Folder { mode: u32, below: BTreeMap<String, Tree> },
}

impl Tree {
    pub(crate) fn read(path: &Path) -> Self {
        let metadata = fs::metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_file() {
            return Self::File { mode, bytes: Rc::new(fs::read(path).unwrap()) };
        }
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        let below = entries.map(|entry| (entry.file_name().into_string().unwrap(), Self::read(&entry.path())));
        Self::Folder { mode, below: below.collect() }
    }

    /// Puts it on a real disk.
    pub(crate) fn write(&self, path: &Path) {
        let mode = match self {
            Self::File { mode, bytes } => {
                fs::write(path, bytes.as_slice()).unwrap();
                mode
            }
            Self::Folder { mode, below } => {
                if !path.exists() {
                    fs::create_dir(path).unwrap();
                }
                for (name, tree) in below {
                    tree.write(&path.join(name));
                }
                mode
            }
        };
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }

    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}
