//! Multipart uploads: segments that grow under one writer, and how they become an object without moving a byte.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{File, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};
use uuid::Uuid;

use super::{
    durable::FILE_MODE,
    folder::{Root, new_id, retry, split, stat},
    segments::{folder_of, name_of},
};
use crate::store::{Part, Placed, Span};

/// The mode of a segment that is complete. Nobody writes into it any more: the bit is looked at under the lock of the
/// segment, since to the privileged it would mean nothing.
const SEALED: u32 = 0o444;
const WRITABLE: u32 = 0o222;

/// A part as it lies on the disk: the first bytes of a segment, with all parts that it stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tag {
    segment: Uuid,
    length: u64,
}

impl Tag {
    fn of(part: &Part) -> io::Result<Self> {
        let tag = part.tag.split_once(':').and_then(|(segment, length)| {
            let tag = Self { segment: Uuid::try_parse(segment).ok()?, length: length.parse().ok()? };
            (tag.length == part.size).then_some(tag)
        });
        tag.ok_or_else(|| corrupt(format!("part {} of {} bytes is tagged {:?}", part.number, part.size, part.tag)))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment.simple(), self.length)
    }
}

impl Root {
    /// `mkdirat(.parts/<id>) openat fstat fsync(.parts) fchmod`
    pub(super) fn begin(&self) -> io::Result<String> {
        let id = new_id()?.simple().to_string();
        self.durable_folder(&folder(&id)?)?;
        Ok(id)
    }

    /// ```text
    /// openat(segment) flock(EX) fstat pwrite        the previous part, lengthened
    /// openat(segment, O_EXCL) pwrite                a segment of its own
    /// ```
    ///
    /// A segment is only lengthened if it ends where the previous part ends. Otherwise somebody was here before: a write
    /// that failed half way, or one that its caller gave up and that may have been acknowledged all the same. Bytes that
    /// a tag may name are never touched again, so whatever comes late or twice does no harm.
    pub(super) fn put_part(&self, id: &str, number: u32, bytes: &[u8], previous: Option<Part>) -> io::Result<Placed> {
        let folder = folder(id)?;
        if let Some(mut part) = previous
            && let Some(tag) = self.lengthen(&folder, Tag::of(&part)?, bytes)?
        {
            part.size = tag.length;
            part.tag = tag.to_string();
            return Ok(Placed::Grown(part));
        }
        let tag = Tag { segment: new_id()?, length: bytes.len() as u64 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let path = segment_path(&folder, tag);
        let file = File::from(openat(&self.fd, &path, flags, FILE_MODE)?);
        if let Err(error) = file.write_all_at(bytes, 0) {
            // The disk may be full: do not keep what helps nobody.
            let _ = unlinkat(&self.fd, &path, AtFlags::empty());
            return Err(error);
        }
        Ok(Placed::New(Part { number, size: tag.length, tag: tag.to_string() }))
    }

    /// `None`: not this one any more.
    fn lengthen(&self, folder: &str, tag: Tag, bytes: &[u8]) -> io::Result<Option<Tag>> {
        let file = match openat(&self.fd, segment_path(folder, tag), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => File::from(file),
            // Sealed.
            Err(Errno::ACCESS) => return Err(io::ErrorKind::NotFound.into()),
            Err(error) => return Err(error.into()),
        };
        file.lock()?;
        let found = file.metadata()?;
        // Shorter: a power failure took bytes that were not synced.
        if found.mode() & WRITABLE == 0 || found.len() < tag.length {
            return Err(io::ErrorKind::NotFound.into());
        }
        if found.len() > tag.length {
            return Ok(None);
        }
        if let Err(error) = file.write_all_at(bytes, tag.length) {
            let _ = file.set_len(tag.length);
            return Err(error);
        }
        Ok(Some(Tag { length: tag.length + bytes.len() as u64, ..tag }))
    }

    /// `openat fdatasync` for each segment, then `openat fsync` for the folder of the upload, which has their names.
    pub(super) fn sync_parts(&self, id: &str, parts: &[Part]) -> io::Result<()> {
        let folder = folder(id)?;
        let segments: BTreeSet<Uuid> =
            parts.iter().map(|part| Ok(Tag::of(part)?.segment)).collect::<io::Result<_>>()?;
        for segment in segments {
            self.open_segment(&folder, Tag { segment, length: 0 })?.sync_data()?;
        }
        self.folder(&folder)?.ok_or(Errno::NOENT)?.sync_all()
    }

    /// ```text
    /// for each segment: openat flock(SH) fstat fdatasync fchmod(0444)
    /// openat(.locks/<shard>) flock(EX) fstatat(name) fstatat(name#)
    /// one, named from end to end:
    ///     openat(folder) fstat(folder) renameat(segment, name) fsync(folder)
    /// several:
    ///     mkdirat(whole) linkat(segment, whole/<start>-<length>)… fsync(whole)
    ///     openat(folder) fstat(folder) renameat(whole, name#) fsync(folder)
    /// unlinkat(.parts/<id>, REMOVEDIR), or what abort does
    /// ```
    ///
    /// A crash while sealing or assembling leaves an open upload that takes no more into these segments; completing it
    /// again does the same once more. A crash after `renameat` leaves the object, and beside it an upload without these
    /// segments (one), or with second names of them (several): it is gone for whoever completes, and aborting drops it.
    pub(super) fn complete(&self, id: &str, key: &str, parts: &[Part]) -> io::Result<()> {
        let folder = folder(id)?;
        if parts.is_empty() {
            return Err(corrupt("no parts"));
        }
        if !parts.is_sorted_by(|one, next| one.number < next.number) {
            return Err(corrupt("parts out of order"));
        }
        let mut tags: Vec<Tag> = parts.iter().map(Tag::of).collect::<io::Result<_>>()?;
        if tags.iter().any(|tag| tag.length > 0) {
            // Those without bytes have no place.
            tags.retain(|tag| tag.length > 0);
        } else {
            tags.truncate(1);
        }
        let mut exact = true;
        for tag in &tags {
            exact &= self.seal(&folder, *tag)? == tag.length;
        }
        // One at a time: whoever comes second, with these parts or others, finds the object and changes nothing.
        let _shard = self.lock(key)?;
        if self.size(key)?.is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let published = match tags.as_slice() {
            [only] if exact => self.publish(&segment_path(&folder, *only), key)?,
            several => self.publish(&self.assemble(&folder, several)?, &folder_of(key))?,
        };
        if !published {
            return Err(io::ErrorKind::NotFound.into());
        }
        match unlinkat(&self.fd, &folder, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(_) => self.abort(id),
        }
    }

    /// Drops an upload.
    pub(super) fn abort(&self, id: &str) -> io::Result<()> {
        let Ok(folder) = folder(id) else { return Ok(()) };
        let (parts, name) = split(&folder);
        self.take_away(&self.durable_folder(parts)?, name, name)
    }

    /// Makes a segment durable and ends its growth; its length. Waits for a writer that is at it.
    fn seal(&self, folder: &str, tag: Tag) -> io::Result<u64> {
        let file = self.open_segment(folder, tag)?;
        file.lock_shared()?;
        let found = file.metadata()?;
        if found.len() < tag.length {
            return Err(corrupt(format!("a segment has {} bytes of {}", found.len(), tag.length)));
        }
        file.sync_data()?;
        if found.mode() & WRITABLE != 0 {
            file.set_permissions(Permissions::from_mode(SEALED))?;
        }
        Ok(found.len())
    }

    /// Gathers segments under the names that say their place; the path of the folder that has them.
    fn assemble(&self, folder: &str, tags: &[Tag]) -> io::Result<String> {
        let path = format!("{folder}/{}", new_id()?.simple());
        mkdirat(&self.fd, &path, Mode::from_raw_mode(0o755))?;
        let whole = self.folder(&path)?.ok_or(Errno::NOENT)?;
        let mut start = 0;
        for tag in tags {
            let name = name_of(Span { start, length: tag.length });
            linkat(&self.fd, segment_path(folder, *tag), &whole, name, AtFlags::empty())?;
            start += tag.length;
        }
        whole.sync_all()?;
        Ok(path)
    }

    /// Gives what is whole and durable the name of an object; `false` if it is not there any more.
    fn publish(&self, whole: &str, key: &str) -> io::Result<bool> {
        let (folder, name) = split(key);
        retry(|_| {
            let folder = self.durable_folder(folder)?;
            match renameat(&self.fd, whole, &folder, name) {
                Ok(()) => folder.sync_all().map(|()| true),
                Err(Errno::NOENT) if stat(&self.fd, whole)?.is_none() => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn open_segment(&self, folder: &str, tag: Tag) -> io::Result<File> {
        Ok(openat(&self.fd, segment_path(folder, tag), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

/// The folder of an upload; an id that is not of our making is of no upload.
fn folder(id: &str) -> io::Result<String> {
    let id = Uuid::try_parse(id).map_err(|_| io::ErrorKind::NotFound)?;
    Ok(format!(".parts/{}", id.simple()))
}

fn segment_path(folder: &str, tag: Tag) -> String {
    format!("{folder}/{}", tag.segment.simple())
}

fn corrupt(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}
