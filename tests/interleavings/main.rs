//! The real code in every order of its store calls: two operations exhaustively, three by seeds.
//!
//! Each operation has a registry of its own, as on another replica, and shares nothing but the store. The invariants are
//! looked at after every call, which is also what holds if a process dies there; what was acknowledged at the end.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod cases;
mod content;
mod desk;
mod ends;
mod explore;
mod process;
mod start;
mod walk;
