//! What to write to the API server, and when.
//!
//! In: what the graph says about edges ([`EdgeView`](leyline_graph::EdgeView)), what the API server holds
//! ([`Planner::adopt`], [`Planner::seen`], [`Planner::gone`]), the outcome of writes, and the time.
//! Out: an ordered list of [`Write`]s within the rates of [`Config`], [`Event`]s, keys to forget, and counts.
//!
//! The life of one edge: it appears (lane *new*: object and status), its state or conditions change (lane *conditions*),
//! its totals move (lane *figures*), it goes idle (*conditions*), it is deleted after the retention time (*new*). An edge that
//! proof took away is deleted without a word.
//!
//! Deliberately absent: clock, IO, async, Kubernetes clients. The planner keeps about 400 bytes per edge and asks
//! for the edge itself only when it writes it.

mod bucket;
mod build;
mod config;
mod events;
mod keys;
mod lanes;
mod planner;
mod read;
mod record;
mod totals;
mod write;

pub use config::{Config, Rate};
pub use events::{Event, EventReason};
pub use planner::{Adopted, Planner};
pub use write::{Action, Lane, Outcome, Ticket, Waiting, Write};
