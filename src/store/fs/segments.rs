//! Objects made of several segments: a folder of files named by the place of their bytes, so that no byte is moved.

use std::{fs::File, io};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{
    failed,
    folder::{Root, names, sha256_hex, split},
};
use crate::store::{Body, FileSpan, Span, body::stream_files};

/// An object made of segments.
///
/// * The segments follow each other without a gap, from 0 on.
#[derive(Debug)]
pub(super) struct Segments {
    folder: File,
    segments: Vec<Span>,
}

/// The name of the folder of the segments of an object.
pub(super) fn folder_of(name: &str) -> String {
    format!("{name}#")
}

/// The name of a segment: where its bytes belong, and how many of the file they are.
pub(super) fn name_of(segment: Span) -> String {
    format!("{:016x}-{:x}", segment.start, segment.length)
}

fn parse_name(name: &str) -> Option<Span> {
    let (start, length) = name.split_once('-')?;
    Some(Span { start: u64::from_str_radix(start, 16).ok()?, length: u64::from_str_radix(length, 16).ok()? })
}

impl Segments {
    /// `None` if there is no such object.
    pub(super) fn open(root: &Root, key: &str) -> io::Result<Option<Self>> {
        let path = folder_of(key);
        let folder = match root.folder(&path) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(None),
            // Too long for the disk, with the `#`.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut segments: Vec<Span> = names(&folder)?.iter().filter_map(|(name, _)| parse_name(name)).collect();
        segments.sort_unstable_by_key(|segment| segment.start);
        let mut end = 0;
        for segment in &segments {
            if segment.start != end {
                break;
            }
            end = end.saturating_add(segment.length);
        }
        let size = segments.last().map(|last| last.start.saturating_add(last.length));
        if size == Some(end) {
            return Ok(Some(Self { folder, segments }));
        }
        // It is taken apart after it was taken away, and not before.
        match root.folder(&path)? {
            None => Ok(None),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "segments are missing")),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.start + last.length)
    }

    /// The bytes of a span. Files are opened when their turn comes: there may be more than can be open at once.
    pub(super) fn into_body(self, span: Span) -> Body {
        let files = self.into_files(span).map(|file| file.map_err(failed(|| "open a segment".into())));
        Body::Stream(stream_files(files))
    }

    pub(super) fn into_files(self, span: Span) -> impl Iterator<Item = io::Result<FileSpan>> + Send {
        let Self { folder, segments } = self;
        segments.into_iter().filter_map(move |segment| {
            let from = span.start.max(segment.start);
            let to = span.start.saturating_add(span.length).min(segment.start + segment.length);
            let length = to.checked_sub(from).filter(|length| *length > 0)?;
            Some(match openat(&folder, name_of(segment), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => Ok(FileSpan { file: file.into(), span: Span { start: from - segment.start, length } }),
                Err(Errno::NOENT) => Err(io::Error::new(io::ErrorKind::InvalidData, "a segment is missing")),
                Err(error) => Err(error.into()),
            })
        })
    }
}

/// Drops an object, beside which nothing else of its key can be.
pub(super) fn delete(root: &Root, folder: &File, key: &str) -> io::Result<()> {
    root.take_away(folder, &folder_of(split(key).1), &sha256_hex(key.as_bytes()))
}
