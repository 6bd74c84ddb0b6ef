//! Where what a slow client has sent waits when others need the memory that it is in.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use bytes::Bytes;
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking};

/// Bytes in a temporary file that has no name, so that nothing of it is left when this process ends.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    length: usize,
    room: OwnedSemaphorePermit,
}

impl Spool {
    /// `room`: for these bytes.
    pub(super) async fn of(bytes: Bytes, room: OwnedSemaphorePermit) -> io::Result<Self> {
        let length = bytes.len();
        let file = spawn_blocking(move || {
            let mut file = tempfile::tempfile()?;
            file.write_all(&bytes)?;
            Ok::<_, io::Error>(file)
        });
        Ok(Self { file: file.await??, length, room })
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Writes bytes behind the others, where those can still be read if that fails.
    pub(super) async fn append(&mut self, bytes: Bytes, room: OwnedSemaphorePermit) -> io::Result<()> {
        let (mut file, end, length) = (self.file.try_clone()?, self.length as u64, bytes.len());
        spawn_blocking(move || {
            // What an append that failed has left is written over.
            file.seek(SeekFrom::Start(end))?;
            file.write_all(&bytes)
        })
        .await??;
        self.length += length;
        self.room.merge(room);
        Ok(())
    }

    /// Reads all of it to the end of a buffer.
    pub(super) async fn read(mut self, mut into: Vec<u8>) -> io::Result<Vec<u8>> {
        let bytes = spawn_blocking(move || {
            self.file.seek(SeekFrom::Start(0))?;
            let read = self.file.take(self.length as u64).read_to_end(&mut into)?;
            if read == self.length { Ok(into) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        });
        bytes.await?
    }
}

#[cfg(test)]
impl Spool {
    /// The same, of which no more can be written.
    pub(super) fn full(self) -> Self {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
        Self { file: File::open(path).unwrap(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::upload::Budget;

    #[tokio::test]
    async fn what_is_written_is_read_in_one_piece() {
        let budget = Budget::new(1);
        let room = |bytes| budget.try_file(bytes).unwrap();
        let mut spool = Spool::of(Bytes::from_static(b"one "), room(4)).await.unwrap();
        spool.append(Bytes::from_static(b"two "), room(4)).await.unwrap();
        spool.append(Bytes::from_static(b"three"), room(5)).await.unwrap();
        assert_eq!(spool.len(), 13);
        assert_eq!(spool.read(b"zero ".to_vec()).await.unwrap(), b"zero one two three");
    }
}
