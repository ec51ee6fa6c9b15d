//! Waiting for a condition, with a deadline and the last state seen.

use std::time::{Duration, Instant};

/// Generous: the machine may be busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// Asks `check` until it answers; panics with the last refusal when that takes longer than [`SOON`].
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(state) if started.elapsed() > SOON => panic!("{what}: not within {SOON:?}; last: {state}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
