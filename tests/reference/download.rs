//! How a blob is sent: whole, not at all, or in runs.

use super::{
    answer::{Answer, BOUNDARY},
    ask::{Name, Unless},
    registry::FOREVER,
};

const OCTETS: &str = "application/octet-stream";

pub(crate) fn is_known(digest: &str, unless: Option<Unless>) -> bool {
    match unless {
        None => false,
        Some(Unless::Any) => true,
        Some(Unless::Is(name)) => name.text() == digest,
    }
}

pub(crate) fn blob(
    digest: &str,
    bytes: &[u8],
    head: bool,
    range: Option<&str>,
    unless: Option<Unless>,
    if_range: Option<Name>,
) -> Answer {
    let described = |status| {
        Answer::new(status)
            .with("docker-content-digest", digest)
            .with("etag", format!("\"{digest}\""))
            .with("cache-control", FOREVER)
            .with("accept-ranges", "bytes")
    };
    if is_known(digest, unless) {
        return described(304).with("content-length", bytes.len());
    }
    let range = range.filter(|_| !head && if_range.is_none_or(|name| name.text() == digest));
    let Some(runs) = range.and_then(|range| runs(range, bytes.len())) else {
        return described(200).with("content-type", OCTETS).sending(bytes);
    };
    let all = bytes.len();
    let span = |(start, end): (usize, usize)| format!("bytes {start}-{}/{all}", end - 1);
    match runs.as_slice() {
        [] => Answer::refusal(416, "UNSUPPORTED").with("content-range", format!("bytes */{all}")),
        [(start, end)] => {
            let answer = described(206).with("content-type", OCTETS).with("content-range", span((*start, *end)));
            answer.sending(&bytes[*start..*end])
        }
        runs => {
            let mut body = Vec::new();
            for (start, end) in runs {
                let range = span((*start, *end));
                let head = format!("\r\n--{BOUNDARY}\r\nContent-Type: {OCTETS}\r\nContent-Range: {range}\r\n\r\n");
                body.extend(head.as_bytes());
                body.extend(&bytes[*start..*end]);
            }
            body.extend(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
            described(206).with("content-type", format!("multipart/byteranges; boundary={BOUNDARY}")).sending(body)
        }
    }
}

/// The runs that a `Range` asks for, each from its first byte to before its end; `None` where it is as if it was not there.
fn runs(range: &str, size: usize) -> Option<Vec<(usize, usize)>> {
    let asked: Vec<&str> = range.strip_prefix("bytes=")?.split(',').filter(|run| !run.is_empty()).collect();
    let parsed: Vec<(&str, &str)> = asked.iter().map(|run| run.split_once('-')).collect::<Option<_>>()?;
    if parsed.is_empty() || size == 0 {
        return None;
    }
    let runs = parsed.into_iter().map(|(from, to)| match (from.parse::<usize>(), to.parse::<usize>()) {
        (Err(_), Ok(last)) => (size.saturating_sub(last), size),
        (Ok(from), Err(_)) => (from, size),
        (Ok(from), Ok(to)) => (from, size.min(to + 1)),
        (Err(_), Err(_)) => (0, 0),
    });
    let runs: Vec<_> = runs.filter(|(from, end)| from < end).collect();
    let total: usize = runs.iter().map(|(from, end)| end - from).sum();
    if total > size { None } else { Some(runs) }
}
