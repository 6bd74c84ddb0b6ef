//! Byte ranges: those that a download asks for, and the one that an upload announces.

use super::descriptor::MAX_SIZE;

/// How many ranges one request may ask for; one with more gets everything. Clients that pull only the changed files of
/// a layer (zstd:chunked) ask for up to this many.
pub const MAX_RANGES: usize = 1024;

/// What a request with a `Range` header gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    Whole,
    /// At least one run of bytes, each `(start, length)` not empty and within the size, in the order asked for.
    Partial(Vec<(u64, u64)>),
    Unsatisfiable,
}

/// Answers a `Range` header for content of this size.
///
/// Whatever is not understood is ignored, as HTTP wants it. Two cases differ from the letter of it: an empty blob is
/// always sent whole (clients ask for `bytes=0-` before they know the size), and a range that ends before it starts is
/// unsatisfiable, not ignored (the conformance suite asks for it).
pub fn answer_range(header: Option<&str>, size: u64) -> RangeAnswer {
    let Some(asked) = header.and_then(parse_ranges) else { return RangeAnswer::Whole };
    if size == 0 {
        return RangeAnswer::Whole;
    }
    let runs: Vec<(u64, u64)> = asked.iter().filter_map(|range| range.within(size)).collect();
    if runs.is_empty() {
        return RangeAnswer::Unsatisfiable;
    }
    // Ranges that overlap could make a small request cost many times the blob.
    let total = runs.iter().map(|(_, length)| u128::from(*length)).sum::<u128>();
    if total > u128::from(size) { RangeAnswer::Whole } else { RangeAnswer::Partial(runs) }
}

enum Asked {
    /// From the first of these bytes to the last, included.
    Between(u64, u64),
    /// This many bytes at the end.
    Suffix(u64),
}

impl Asked {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            ("", length) => Some(Self::Suffix(number(length)?)),
            (start, "") => Some(Self::Between(number(start)?, u64::MAX)),
            (start, end) => Some(Self::Between(number(start)?, number(end)?)),
        }
    }

    /// The run of bytes of content of this size, which is not 0; `None` if there is none.
    fn within(&self, size: u64) -> Option<(u64, u64)> {
        match *self {
            Self::Between(start, end) if start <= end && start < size => Some((start, end.min(size - 1) - start + 1)),
            Self::Between(..) | Self::Suffix(0) => None,
            Self::Suffix(length) => Some((size.saturating_sub(length), length.min(size))),
        }
    }
}

fn parse_ranges(header: &str) -> Option<Vec<Asked>> {
    let (unit, list) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let texts = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    let ranges = texts.take(MAX_RANGES + 1).map(Asked::parse).collect::<Option<Vec<_>>>()?;
    (1..=MAX_RANGES).contains(&ranges.len()).then_some(ranges)
}

/// Digits only. A number beyond any size is as good as the largest.
fn number(text: &str) -> Option<u64> {
    is_number(text).then(|| text.parse().unwrap_or(u64::MAX))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Where the bytes of a chunk belong, by the `Content-Range` header of its upload.
///
/// * `start <= end`, both included: a chunk has at least one byte.
/// * `end` is below [`MAX_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub start: u64,
    pub end: u64,
}

impl ContentRange {
    /// Reads `a-b`, which is the specification's form, and also HTTP's `bytes a-b/total` and what lies between.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("bytes ").or_else(|| text.strip_prefix("bytes=")).unwrap_or(text);
        let (range, total) = text.split_once('/').unwrap_or((text, "*"));
        let (start, end) = range.split_once('-')?;
        if ![start, end].into_iter().all(is_number) {
            return None;
        }
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        let fits = total == "*" || (is_number(total) && end < total.parse().ok()?);
        (start <= end && end < MAX_SIZE && fits).then_some(Self { start, end })
    }

    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(self) -> u64 {
        (self.end - self.start).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{RangeAnswer::*, *};

    fn one(start: u64, length: u64) -> RangeAnswer {
        Partial(vec![(start, length)])
    }

    // RANGE-1, RANGE-2
    #[test]
    fn a_single_range_is_cut_to_the_content() {
        for (header, answer) in [
            ("bytes=500-1499", one(500, 1000)),
            ("bytes=500-", one(500, 1548)),
            ("bytes=-500", one(1548, 500)),
            ("bytes=2000-5000", one(2000, 48)),
            ("bytes=0-0", one(0, 1)),
            ("bytes=0-", one(0, 2048)),
            ("bytes=2047-2047", one(2047, 1)),
            ("bytes=-2048", one(0, 2048)),
            ("bytes=-5000", one(0, 2048)),
            ("bytes=0-99999999999999999999999", one(0, 2048)),
            ("bytes=-99999999999999999999999", one(0, 2048)),
            ("BYTES=0-1", one(0, 2)),
            ("bytes= 0-1 ", one(0, 2)),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=2048-", Unsatisfiable),
            ("bytes=2048-4000", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
        ] {
            assert_eq!(answer_range(Some(header), 2048), answer, "{header}");
        }
    }

    // RANGE-6
    #[test]
    fn what_is_not_understood_is_ignored() {
        assert_eq!(answer_range(None, 2048), Whole);
        for header in ["", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=0", "bytes=0x1-2", "bytes=+1-2"]
            .into_iter()
            .chain([
                "items=0-1",
                "bytes 0-1",
                "0-1",
                "bytes=0--1",
                "bytes=--1",
                "bytes=0-1-2",
                "bytes=0-1,x",
                "bytes=0 - 1",
                "bytes=é-",
            ])
        {
            assert_eq!(answer_range(Some(header), 2048), Whole, "{header}");
        }
    }

    // RANGE-3
    #[test]
    fn an_empty_blob_is_sent_whole_whatever_is_asked_for() {
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-2", "bytes=0-1,2-3"] {
            assert_eq!(answer_range(Some(header), 0), Whole, "{header}");
        }
    }

    // RANGE-5
    #[test]
    fn of_several_ranges_the_satisfiable_ones_are_sent() {
        assert_eq!(answer_range(Some("bytes=0-9,20-29, -5,"), 100), Partial(vec![(0, 10), (20, 10), (95, 5)]));
        assert_eq!(answer_range(Some("bytes=0-9,200-299"), 100), one(0, 10));
        assert_eq!(answer_range(Some("bytes=100-,200-299"), 100), Unsatisfiable);
    }

    // RANGE-5
    #[test]
    fn too_many_ranges_and_ranges_longer_than_the_content_in_sum_get_everything() {
        let header = |count| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(answer_range(Some(&header(MAX_RANGES)), 5000), Partial(vec![(0, 1); MAX_RANGES]));
        assert_eq!(answer_range(Some(&header(MAX_RANGES + 1)), 5000), Whole);
        assert_eq!(answer_range(Some("bytes=0-,0-"), 100), Whole);
        assert_eq!(answer_range(Some("bytes=0-,0-"), u64::MAX), Whole);
    }

    // CHUNK-4
    #[test]
    fn a_content_range_is_two_numbers_in_the_forms_that_clients_send() {
        for (text, start, end) in [
            ("0-0", 0, 0),
            ("0-9", 0, 9),
            ("10-19", 10, 19),
            ("007-010", 7, 10),
            ("bytes 5-9", 5, 9),
            ("bytes 5-9/10", 5, 9),
            ("bytes 5-9/*", 5, 9),
            ("bytes=5-9", 5, 9),
            ("0-9223372036854775806", 0, 9_223_372_036_854_775_806),
        ] {
            assert_eq!(ContentRange::parse(text), Some(ContentRange { start, end }), "{text}");
        }
        assert_eq!(ContentRange::parse("10-19").unwrap().len(), 10);
        assert_eq!(ContentRange::parse("0-9223372036854775806").unwrap().len(), MAX_SIZE);
    }

    // CHUNK-7
    #[test]
    fn anything_else_is_no_content_range() {
        for text in
            ["", "-", "0", "0-", "-5", "a-b", "0-b", "9-8", "1-0", "0-1-2", "0--1", "+0-1", "0 - 1", "0x0-1", "é-1"]
                .into_iter()
                .chain([
                    "bytes",
                    "bytes ",
                    "bytes */10",
                    "items 0-1",
                    "bytes 5-9/9",
                    "bytes 5-9/",
                    "bytes 5-9/x",
                    "bytes 5-9/+10",
                ])
                .chain([
                    "0-9223372036854775807",
                    "0-18446744073709551616",
                    "0-1,2-3",
                    "bytes 0-1/99999999999999999999999",
                ])
        {
            assert_eq!(ContentRange::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_a_parser_panic_and_every_run_lies_within(
            header in "\\PC*|bytes=[0-9,-]{0,40}",
            size in prop_oneof![0..50u64, any::<u64>()],
        ) {
            if let Some(range) = ContentRange::parse(&header) {
                prop_assert!(range.start <= range.end && range.len() <= MAX_SIZE);
            }
            if let Partial(runs) = answer_range(Some(&header), size) {
                prop_assert!(!runs.is_empty());
                for (start, length) in runs {
                    prop_assert!(length > 0 && start < size && length <= size - start);
                }
            }
        }

        #[test]
        fn a_range_covers_exactly_the_bytes_that_it_names(start in 0..30u64, end in 0..30u64, size in 1..30u64) {
            let named: Vec<u64> = (0..size).filter(|at| (start..=end).contains(at)).collect();
            let answer = answer_range(Some(&format!("bytes={start}-{end}")), size);
            let expected = named.first().map_or(Unsatisfiable, |first| one(*first, named.len() as u64));
            prop_assert_eq!(answer, expected);
        }

        #[test]
        fn content_ranges_round_trip(start in 0..MAX_SIZE, length in 0..1_000_000u64) {
            let end = (start + length).min(MAX_SIZE - 1);
            for text in [format!("{start}-{end}"), format!("bytes {start}-{end}/{}", end + 1)] {
                prop_assert_eq!(ContentRange::parse(&text), Some(ContentRange { start, end }));
            }
        }
    }
}
