//! From half-edges to edges.
//!
//! In: trimmed Kubernetes objects ([`input`]), agents' reports, what existing objects say ([`Seed`]), and the time.
//! Out: [`EdgeView`]s, the set of keys that changed, and [`Stats`]. The rules are in
//! `docs/adr/0001-attributing-connections.md` and `0002-totals-across-restarts.md`.
//!
//! Deliberately absent: clock, IO, async, Kubernetes clients, and any decision about what is written where.

mod address_book;
mod agents;
mod attribute;
mod charge;
mod closed_list;
mod config;
mod connections;
mod counters;
mod edge;
mod edges;
pub mod entity;
mod error;
mod graph;
mod half;
mod ingest;
pub mod input;
mod intern;
mod inventory;
mod judge;
mod peers;
mod reconsider;
mod records;
mod resolve;
mod services;
mod slab;
mod stats;
mod view;
mod waiting;
mod window;
mod workload;
mod zone_bytes;
mod zones;

pub use config::Config;
pub use error::ReportError;
pub use graph::Graph;
pub use stats::{Closed, Stats};
pub use view::{
    EdgeView, End, Evidence, Figures, Incomplete, Seed, ServiceRef, Unnamed, Unresolved, ZoneBytes,
};
