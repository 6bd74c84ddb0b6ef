//! The real command as a child process: killed, starved, overloaded.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests are tests")]

mod collect;
mod crash;
mod full;
#[path = "../linearizable/history/mod.rs"]
mod history;
#[path = "../load/mod.rs"]
mod load;
mod memory;
mod restart;
mod retain;
mod server;
mod together;
mod wire;
