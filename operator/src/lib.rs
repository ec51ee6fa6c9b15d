//! The operator: half-edges in, `ServiceDependency` objects out.
//!
//! [`runtime`] starts everything. [`observe`] and [`ingest`] feed [`graph`], which owns the pure crates `leyline-graph` and
//! `leyline-plan`; [`apply`] writes what the plan says while [`lease`] allows it. [`tls`] makes the certificates,
//! [`admin`] answers probes and scrapes.
//!
//! Deliberately absent: any state that outlives the process. A restarted operator reads its own objects once and
//! hears everything else from the agents again.

pub mod admin;
pub mod apply;
pub mod args;
pub mod clock;
pub mod graph;
pub mod ingest;
pub mod lease;
pub mod metrics;
mod net;
pub mod observe;
pub mod runtime;
pub mod tls;

pub use leyline_api::FIELD_MANAGER;
