//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Pause between two looks. A look is mostly a run of kubectl, some 50 ms of one core.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks until `ready` gives something; after `limit` it fails with `what` and the last reason.
///
/// # Errors
/// The last reason `ready` gave.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ready() {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= deadline => {
                return Err(reason.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Looks for the whole of `period` and fails as soon as `holds` does: for things that must stay as they are.
///
/// # Errors
/// The first reason `holds` gave.
pub fn throughout(what: &str, period: Duration, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Err(reason) = holds() {
            let after = start.elapsed().as_secs_f64();
            return Err(reason.context(format!("{what}: did not last, after {after:.1} s")));
        }
        if start.elapsed() >= period {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn the_last_reason_is_told() {
        let mut looks = 0;
        let failed = until::<()>("the door", Duration::from_millis(300), || {
            looks += 1;
            bail!("closed {looks} times")
        });
        let text = format!("{:#}", failed.unwrap_err());
        assert!(
            looks > 1 && text.contains(&format!("closed {looks} times")),
            "{text}"
        );
    }

    #[test]
    fn what_breaks_meanwhile_is_an_error() {
        let mut looks = 0;
        let failed = throughout("the door", Duration::from_secs(60), || {
            looks += 1;
            if looks > 2 { bail!("open") } else { Ok(()) }
        });
        assert!(failed.is_err());
    }
}
