//! The collector among faults: trouble at each store call of its rounds and walks, rounds that stall before each of their
//! calls while a client pushes or another collector works, and requests that stall before each of theirs while whole
//! rounds go by. Nothing is listed by hand but the requests: each piece of work is run once to see which calls it makes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../clock/mod.rs"]
mod clock;
mod content;
mod requests;
mod rounds;
mod two;
mod world;
