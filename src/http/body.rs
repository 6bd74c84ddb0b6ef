//! Bodies: what comes in as a stream that knows whether it broke off, what goes out with its exact length.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    oci::ContentRange,
    registry::{Chunk, Torn},
    store,
};

/// How much of a body that nobody wants is read, so that its sender sees the answer and can send its next request on
/// the same connection. Beyond that the connection closes.
const DRAIN_BYTES: u64 = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The body of a request.
///
/// * It ends once: after its end, or after the one error that says that it broke off, there is nothing more.
/// * Nothing is read before the first poll, so that until then `Expect: 100-continue` goes unanswered.
/// * If it is dropped before its end, the rest is drained beside the answer.
#[derive(Debug)]
pub(super) struct Incoming {
    body: Option<Body>,
    /// The sender will not send before it is told to.
    held_back: bool,
}

impl Incoming {
    pub(super) fn new(body: Body, headers: &HeaderMap) -> Self {
        Self { body: Some(body), held_back: headers.contains_key(header::EXPECT) }
    }

    /// The length, where it was announced: by `Content-Length`, or by there being no body.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.as_ref().and_then(|body| body.size_hint().exact())
    }

    /// This body as a chunk of an upload.
    pub(super) fn into_chunk(self, range: Option<ContentRange>) -> Chunk {
        Chunk {
            start: range.map(|range| range.start),
            declared: range.map(ContentRange::len),
            length: self.length(),
            body: Box::pin(self),
        }
    }

    /// This body as a whole, if it is no longer than `limit`. Beyond `free` bytes it is read on in the room that is made
    /// for its length, or for the limit where none was announced.
    pub(super) async fn read<R>(
        mut self,
        limit: usize,
        free: usize,
        make_room: impl AsyncFnOnce(usize) -> R,
    ) -> Result<(Bytes, Option<R>), Unread> {
        let announced = self.length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let most = announced.unwrap_or(limit);
        if most > limit {
            return Err(Unread::TooLarge);
        }
        let (mut make_room, mut room) = (Some(make_room), None);
        let mut whole = BytesMut::with_capacity(announced.unwrap_or_default().min(free));
        while let Some(bytes) = self.next().await {
            let bytes = bytes.map_err(Unread::Torn)?;
            if bytes.len() > limit - whole.len() {
                return Err(Unread::TooLarge);
            }
            if whole.len() + bytes.len() > free
                && let Some(make_room) = make_room.take()
            {
                room = Some(make_room(most).await);
                whole.reserve(most.saturating_sub(whole.len()));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok((whole.freeze(), room))
    }
}

/// Why a body was not read as a whole.
#[derive(Debug)]
pub(super) enum Unread {
    TooLarge,
    Torn(Torn),
}

impl Stream for Incoming {
    type Item = Result<Bytes, Torn>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.held_back = false;
        loop {
            let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Some(Err(error)) => {
                    this.body = None;
                    tracing::debug!(%error, "a body broke off");
                    return Poll::Ready(Some(Err(Torn)));
                }
                None => this.body = None,
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
            && !self.held_back
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(DRAIN_TIME, drain(body)));
        }
    }
}

async fn drain(mut body: Body) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        let Some(less) = left.checked_sub(length) else { return };
        left = less;
    }
}

/// A body of exactly `length` bytes. If the stream has fewer or more, the transfer breaks: a client must never take a
/// part for the whole.
pub(super) fn exactly(length: u64, stream: BoxStream<'static, store::Result<Bytes>>) -> Body {
    Body::new(Exactly { left: length, stream })
}

struct Exactly {
    left: u64,
    stream: BoxStream<'static, store::Result<Bytes>>,
}

impl http_body::Body for Exactly {
    type Data = Bytes;
    type Error = store::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, store::Error>>> {
        let wrong = |what: &str| {
            let context = format!("a body is {what} than its length says");
            Poll::Ready(Some(Err(store::Error::new(store::ErrorKind::Corrupt, context))))
        };
        match ready!(self.stream.poll_next_unpin(cx)) {
            Some(Ok(bytes)) => match self.left.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    self.left = left;
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                None => wrong("longer"),
            },
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None if self.left == 0 => Poll::Ready(None),
            None => wrong("shorter"),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn parts(parts: &[&'static str]) -> BoxStream<'static, store::Result<Bytes>> {
        stream::iter(parts.iter().map(|it| Ok(Bytes::from_static(it.as_bytes()))).collect::<Vec<_>>()).boxed()
    }

    // BLOB-6
    #[tokio::test]
    async fn a_stream_that_is_shorter_or_longer_than_it_should_be_breaks_the_body() {
        assert_eq!(exactly(5, parts(&["ab", "cde"])).collect().await.unwrap().to_bytes(), "abcde");
        for length in [4, 6] {
            assert!(exactly(length, parts(&["ab", "cde"])).collect().await.is_err(), "{length}");
        }
    }

    // STATE-4
    #[tokio::test]
    async fn after_a_body_broke_off_there_is_nothing_more() {
        let torn = stream::iter([Ok("a"), Err(std::io::Error::other("gone")), Ok("b")]);
        let body = Body::from_stream(torn);
        let incoming = Incoming::new(body, &HeaderMap::new());
        let read: Vec<_> = incoming.collect().await;
        assert_eq!(read, [Ok(Bytes::from_static(b"a")), Err(Torn)]);
    }

    // MAN-6
    #[tokio::test]
    async fn a_whole_body_is_read_up_to_its_limit() {
        for (limit, fits) in [(5, true), (4, false)] {
            for body in [Body::from("abcde"), Body::from_stream(parts(&["ab", "cde"]))] {
                let incoming = Incoming::new(body, &HeaderMap::new());
                let read = incoming.read(limit, 5, async |_| ()).await;
                assert_eq!(read.ok(), fits.then(|| (Bytes::from_static(b"abcde"), None)));
            }
        }
    }

    // MAN-6
    #[tokio::test]
    async fn beyond_what_is_free_a_body_is_read_in_room_for_its_length_or_for_the_most_that_it_may_have() {
        for (free, roomy) in [(5, false), (4, true), (0, true)] {
            for (body, length) in [(Body::from("abcde"), 5), (Body::from_stream(parts(&["ab", "cde"])), 9)] {
                let incoming = Incoming::new(body, &HeaderMap::new());
                let read = incoming.read(9, free, async |length| length).await;
                assert_eq!(read.ok(), Some((Bytes::from_static(b"abcde"), roomy.then_some(length))), "{free}");
            }
        }
    }
}
