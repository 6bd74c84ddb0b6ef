//! The real command as a child process: killed, starved, overloaded.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests are tests")]

mod crash;
mod memory;
mod restart;
mod server;
