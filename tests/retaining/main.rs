//! Retention: what rules do not keep goes, and nothing else; on an injected clock, among faults and races.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../clock/mod.rs"]
mod clock;
mod races;
mod walks;
mod world;
