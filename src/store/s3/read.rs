//! Spans of objects, streamed.

use aws_sdk_s3::{operation::get_object::GetObjectOutput, primitives::ByteStream};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::store::{Body, Error, ErrorKind, Key, Object, Result, Span};

/// How to ask for a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// There is nothing to read: the size is all that is asked for.
    Size,
    Whole,
    Range(String),
}

/// Larger numbers than any object has bytes, which some stores do not parse.
const FAR: u64 = i64::MAX as u64;

impl Ask {
    pub(super) fn for_span(span: Span) -> Self {
        let Span { start, length } = span;
        let end = start.saturating_add(length);
        match (start, length) {
            (_, 0) | (FAR.., _) => Self::Size,
            (0, FAR..) => Self::Whole,
            _ if end > FAR => Self::Range(format!("bytes={start}-")),
            _ => Self::Range(format!("bytes={start}-{}", end - 1)),
        }
    }
}

/// The object as answered, if it is the span that was asked for.
pub(super) fn answered(key: &Key, span: Span, answer: GetObjectOutput) -> Result<Object> {
    let length = answer.content_length.and_then(|length| u64::try_from(length).ok());
    let (start, size) = match &answer.content_range {
        Some(range) => parse_content_range(range).unzip(),
        None => (Some(0), length),
    };
    match (start, length, size) {
        (Some(start), Some(length), Some(size)) if Span { start, length } == span.within(size) => {
            Ok(Object { size, body: Body::Stream(exactly(length, answer.body, key.clone())) })
        }
        _ => {
            let (range, length) = (answer.content_range, answer.content_length);
            let context = format!("open {key}: {span:?} was asked for, {range:?} of length {length:?} answered");
            Err(Error::new(ErrorKind::Corrupt, context))
        }
    }
}

/// `bytes 2-5/10`: begins at 2, of 10.
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

/// The body, which ends cleanly only after as many bytes as were promised.
fn exactly(length: u64, body: ByteStream, key: Key) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold((body, length), move |(mut body, left)| {
        let key = key.clone();
        async move {
            loop {
                match body.next().await {
                    Some(Ok(chunk)) if chunk.is_empty() => {}
                    Some(Ok(chunk)) => match left.checked_sub(chunk.len() as u64) {
                        Some(left) => return Ok(Some((chunk, (body, left)))),
                        None => return Err(torn(&key, "more bytes than were promised")),
                    },
                    Some(Err(error)) => return Err(torn(&key, "the answer broke off").with_source(error)),
                    None if left == 0 => return Ok(None),
                    None => return Err(torn(&key, "the answer ended early")),
                }
            }
        }
    })
    .boxed()
}

fn torn(key: &Key, what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("open {key}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_becomes_a_range_that_every_store_can_parse() {
        let range = |text: &str| Ask::Range(text.to_owned());
        for (start, length, ask) in [
            (0, 0, Ask::Size),
            (7, 0, Ask::Size),
            (u64::MAX, 1, Ask::Size),
            (0, u64::MAX, Ask::Whole),
            (0, 1, range("bytes=0-0")),
            (2, 3, range("bytes=2-4")),
            (2, u64::MAX, range("bytes=2-")),
            (2, FAR, range("bytes=2-")),
            (FAR - 1, 1, range("bytes=9223372036854775806-9223372036854775806")),
            (FAR - 1, 2, range("bytes=9223372036854775806-")),
        ] {
            assert_eq!(Ask::for_span(Span { start, length }), ask, "{length} from {start}");
        }
    }

    async fn end(promised: u64, bytes: &'static [u8]) -> (usize, Option<ErrorKind>) {
        let key = Key::parse("a").unwrap();
        let mut stream = exactly(promised, ByteStream::from_static(bytes), key);
        let mut read = 0;
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => read += chunk.len(),
                Err(error) => return (read, Some(error.kind)),
            }
        }
        (read, None)
    }

    #[tokio::test]
    async fn a_body_that_is_not_as_long_as_promised_ends_in_an_error() {
        assert_eq!(end(3, b"123").await, (3, None));
        assert_eq!(end(0, b"").await, (0, None));
        assert_eq!(end(4, b"123").await, (3, Some(ErrorKind::Unavailable)));
        assert_eq!(end(2, b"123").await, (0, Some(ErrorKind::Unavailable)));
    }

    #[test]
    fn an_answer_that_is_not_the_span_asked_for_is_damage() {
        let key = Key::parse("a").unwrap();
        let answer = |range: Option<&str>, length: i64| {
            let answer = GetObjectOutput::builder().content_length(length);
            answer.set_content_range(range.map(str::to_owned)).build()
        };
        let size = |span, range, length| answered(&key, span, answer(range, length)).map(|object| object.size);
        assert_eq!(size(Span::new(2, 3), Some("bytes 2-4/10"), 3).unwrap(), 10);
        assert_eq!(size(Span::new(2, 30), Some("bytes 2-9/10"), 8).unwrap(), 10);
        assert_eq!(size(Span::ALL, None, 10).unwrap(), 10);
        assert_eq!(size(Span::first(20), None, 10).unwrap(), 10);
        for (span, range, length) in [
            (Span::new(2, 3), None, 10),
            (Span::new(2, 3), Some("bytes 1-3/10"), 3),
            (Span::new(2, 3), Some("bytes 2-4/10"), 2),
            (Span::new(2, 3), Some("bytes 2-9/10"), 8),
            (Span::new(2, 3), Some("bytes 2-4/*"), 3),
            (Span::new(2, 3), Some("2-4"), 3),
            (Span::ALL, None, -1),
        ] {
            let error = size(span, range, length).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt, "{span:?} {range:?} {length}");
        }
    }
}
