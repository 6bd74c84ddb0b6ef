//! The protocol as a model: every interleaving of small numbers of processes, any of them stalled for ever between any
//! two steps, references and sessions expiring at any moment, collectors at work, writes that fail or land late.
//!
//! The processes ([`programs`]) make the store calls that the code makes, in the same order, and [`code`] holds the two
//! together. What is known to be wrong exists only here, and the collector stripped to what decides ([`programs`], `bare`).

#![expect(clippy::cast_possible_truncation, reason = "fields of packed words, cut out on purpose")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod code;
mod collecting;
mod explore;
mod invariants;
mod leads;
mod link;
mod machine;
mod process;
mod programs;
mod right;
mod scenarios;
mod walks;
mod world;
mod wrong;
mod wrong_collector;
