//! The directory of the store: its folders, how they become durable, its locks.

use std::{
    fs::{File, create_dir_all, remove_dir_all},
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::durable::{FILE_MODE, create_named, create_unnamed};

/// How often something is tried whose folder keeps being removed below it. Each time somebody else got on.
const TRIES: usize = 16;

/// The directory of the store, open.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) fd: File,
    /// Canonical.
    pub(super) path: PathBuf,
    /// Files without a name work here.
    pub(super) unnamed: bool,
}

/// A held lock. All keys of one shard share it.
#[derive(Debug)]
pub(super) struct Shard {
    /// The name, in any folder, under which the holder keeps bytes on their way.
    pub(super) scratch: String,
    /// Closing it gives the lock back.
    _locked: File,
}

impl Root {
    /// Opens the directory, after making sure that it can hold a store.
    pub(super) fn open(path: &Path, unnamed: bool) -> io::Result<Self> {
        match create_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let mut root = Self::look(path)?;
        let disk = fstat(&root.fd)?.st_dev;
        for above in root.path.ancestors().skip(1) {
            // Those that we may not even open, and those on other disks, are not ours: they were there before.
            match File::open(above) {
                Ok(above) if fstat(&above)?.st_dev == disk => above.sync_all()?,
                _ => break,
            }
        }
        for ours in [".locks", ".parts"] {
            root.durable_folder(ours)?;
        }
        root.unnamed = root.probe(unnamed)?;
        Ok(root)
    }

    /// Opens the directory as it is, which is enough to read.
    pub(super) fn look(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        if !path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        let fd = File::open(&path)?;
        Ok(Self { fd, path, unnamed: false })
    }

    /// Writes a file to see that it can be done and how, and that names differ by case: tags do (NAME-5).
    fn probe(&self, unnamed: bool) -> io::Result<bool> {
        let name = format!(".probe-{}", new_id()?);
        let unnamed = unnamed && create_unnamed(&self.fd, &name, b"").is_ok();
        if !unnamed {
            create_named(&self.fd, &self.lock(&name)?, &name, b"")?;
        }
        let folded = stat(&self.fd, &name.to_uppercase())?.is_some();
        unlinkat(&self.fd, &name, AtFlags::empty())?;
        if folded {
            let why = "names on this file system do not differ by case, and the tags `Latest` and `latest` must";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        Ok(unnamed)
    }

    /// Opens a folder to look into it; `None` if it is not there.
    pub(super) fn folder(&self, folder: &str) -> io::Result<Option<File>> {
        match openat(&self.fd, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(opened) => Ok(Some(File::from(opened))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a folder to give something a name in it, making whatever is missing on the way to it.
    ///
    /// Whoever made a folder may not have synced the folder above it yet, so to find it there means nothing. Who has
    /// synced says so with the sticky bit, which is never inherited: a folder that has it is durable, and so are all
    /// above it. If a power failure takes the bit back, the next one syncs again.
    ///
    /// ```text
    /// openat(root, folder) fstat(folder)                                              as a rule
    /// mkdirat(above, name) openat(above, name) fstat(folder) fsync(above) fchmod(folder, +t)    the first time
    /// ```
    ///
    /// Folders that have become empty are removed (see [`Root::remove_empty`]), so what is done in the folder may fail
    /// with `NotFound`: put both into [`retry`].
    pub(super) fn durable_folder(&self, folder: &str) -> io::Result<File> {
        let opened = if let Some(opened) = self.folder(folder)? {
            opened
        } else {
            let (above, name) = split(folder);
            match mkdirat(self.durable_folder(above)?, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            self.folder(folder)?.ok_or(Errno::NOENT)?
        };
        let mode = Mode::from_raw_mode(fstat(&opened)?.st_mode);
        if folder != "." && !mode.contains(Mode::SVTX) {
            self.durable_folder(split(folder).0)?.sync_all()?;
            // Where it cannot be had, the next one syncs again.
            let _ = fchmod(&opened, mode | Mode::SVTX);
        }
        Ok(opened)
    }

    /// Removes a folder if nothing is left in it, so that a listing is not slowed down by what once was. Those at the top
    /// stay: there are few, and they fill again.
    pub(super) fn remove_empty(&self, folder: &str) {
        if folder.contains('/') {
            // It is not empty, as a rule.
            let _ = unlinkat(&self.fd, folder, AtFlags::REMOVEDIR);
        }
    }

    /// `renameat(folder/name, .parts/<gone>) fsync(folder)`, then whatever it takes to remove that.
    ///
    /// Taken away at once, so that nobody sees it half gone or adds to it. Repeated after a crash it finds the rest, and
    /// beside it what has the name by then: something new, or the same where a power failure brought the old name back
    /// and kept the new one.
    pub(super) fn take_away(&self, folder: &File, name: &str, gone: &str) -> io::Result<()> {
        let gone = format!(".parts/{gone}.gone");
        let take = || renameat(folder, name, &self.fd, &gone);
        let remove = || match remove_dir_all(self.path.join(&gone)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let mut taken = take();
        if let Err(Errno::NOTEMPTY | Errno::EXIST) = taken {
            remove()?;
            taken = take();
        }
        match taken {
            Ok(()) | Err(Errno::NOENT | Errno::NAMETOOLONG) => {}
            Err(error) => return Err(error.into()),
        }
        folder.sync_all()?;
        remove()
    }

    /// Waits for the lock of a key: `openat(.locks/<shard>) flock(EX)`.
    pub(super) fn lock(&self, key: &str) -> io::Result<Shard> {
        let shard = shard_of(key);
        let file = self.lock_file(&shard)?;
        file.lock()?;
        Ok(Shard { scratch: format!(".{shard}"), _locked: file })
    }

    /// Waits until nobody reads the names in this folder, and lets nobody begin. For as short as it takes to put one file
    /// in the place of another: tmpfs and btrfs give the name a new place in the folder, where who is reading the names
    /// would miss it.
    pub(super) fn lock_against_listing(&self, folder: &str) -> io::Result<File> {
        let file = self.lock_file(&format!("{}.names", shard_of(folder)))?;
        file.lock_shared()?;
        Ok(file)
    }

    /// The other side of it. Where there are no locks nobody writes: whoever does has made them.
    pub(super) fn lock_for_listing(&self, folder: &str) -> io::Result<Option<File>> {
        match self.lock_file(&format!("{}.names", shard_of(folder))) {
            Ok(file) => file.lock().map(|()| Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        // To be locked it need not be written, and one that another user's command has made cannot be.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC;
        Ok(openat(&self.fd, format!(".locks/{name}"), flags, FILE_MODE)?.into())
    }
}

fn shard_of(text: &str) -> String {
    let [shard, ..]: [u8; 32] = Sha256::digest(text).into();
    format!("{shard:02x}")
}

/// The folder of a key, and its name in there.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or((".", key))
}

/// What is under a name; `None` if nothing is. A name too long for the disk is nobody's.
pub(super) fn stat(folder: &File, name: &str) -> io::Result<Option<(FileType, u64)>> {
    match statat(folder, name, AtFlags::empty()) {
        Ok(stat) => {
            let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
            Ok(Some((FileType::from_raw_mode(stat.st_mode), size)))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All names in a folder that may be part of keys or are segments, in no order, and whether they are folders.
pub(super) fn names(folder: &File) -> io::Result<Vec<(String, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let is_folder = match entry.file_type() {
            FileType::Symlink => {
                // A folder may have been at its end, on a disk that is not there today: all of it would seem gone.
                let nowhere = || io::Error::other(format!("{name} is a link that leads nowhere"));
                stat(folder, name)?.ok_or_else(nowhere)?.0 == FileType::Directory
            }
            FileType::Unknown => stat(folder, name)?.is_some_and(|(kind, _)| kind == FileType::Directory),
            known => known == FileType::Directory,
        };
        names.push((name.to_owned(), is_folder));
    }
    Ok(names)
}

/// Does something in a folder, again if the folder was removed meanwhile. Told how often it was tried before.
pub(super) fn retry<T>(mut attempt: impl FnMut(usize) -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match attempt(tries) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

pub(super) fn new_id() -> io::Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}
