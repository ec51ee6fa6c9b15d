//! The only place that reads the wall clock for the graph and the plan.

use leyline_graph::entity::Time;

/// Milliseconds since 1970.
#[must_use]
pub fn now() -> Time {
    Time(jiff::Timestamp::now().as_millisecond())
}
