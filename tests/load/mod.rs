//! A mixed load, whose clients know at every moment what must be true of all that they did. What is common to tests that
//! kill the real command.

pub(crate) mod client;
pub(crate) mod content;
pub(crate) mod http;
pub(crate) mod ledger;
mod upload;
