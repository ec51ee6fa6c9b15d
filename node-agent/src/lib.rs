//! The node agent: loads the eBPF programs and reports half-edges.
//!
//! `kernel` → `naming` → `ledger` and `connections` (in `state`) → `delta` → `streams`, driven once a second by
//! `collect`; `run` wires it together.

pub mod addresses;
pub mod admin;
pub mod args;
pub mod clock;
pub mod collect;
pub mod connections;
pub mod delta;
pub mod kernel;
pub mod ledger;
pub mod metrics;
pub mod naming;
pub mod observe;
pub mod run;
pub mod sampling;
pub mod state;
pub mod streams;
pub mod totals;
