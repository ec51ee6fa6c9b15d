//! The crate's contract, one scenario per rule of `docs/adr/0001` and `0002`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, where a panic is a failed test"
)]

mod blindness;
mod bounds;
mod build;
mod cluster;
mod ends;
mod hostile;
mod late;
mod model;
mod order;
mod passage;
mod restarts;
mod services;
mod special_services;
mod support;
mod truth;
mod witnesses;
mod zones;
