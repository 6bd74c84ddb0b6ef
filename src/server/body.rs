//! Bodies that tell a connection's [`Pulse`] how they are.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::pulse::{Pulse, Work};

/// A request body. When it stops arriving for the idle time-out it ends with an error of kind
/// [`io::ErrorKind::TimedOut`], so that its handler can keep what came and say so.
#[derive(Debug)]
pub(super) struct Received {
    body: Incoming,
    pulse: Arc<Pulse>,
    idle: Duration,
    /// Runs while the peer is asked for bytes and sends none.
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Received {
    pub(super) fn new(body: Incoming, pulse: Arc<Pulse>, idle: Duration) -> Self {
        Self { body, pulse, idle, deadline: None, ended: false }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.deadline = None;
            this.ended = !matches!(frame, Some(Ok(_)));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(this.idle)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.pulse.left_unread();
        }
    }
}

/// A response body. While it is asked for bytes and has none, our side is at work.
#[derive(Debug)]
pub(super) struct Sent {
    body: Body,
    pulse: Arc<Pulse>,
    work: Option<Work>,
}

impl Sent {
    pub(super) fn new(body: Body, pulse: Arc<Pulse>) -> Self {
        Self { body, pulse, work: None }
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        this.work = match frame {
            Poll::Ready(_) => None,
            Poll::Pending => this.work.take().or_else(|| Some(this.pulse.work())),
        };
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
