//! How bytes get a name: whole, durable, and at once.

use std::{fs::File, io, io::Write};

use rustix::{
    fs::{AtFlags, Mode, OFlags, linkat, openat, unlinkat},
    io::Errno,
};

use super::folder::Shard;

/// The mode of files until they are sealed, before the umask.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Gives a new file its name when it is whole; `false` if the name is taken. Nothing can be left of it.
#[cfg(target_os = "linux")]
pub(super) fn create_unnamed(folder: &File, name: &str, bytes: &[u8]) -> io::Result<bool> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{CWD, fstat};

    let mut file = match openat(folder, ".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, FILE_MODE) {
        Ok(file) => File::from(file),
        // What ext4 says of a folder that was removed.
        Err(Errno::PERM) if fstat(folder)?.st_nlink == 0 => return Err(Errno::NOENT.into()),
        Err(error) => return Err(error.into()),
    };
    file.write_all(bytes)?;
    file.sync_data()?;
    // By its descriptor itself only the privileged may link it.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    linked(linkat(CWD, path, folder, name, AtFlags::SYMLINK_FOLLOW))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn create_unnamed(_: &File, _: &str, _: &[u8]) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The same where there are no files without a name: `linkat` from the scratch name of the shard, then `unlinkat`.
pub(super) fn create_named(folder: &File, shard: &Shard, name: &str, bytes: &[u8]) -> io::Result<bool> {
    write_scratch(folder, shard, bytes)?;
    let created = linked(linkat(folder, &shard.scratch, folder, name, AtFlags::empty()))?;
    unlinkat(folder, &shard.scratch, AtFlags::empty())?;
    Ok(created)
}

/// Writes a file under the scratch name of the shard, durable but for the name.
pub(super) fn write_scratch(folder: &File, shard: &Shard, bytes: &[u8]) -> io::Result<()> {
    remove_leftover(folder, &shard.scratch)?;
    // Exclusive: what a crash left there may be an object already, linked but not unlinked.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, &shard.scratch, flags, FILE_MODE)?);
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if written.is_err() {
        // The disk may be full: do not keep what helps nobody.
        let _ = remove_leftover(folder, &shard.scratch);
    }
    written
}

fn remove_leftover(folder: &File, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn linked(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
