//! Several ranges of a blob as one body, `multipart/byteranges`: read one after the other, of a length known before.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future::ready, stream};

use super::body;
use crate::{
    registry::{Blob, Error, Registry},
    store,
};

/// The body, and its `Content-Type`.
pub(super) fn byteranges(
    registry: &Arc<Registry>,
    blob: &Blob,
    spans: Vec<(u64, u64)>,
    boundary: &str,
) -> (Body, String) {
    let heads: Vec<_> = spans.iter().map(|span| head(boundary, *span, blob.size)).collect();
    let tail = format!("\r\n--{boundary}--\r\n");
    let framing: usize = heads.iter().map(String::len).sum::<usize>() + tail.len();
    let length = framing as u64 + spans.iter().map(|(_, length)| length).sum::<u64>();

    let (registry, blob) = (Arc::clone(registry), blob.clone());
    let parts = stream::iter(heads.into_iter().zip(spans)).then(move |(head, (start, length))| {
        let (registry, blob) = (Arc::clone(&registry), blob.clone());
        async move {
            let part = registry.read_blob(&blob, store::Span::new(start, length)).await.map_err(broken)?;
            let head = stream::once(ready(Ok(Bytes::from(head))));
            Ok::<_, store::Error>(head.chain(part.into_stream()))
        }
    });
    let whole = parts.try_flatten().chain(stream::once(ready(Ok(Bytes::from(tail)))));
    (body::exactly(length, whole.boxed()), format!("multipart/byteranges; boundary={boundary}"))
}

fn head(boundary: &str, (start, length): (u64, u64), size: u64) -> String {
    let end = start + length - 1;
    format!(
        "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {start}-{end}/{size}\r\n\r\n"
    )
}

/// The answer has begun: all that can still be said is that it breaks off.
fn broken(error: Error) -> store::Error {
    match error {
        Error::Store(error) | Error::Refused(error) | Error::Throttled(error) | Error::Corrupt(error) => error,
        error => store::Error::new(store::ErrorKind::Corrupt, error.to_string()),
    }
}
