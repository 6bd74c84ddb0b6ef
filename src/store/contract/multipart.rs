//! What multipart uploads promise.

use bytes::Bytes;
use futures_util::future::join;

use super::{assert_absent, assert_is, create, key, open, pattern};
use crate::store::{Condition, ErrorKind, Key, Limits, Multipart, Part, Placed, Put, Span, Store};

/// A writer of an upload, with the parts that it has uploaded and the bytes that they should become.
struct Writer<'a> {
    store: &'a dyn Store,
    upload: Multipart,
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    async fn begin(store: &'a dyn Store, key: &Key) -> Self {
        Self::join(store, &store.begin(key).await.unwrap())
    }

    /// Another writer of this upload.
    fn join(store: &'a dyn Store, upload: &Multipart) -> Self {
        Self { store, upload: upload.clone(), parts: Vec::new(), bytes: Vec::new() }
    }

    /// Uploads a part that stands alone.
    async fn put(&mut self, number: u32, bytes: Bytes) {
        self.place(number, bytes, None).await;
    }

    /// Uploads a part that directly follows the last one.
    async fn follow(&mut self, number: u32, bytes: Bytes) {
        self.place(number, bytes, self.parts.last().cloned()).await;
    }

    async fn place(&mut self, number: u32, bytes: Bytes, previous: Option<Part>) {
        let size = bytes.len() as u64;
        match self.store.put_part(&self.upload, number, bytes.clone(), previous.as_ref()).await.unwrap() {
            Placed::New(part) => {
                assert_eq!((part.number, part.size), (number, size));
                self.parts.push(part);
            }
            Placed::Grown(part) => {
                let previous = previous.expect("nothing to lengthen");
                assert_eq!((part.number, part.size), (previous.number, previous.size + size));
                *self.parts.last_mut().unwrap() = part;
            }
        }
        self.bytes.extend_from_slice(&bytes);
    }

    async fn complete(&self) {
        self.store.complete(&self.upload, &self.parts).await.unwrap();
        assert_is(self.store, &self.upload.key, &self.bytes).await;
    }
}

/// A size that every part may have.
fn fair(limits: Limits) -> u64 {
    limits.min_part.clamp(1, limits.max_part)
}

pub(crate) async fn parts_become_one_object_in_the_order_of_their_numbers(store: &dyn Store) {
    let (key, size) = (key("data/xy/upload"), fair(store.limits()));
    let upload = store.begin(&key).await.unwrap();
    let mut parts = Vec::new();
    // Kept elsewhere between the calls, as a journal does.
    let kept = serde_json::to_string(&upload).unwrap();
    for (number, seed) in [(70, 3), (9, 2), (3, 1)] {
        let upload: Multipart = serde_json::from_str(&kept).unwrap();
        let placed = store.put_part(&upload, number, pattern(size, seed), None).await.unwrap();
        let Placed::New(part) = placed else { panic!("grown from nothing") };
        parts.insert(0, serde_json::from_str(&serde_json::to_string(&part).unwrap()).unwrap());
    }
    store.complete(&upload, &parts).await.unwrap();
    assert_is(store, &key, &[pattern(size, 1), pattern(size, 2), pattern(size, 3)].concat()).await;
}

pub(crate) async fn an_upload_is_no_object_before_it_is_complete(store: &dyn Store) {
    let key = key("data/upload");
    let mut writer = Writer::begin(store, &key).await;
    writer.put(1, pattern(fair(store.limits()), 1)).await;
    store.sync_parts(&writer.upload, &writer.parts).await.unwrap();
    assert_absent(store, &key).await;
    assert_eq!(store.list("", None, 10).await.unwrap(), []);
    writer.complete().await;
    assert_eq!(store.list("", None, 10).await.unwrap().len(), 1);
}

pub(crate) async fn parts_that_are_not_named_are_dropped(store: &dyn Store) {
    let size = fair(store.limits());
    let mut writer = Writer::begin(store, &key("a")).await;
    let mut other = Writer::join(store, &writer.upload);
    other.put(1, pattern(size, 100)).await;
    writer.put(2, pattern(size, 1)).await;
    other.put(3, pattern(size, 101)).await;
    writer.put(4, pattern(size, 2)).await;
    other.put(5, pattern(size, 102)).await;
    writer.complete().await;
}

pub(crate) async fn a_single_part_may_be_of_any_size(store: &dyn Store) {
    let fair = fair(store.limits());
    for (index, size) in [0, 1, fair - 1, fair, fair + 1].into_iter().enumerate() {
        let mut writer = Writer::begin(store, &key(format!("a/{index}"))).await;
        writer.put(1, pattern(size, 1)).await;
        writer.complete().await;
    }
}

pub(crate) async fn parts_of_every_size_that_the_limits_allow_fit_together(store: &dyn Store) {
    let fair = fair(store.limits());
    let mut shapes = vec![[fair, fair, fair], [fair, fair, 1], [fair + 1, fair + 1, fair]];
    if !store.limits().uniform_parts {
        shapes.extend([[fair, fair + 1, fair], [fair + 1, fair, 2 * fair + 3]]);
    }
    for (index, sizes) in shapes.into_iter().enumerate() {
        let mut writer = Writer::begin(store, &key(format!("a/{index}"))).await;
        for (number, size) in (1..).zip(sizes) {
            writer.put(number, pattern(size, 1)).await;
        }
        writer.complete().await;
    }
}

pub(crate) async fn a_part_may_follow_the_previous_one_directly_or_not(store: &dyn Store) {
    let size = fair(store.limits());
    for (index, directly) in
        [[true; 4], [false; 4], [true, false, true, true], [false, true, false, true]].iter().enumerate()
    {
        let mut writer = Writer::begin(store, &key(format!("a/{index}"))).await;
        writer.put(1, pattern(size, 0)).await;
        for (number, directly) in (2..).zip(directly) {
            let bytes = pattern(size, u8::try_from(number).unwrap());
            if *directly {
                writer.follow(number, bytes).await;
            } else {
                writer.put(number, bytes).await;
            }
        }
        writer.complete().await;
    }
}

pub(crate) async fn a_part_may_follow_a_sync(store: &dyn Store) {
    let size = fair(store.limits());
    let mut writer = Writer::begin(store, &key("a")).await;
    store.sync_parts(&writer.upload, &[]).await.unwrap();
    for number in 1..=4 {
        writer.follow(number, pattern(size, 1)).await;
        store.sync_parts(&writer.upload, &writer.parts).await.unwrap();
    }
    writer.complete().await;
}

pub(crate) async fn two_writers_of_one_upload_never_mix(store: &dyn Store) {
    let size = fair(store.limits());
    for (index, follow) in [false, true].into_iter().enumerate() {
        let mut first = Writer::begin(store, &key(format!("a/{index}"))).await;
        let mut second = Writer::join(store, &first.upload);
        let writing = async |writer: &mut Writer, from: u32, seed: u8| {
            for number in from..from + 6 {
                if follow {
                    writer.follow(number, pattern(size, seed)).await;
                } else {
                    writer.put(number, pattern(size, seed)).await;
                }
            }
        };
        join(writing(&mut first, 11, 1), writing(&mut second, 1, 200)).await;
        first.complete().await;
    }
}

/// A writer whose reply was lost sends its part again, or goes on from the part before with other bytes.
pub(crate) async fn a_part_sent_again_never_mixes_with_the_one_before(store: &dyn Store) {
    let size = fair(store.limits());
    let mut writer = Writer::begin(store, &key("a")).await;
    writer.put(1, pattern(size, 1)).await;
    let mut again = Writer::join(store, &writer.upload);
    again.parts.clone_from(&writer.parts);
    again.bytes.clone_from(&writer.bytes);
    writer.follow(2, pattern(size, 2)).await;
    again.follow(2, pattern(size, 3)).await;
    // Only the second is a part that the store must still know; if it knows the first, then as it was.
    if store.complete(&writer.upload, &writer.parts).await.is_ok() {
        assert_is(store, &writer.upload.key, &writer.bytes).await;
    } else {
        again.complete().await;
    }
}

pub(crate) async fn completing_twice_leaves_the_object_right(store: &dyn Store) {
    let size = fair(store.limits());
    for parts in 1..=3 {
        let mut writer = Writer::begin(store, &key(format!("a/{parts}"))).await;
        for number in 1..=parts {
            writer.put(number, pattern(size, 1)).await;
        }
        writer.complete().await;
        if let Err(error) = store.complete(&writer.upload, &writer.parts).await {
            assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        }
        assert_is(store, &writer.upload.key, &writer.bytes).await;
        // Nothing of an upload that was completed comes back.
        store.abort(&writer.upload).await.unwrap();
        assert_is(store, &writer.upload.key, &writer.bytes).await;
    }
}

pub(crate) async fn racing_completers_leave_the_object_right(store: &dyn Store) {
    let size = fair(store.limits());
    for parts in [1, 2, 3].repeat(4) {
        let mut writer = Writer::begin(store, &key("a/b")).await;
        for number in 1..=parts {
            writer.put(number, pattern(size, 1)).await;
        }
        let complete = || store.complete(&writer.upload, &writer.parts);
        let (one, other) = join(complete(), complete()).await;
        assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
        assert_is(store, &writer.upload.key, &writer.bytes).await;
        store.delete(&writer.upload.key).await.unwrap();
    }
}

pub(crate) async fn completing_again_out_of_other_parts_changes_nothing(store: &dyn Store) {
    let size = fair(store.limits());
    for _ in 0..8 {
        let mut writer = Writer::begin(store, &key("a/c")).await;
        writer.put(1, pattern(size, 1)).await;
        let (first, bytes) = (writer.parts.clone(), writer.bytes.clone());
        writer.put(2, pattern(size, 2)).await;
        let other = vec![writer.parts[1].clone()];
        let (one, two) =
            join(store.complete(&writer.upload, &first), async { store.complete(&writer.upload, &other).await }).await;
        assert!(one.is_ok() || two.is_ok(), "{one:?}, {two:?}");
        let there = store.read(&writer.upload.key).await.unwrap().unwrap().bytes;
        assert!(there == bytes || there == pattern(size, 2), "mixed");
        for parts in [&first, &other] {
            // Whatever it says.
            let _ = store.complete(&writer.upload, parts).await;
            assert_eq!(store.read(&writer.upload.key).await.unwrap().unwrap().bytes, there);
        }
        store.delete(&writer.upload.key).await.unwrap();
    }
}

pub(crate) async fn completing_with_no_parts_or_unknown_ones_makes_nothing(store: &dyn Store) {
    let (key, size) = (key("a"), fair(store.limits()));
    let mut writer = Writer::begin(store, &key).await;
    writer.put(1, pattern(size, 1)).await;
    let mut other = Writer::begin(store, &key).await;
    other.put(2, pattern(size, 1)).await;
    let unknown = [&writer.parts[..], &other.parts[..]].concat();
    for parts in [&[][..], &unknown] {
        store.complete(&writer.upload, parts).await.unwrap_err();
        assert_absent(store, &key).await;
    }
    writer.complete().await;
}

pub(crate) async fn an_aborted_upload_takes_no_more_parts(store: &dyn Store) {
    let size = fair(store.limits());
    let mut writer = Writer::begin(store, &key("a")).await;
    writer.put(1, pattern(size, 1)).await;
    for _ in 0..2 {
        store.abort(&writer.upload).await.unwrap();
        for previous in [None, writer.parts.last()] {
            let late = store.put_part(&writer.upload, 2, pattern(size, 1), previous).await;
            assert_eq!(late.unwrap_err().kind, ErrorKind::NotFound);
        }
        let late = store.complete(&writer.upload, &writer.parts).await;
        assert_eq!(late.unwrap_err().kind, ErrorKind::NotFound);
    }
    assert_absent(store, &writer.upload.key).await;
}

pub(crate) async fn a_completed_upload_takes_no_more_parts(store: &dyn Store) {
    let size = fair(store.limits());
    for parts in 1..=2 {
        let mut writer = Writer::begin(store, &key(format!("a/{parts}"))).await;
        for number in 1..=parts {
            writer.put(number, pattern(size, 1)).await;
        }
        writer.complete().await;
        for previous in [None, writer.parts.last()] {
            let late = store.put_part(&writer.upload, 3, pattern(size, 2), previous).await;
            assert_eq!(late.unwrap_err().kind, ErrorKind::NotFound);
        }
        assert_is(store, &writer.upload.key, &writer.bytes).await;
    }
}

pub(crate) async fn uploads_of_one_key_are_apart(store: &dyn Store) {
    let (key, size) = (key("a"), fair(store.limits()));
    let mut first = Writer::begin(store, &key).await;
    let mut second = Writer::begin(store, &key).await;
    assert_ne!(first.upload, second.upload);
    for number in 1..=2 {
        first.follow(number, pattern(size, 1)).await;
        second.follow(number, pattern(size, 2)).await;
    }
    store.abort(&first.upload).await.unwrap();
    second.complete().await;
}

pub(crate) async fn an_object_of_parts_is_one_like_any_other(store: &dyn Store) {
    let size = fair(store.limits());
    for parts in 1..=3 {
        let key = key(format!("data/{parts}/object"));
        let mut writer = Writer::begin(store, &key).await;
        for number in 1..=parts {
            writer.put(number, pattern(size, u8::try_from(number).unwrap())).await;
        }
        writer.complete().await;
        assert_eq!(store.put(&key, "late".into(), Condition::Create).await.unwrap(), Put::Lost);
        assert_is(store, &key, &writer.bytes).await;
        let all = store.list("data/", None, 10).await.unwrap();
        assert_eq!(all.len(), 1, "one object, one key: {all:?}");
        for _ in 0..2 {
            store.delete(&key).await.unwrap();
            assert_absent(store, &key).await;
        }
        create(store, &key, "the name is free").await;
        store.delete(&key).await.unwrap();
    }
}

pub(crate) async fn a_large_object_is_streamed_whole(store: &dyn Store) {
    const LARGE: u64 = 1536 * 1024 + 17;
    let limits = store.limits();
    let part = (256 * 1024).clamp(limits.min_part, limits.max_part);
    let mut writer = Writer::begin(store, &key("data/large")).await;
    let (mut number, mut left) = (0, LARGE);
    while left > 0 {
        number += 1;
        let size = part.min(left);
        let bytes = pattern(size, u8::try_from(number % 256).unwrap());
        // Now and then not as a follower, so that a store that lengthens parts has several as well.
        if number % 3 == 1 {
            writer.put(number, bytes).await;
        } else {
            writer.follow(number, bytes).await;
        }
        left -= size;
    }
    writer.complete().await;
    // Spans that begin and end before, at and after every third border of two parts.
    for border in (0..=LARGE / part).step_by(3).take(16).map(|index| index * part) {
        for start in [border.saturating_sub(1), border, border + 1] {
            for length in [0, 1, 2, part - 1, part + 2] {
                let span = Span::new(start, length);
                let Span { start: from, length } = span.within(LARGE);
                let [from, to] = [from, from + length].map(|at| usize::try_from(at).unwrap());
                let (bytes, size) = open(store, &writer.upload.key, span).await.unwrap();
                assert!(bytes == writer.bytes[from..to], "{span:?}");
                assert_eq!(size, LARGE);
            }
        }
    }
}
