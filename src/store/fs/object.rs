//! Objects: what it takes to publish, replace and remove one.

use std::{
    fs::File,
    io::{self, Read},
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat},
    io::Errno,
};

use super::{
    durable::{create_named, create_unnamed, write_scratch},
    folder::{Root, retry, sha256_hex, split, stat},
    segments::{self, Segments},
};
use crate::store::{Body, Deleted, FileSpan, Object, Put, Span, Version, Versioned};

/// The largest object that is held in memory whole.
pub(super) const MAX_READ: u64 = 16 * 1024 * 1024;

impl Root {
    pub(super) fn read(&self, key: &str) -> io::Result<Option<Versioned>> {
        if let Some(found) = self.read_file(key)? {
            return Ok(Some(found));
        }
        let segments = Segments::open(self, key)?;
        segments.map(|segments| read_whole(segments.size(), segments.into_files(Span::ALL))).transpose()
    }

    /// `openat(key) fstat`, and reads as the body is streamed.
    pub(super) fn open_object(&self, key: &str, span: Span) -> io::Result<Option<Object>> {
        if let Some((file, size)) = self.file(key)? {
            let body = Body::Files(vec![FileSpan { file, span: span.within(size) }]);
            return Ok(Some(Object { size, body }));
        }
        let segments = Segments::open(self, key)?;
        Ok(segments.map(|segments| Object { size: segments.size(), body: segments.into_body(span) }))
    }

    /// `fstatat(key) openat(folder) fsync(folder)`: whoever gave it its name may have failed to make that durable.
    pub(super) fn head(&self, key: &str) -> io::Result<Option<u64>> {
        let size = self.size(key)?;
        if size.is_some()
            && let Some(folder) = self.folder(split(key).0)?
        {
            folder.sync_all()?;
        }
        Ok(size)
    }

    pub(super) fn size(&self, key: &str) -> io::Result<Option<u64>> {
        match stat(&self.fd, key)? {
            Some((FileType::RegularFile, size)) => Ok(Some(size)),
            _ => Ok(Segments::open(self, key)?.map(|segments| segments.size())),
        }
    }

    /// ```text
    /// openat(folder) fstat(folder)                  durable, or made so
    /// fstatat(name) fstatat(name#)                  taken: nothing is written
    /// openat(folder, ".", O_TMPFILE)
    /// write fdatasync
    /// linkat(/proc/self/fd/N, folder, name)         EEXIST: lost
    /// fsync(folder)
    /// ```
    ///
    /// A crash before `linkat` leaves nothing; a power failure after it leaves all or nothing. Who lost syncs as well:
    /// what it lost to must not vanish after it said so.
    pub(super) fn create(&self, key: &str, bytes: &[u8]) -> io::Result<Put> {
        let (folder, name) = split(key);
        retry(|tries| {
            let folder = self.durable_folder(folder)?;
            let taken = stat(&folder, name)?.is_some() || stat(&folder, &segments::folder_of(name))?.is_some();
            let created = if taken {
                false
            } else if self.unnamed && tries == 0 {
                create_unnamed(&folder, name, bytes)?
            } else {
                // Something that has a name keeps the folder from being removed again.
                create_named(&folder, &self.lock(key)?, name, bytes)?
            };
            folder.sync_all()?;
            Ok(if created { Put::Stored(version_of(bytes)) } else { Put::Lost })
        })
    }

    /// ```text
    /// openat(.locks/<shard>) flock(EX)
    /// openat(folder) openat(name) fstat read        another version: lost
    /// unlinkat(scratch) openat(scratch, O_EXCL)
    /// write fdatasync
    /// openat(.locks/<shard>.names) flock(SH) renameat(scratch, name)
    /// fsync(folder)
    /// ```
    ///
    /// Only the lock makes comparing and renaming one step, and all who replace or delete take it. Who creates does not
    /// need it: `linkat` cannot succeed while there is something to replace. A crash at any point leaves one version or
    /// the other, and at most a scratch file, which the next holder of the lock removes. An object made of segments is no
    /// register and never replaced.
    pub(super) fn replace(&self, key: &str, bytes: &[u8], version: &Version) -> io::Result<Put> {
        let (path, name) = split(key);
        let shard = self.lock(key)?;
        let Some(folder) = self.folder(path)? else { return Ok(Put::Lost) };
        let holds = self.has_version(key, version)?;
        if holds {
            write_scratch(&folder, &shard, bytes)?;
            let _names = self.lock_against_listing(path)?;
            renameat(&folder, &shard.scratch, &folder, name)?;
        }
        folder.sync_all()?;
        Ok(if holds { Put::Stored(version_of(bytes)) } else { Put::Lost })
    }

    /// `openat(.locks/<shard>) flock(EX) openat(folder) unlinkat(name) fsync(folder) unlinkat(folder, REMOVEDIR)`
    ///
    /// It syncs also if there is nothing: who removed it may not have done so yet.
    pub(super) fn delete(&self, key: &str) -> io::Result<()> {
        let (path, name) = split(key);
        let _shard = self.lock(key)?;
        let Some(folder) = self.folder(path)? else { return Ok(()) };
        match unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) => folder.sync_all()?,
            // Or is it one of several segments?
            Err(Errno::NOENT) => segments::delete(self, &folder, key)?,
            Err(error) => match stat(&folder, name)? {
                Some((FileType::Directory, _)) => return Ok(()),
                _ => return Err(error.into()),
            },
        }
        self.remove_empty(path);
        Ok(())
    }

    /// `openat(.locks/<shard>) flock(EX) openat(folder) openat(name) fstat read unlinkat(name) fsync(folder)`
    pub(super) fn delete_if(&self, key: &str, version: &Version) -> io::Result<Deleted> {
        let (path, name) = split(key);
        let _shard = self.lock(key)?;
        let Some(folder) = self.folder(path)? else { return Ok(Deleted::Lost) };
        let holds = self.has_version(key, version)?;
        if holds {
            unlinkat(&folder, name, AtFlags::empty())?;
        }
        folder.sync_all()?;
        self.remove_empty(path);
        Ok(if holds { Deleted::Deleted } else { Deleted::Lost })
    }

    /// Opens the file of an object; `None` if there is none.
    fn file(&self, key: &str) -> io::Result<Option<(File, u64)>> {
        let file = match openat(&self.fd, key, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        Ok(Some((file, u64::try_from(stat.st_size).map_err(io::Error::other)?)))
    }

    fn read_file(&self, key: &str) -> io::Result<Option<Versioned>> {
        let found = self.file(key)?;
        found.map(|(file, size)| read_whole(size, [Ok(FileSpan { file, span: Span::first(size) })])).transpose()
    }

    /// Call it with the lock.
    fn has_version(&self, key: &str, version: &Version) -> io::Result<bool> {
        Ok(self.read_file(key)?.is_some_and(|there| there.version == *version))
    }
}

fn read_whole(size: u64, files: impl IntoIterator<Item = io::Result<FileSpan>>) -> io::Result<Versioned> {
    if size > MAX_READ {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{size} bytes are too many to read whole")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(io::Error::other)?);
    for file in files {
        let FileSpan { file, span } = file?;
        file.take(span.length).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 != size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes of {size}", bytes.len())));
    }
    Ok(Versioned { version: version_of(&bytes), bytes: Bytes::from(bytes) })
}

fn version_of(bytes: &[u8]) -> Version {
    Version(sha256_hex(bytes))
}
