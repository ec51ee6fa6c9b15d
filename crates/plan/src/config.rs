//! Rates and times of the planner, each with its reason. All times are milliseconds.

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a quiet time.
    pub burst: u32,
    /// Per second, in the long run.
    pub per_second: u32,
}

/// Rates and times of the planner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Namespace of objects whose client is in none.
    pub system_namespace: String,
    /// An edge that was not seen for so long is Idle.
    pub idle_after: i64,
    /// An object whose edge was not seen for so long is deleted.
    pub delete_after: i64,
    /// An edge whose attempts fail is Failing when nothing succeeded for so long: one refused connection during a
    /// redeploy is no state.
    pub failing_after: i64,
    /// Totals that keep moving are written this often.
    pub totals_every: i64,
    /// Totals that stopped moving are written after this time, while no connection is open.
    pub quiet_after: i64,
    /// The same while connections are open. Their bytes arrive with the agents' sweep every 10 s: a shorter time would take
    /// every sweep for the last one.
    pub quiet_after_open: i64,
    /// `status.lastSeen` is refreshed at most so often, unless the state changes.
    pub last_seen_every: i64,
    /// An object without status for so long is written again: whoever made it did not live to finish.
    pub repair_after: i64,
    /// First and longest wait after a write that failed.
    pub retry: (i64, i64),
    /// Wait after a write that the API server refused as invalid: repeating it at once cannot help.
    pub refused_wait: i64,
    /// How long a namespace that turned out to be missing is believed to be, unless it is heard of.
    pub missing_namespace: i64,
    /// New and ended objects.
    pub new: Rate,
    /// Conditions and, with what they leave, figures.
    pub changes: Rate,
    /// No Event about a client workload younger than this, and none while Leyline itself is.
    pub event_silence: i64,
    /// Events.
    pub events: Rate,
    /// Clients whose Events wait; more are counted and dropped.
    pub events_waiting: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            system_namespace: leyline_api::SYSTEM_NAMESPACE.to_owned(),
            idle_after: 3_600_000,
            delete_after: 7 * 24 * 3_600_000,
            failing_after: 300_000,
            totals_every: 60_000,
            quiet_after: 5_000,
            quiet_after_open: 15_000,
            last_seen_every: 3_600_000,
            repair_after: 5_000,
            retry: (500, 60_000),
            refused_wait: 600_000,
            missing_namespace: 60_000,
            new: Rate {
                burst: 1_000,
                per_second: 100,
            },
            changes: Rate {
                burst: 20,
                per_second: 20,
            },
            event_silence: 600_000,
            events: Rate {
                burst: 1,
                per_second: 1,
            },
            events_waiting: 1_000,
        }
    }
}
