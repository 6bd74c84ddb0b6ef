//! From the bodies that a store answers to one stream of chunks.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use rustix::{
    buffer::spare_capacity,
    io::{pread, retry_on_intr},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Body, Error, ErrorKind, FileSpan, Result, fs::failed};

/// How much is read from a file at once: measured fastest, from the page cache and over HTTP.
const CHUNK: usize = 256 * 1024;
/// The same while there are many readers, each of which may stall with two chunks in hand.
const SMALL_CHUNK: usize = 64 * 1024;
const MANY: usize = 32;

/// How many readers there are in this process.
static READERS: AtomicUsize = AtomicUsize::new(0);

impl Body {
    /// The bytes in order, in chunks that are never empty. It ends without an error only if all of them came.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => stream::empty().boxed(),
            Self::Bytes(bytes) => stream::iter([Ok(bytes)]).boxed(),
            Self::Files(files) => stream_files(files.into_iter().map(Ok)),
            Self::Stream(stream) => stream,
        }
    }
}

/// Streams runs of files one after the other; the next run is only asked for when the one before it is done.
///
/// While a chunk is on its way out the next one is being read, and no more than that: a slow reader holds no thread,
/// and of one that goes away at most one read is left.
pub(super) fn stream_files(
    files: impl Iterator<Item = Result<FileSpan>> + Send + 'static,
) -> BoxStream<'static, Result<Bytes>> {
    let reader = Reader { files: Box::new(files), current: None, _counted: Counted::new() };
    stream::unfold(Ahead::Idle(reader), |ahead| async {
        let reading = match ahead {
            Ahead::Done => return None,
            Ahead::Idle(reader) => read_next(reader),
            Ahead::Reading(reading) => reading,
        };
        match reading.await {
            Ok((reader, Ok(Some(chunk)))) => Some((Ok(chunk), Ahead::Reading(read_next(reader)))),
            Ok((_, Ok(None))) => None,
            Ok((_, Err(error))) => Some((Err(error), Ahead::Done)),
            Err(gone) => {
                let error = Error::new(ErrorKind::Unavailable, "a read was given up").with_source(gone);
                Some((Err(error), Ahead::Done))
            }
        }
    })
    .boxed()
}

enum Ahead {
    Idle(Reader),
    Reading(JoinHandle<(Reader, Result<Option<Bytes>>)>),
    Done,
}

fn read_next(mut reader: Reader) -> JoinHandle<(Reader, Result<Option<Bytes>>)> {
    spawn_blocking(move || {
        let chunk = reader.chunk();
        (reader, chunk)
    })
}

struct Reader {
    files: Box<dyn Iterator<Item = Result<FileSpan>> + Send>,
    /// What is left of the run being read.
    current: Option<FileSpan>,
    _counted: Counted,
}

/// One of [`READERS`].
struct Counted;

impl Counted {
    fn new() -> Self {
        READERS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reader {
    /// The next chunk; `None` after the last.
    fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match &mut self.current {
                Some(run) if run.span.length > 0 => return read_chunk(run).map(Some),
                _ => match self.files.next() {
                    Some(run) => self.current = Some(run?),
                    None => return Ok(None),
                },
            }
        }
    }
}

/// Takes a chunk off the front of a run.
fn read_chunk(run: &mut FileSpan) -> Result<Bytes> {
    let chunk = if READERS.load(Ordering::Relaxed) > MANY { SMALL_CHUNK } else { CHUNK };
    let wanted = usize::try_from(run.span.length).unwrap_or(chunk).min(chunk);
    let mut buffer = Vec::with_capacity(wanted);
    let read = retry_on_intr(|| pread(&run.file, spare_capacity(&mut buffer), run.span.start))
        .map_err(|error| failed(|| "reading a file".to_owned())(error.into()))?;
    if read == 0 {
        let context = format!("a file ends at {}, {} bytes early", run.span.start, run.span.length);
        return Err(Error::new(ErrorKind::Corrupt, context));
    }
    // The capacity may be more than was asked for, and the file longer than the run.
    buffer.truncate(wanted);
    run.span.start += buffer.len() as u64;
    run.span.length -= buffer.len() as u64;
    Ok(Bytes::from(buffer))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::store::Span;

    fn file(bytes: &[u8], start: u64, length: u64) -> FileSpan {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        FileSpan { file, span: Span { start, length } }
    }

    async fn collect(body: Body) -> (Vec<u8>, Option<ErrorKind>) {
        let mut stream = body.into_stream();
        let mut whole = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) if chunk.is_empty() => panic!("an empty chunk"),
                Ok(chunk) => whole.extend_from_slice(&chunk),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "more after an error");
                    return (whole, Some(error.kind));
                }
            }
        }
        (whole, None)
    }

    #[tokio::test]
    async fn runs_of_files_are_streamed_one_after_the_other() {
        let large: Vec<u8> = (0..2 * CHUNK + 5).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let runs = vec![file(b"0123456789", 2, 3), file(b"x", 1, 0), file(&large, 1, large.len() as u64 - 2)];
        let expected = [b"234", &large[1..large.len() - 1]].concat();
        assert_eq!(collect(Body::Files(runs)).await, (expected, None));
        assert_eq!(collect(Body::Files(vec![])).await, (vec![], None));
        assert_eq!(collect(Body::Bytes(Bytes::new())).await, (vec![], None));
        assert_eq!(collect(Body::Bytes(Bytes::from_static(b"ab"))).await, (b"ab".to_vec(), None));
    }

    /// BLOB-6
    #[tokio::test]
    async fn a_file_shorter_than_its_span_is_an_error_and_never_a_clean_end() {
        let runs = vec![file(b"0123456789", 5, 6), file(b"never reached", 0, 5)];
        assert_eq!(collect(Body::Files(runs)).await, (b"56789".to_vec(), Some(ErrorKind::Corrupt)));
    }

    /// GEN-13
    #[tokio::test]
    async fn a_reader_that_goes_away_leaves_at_most_one_read() {
        let (asked, runs) = std::sync::mpsc::channel();
        let endless = std::iter::repeat_with(move || {
            asked.send(()).unwrap();
            Ok(file(b"x", 0, 1))
        });
        let mut stream = stream_files(endless);
        assert_eq!(stream.next().await.unwrap().unwrap(), "x");
        drop(stream);
        assert!(runs.iter().count() <= 2, "iteration ends when the reader and with it the sender is dropped");
    }
}
