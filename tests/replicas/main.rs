//! Several replicas of the real command on a real store, both of which go away. Needs MinIO and libfaketime, so `cargo
//! test` leaves it out: run it by `tests/replicas.sh`, as CI does.
//!
//! Clients push and pull through a balancer and know at every moment what must be so ([`load`]); they ask again whenever
//! they are not answered, as real clients do. One replica's clock is an hour behind, one's an hour ahead.
//!
//! `REPLICAS_ROUNDS` says how many deaths (200), `REPLICAS_SEED` in what order, `REPLICAS_LOGS` a directory for the logs.
//! `COLLECT_SECS` says for how long the collector is under load (60), and `COLLECT_STORE` on which other store: one that
//! honours the condition of a delete, so that no tombstones stay.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]

mod balancer;
mod collect;
mod deaths;
mod fleet;
mod large;
#[path = "../load/mod.rs"]
mod load;
mod minio;
mod outage;
mod proxy;
mod races;
mod redirects;
