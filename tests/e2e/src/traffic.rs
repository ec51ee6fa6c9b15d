//! What the traffic tool counted, read from its logs.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::stage::Stage;
use crate::wait;

/// The final count of one client, or the sum over several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Connections established.
    pub opened: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Connections that were established and then broke.
    pub broken: u64,
    /// Bytes in both directions of all connections that did not break.
    pub sent: u64,
    /// See `sent`.
    pub received: u64,
    /// Complete exchanges by the name of the pod that answered.
    pub servers: BTreeMap<String, u64>,
    /// When the first connection stood, in milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// When the last connection stood.
    pub last_ms: Option<u64>,
}

impl Count {
    fn of(line: &Value) -> Self {
        let number = |key: &str| line.get(key).and_then(Value::as_u64);
        let sum = |key: &str| {
            line.get(key)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .filter_map(|(_, n)| n.as_u64())
                .sum()
        };
        let servers = line
            .get("servers")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        Self {
            opened: number("opened").unwrap_or_default(),
            failed: sum("failed"),
            broken: sum("broken"),
            sent: number("bytesSent").unwrap_or_default(),
            received: number("bytesReceived").unwrap_or_default(),
            servers: servers
                .filter_map(|(name, n)| Some((name.clone(), n.as_u64()?)))
                .collect(),
            first_ms: number("firstOpenMs"),
            last_ms: number("lastOpenMs"),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        let Self {
            opened,
            failed,
            broken,
            sent,
            received,
            servers,
            first_ms,
            last_ms,
        } = other;
        self.opened += opened;
        self.failed += failed;
        self.broken += broken;
        self.sent += sent;
        self.received += received;
        for (name, count) in servers {
            *self.servers.entry(name.clone()).or_default() += count;
        }
        self.first_ms = self.first_ms.into_iter().chain(*first_ms).min();
        self.last_ms = self.last_ms.into_iter().chain(*last_ms).max();
        self
    }

    /// Exchanges answered by pods whose name begins with this.
    #[must_use]
    pub fn answered_by(&self, prefix: &str) -> u64 {
        self.servers
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }
}

/// What a client has counted so far, and whether it has ended.
///
/// # Errors
/// When it has printed nothing that can be read.
pub fn progress(stage: &Stage, pod: &str) -> Result<(Count, bool)> {
    let logs = stage
        .kubectl
        .run(&["logs", "--namespace", &stage.namespace, pod, "--tail=1"])?
        .output;
    let line = logs
        .lines()
        .next_back()
        .with_context(|| format!("{pod} has printed nothing"))?;
    let line: Value = serde_json::from_str(line).with_context(|| format!("{pod} printed {line}"))?;
    Ok((
        Count::of(&line),
        line.get("done").and_then(Value::as_bool) == Some(true),
    ))
}

/// Waits until all clients named `app` (as many as `pods`) have ended, and sums up what they counted.
///
/// # Errors
/// When one has not ended in time.
pub fn total(stage: &Stage, app: &str, pods: usize, limit: Duration) -> Result<Count> {
    wait::until(&format!("the clients `{app}` have ended"), limit, || {
        let names = stage.pods(app)?;
        ensure!(names.len() == pods, "{} pods instead of {pods}", names.len());
        names.iter().try_fold(Count::default(), |sum, name| {
            let (count, done) = progress(stage, name)?;
            ensure!(done, "{name} still runs, {} connections so far", count.opened);
            Ok(sum.plus(&count))
        })
    })
}

/// An argument for clients that makes them begin together, once kube-proxy of both nodes has certainly heard of servers
/// that were ready when this was called (it takes up to a second) and all pods are there.
#[must_use]
pub fn start_in(time: Duration) -> String {
    let at = now_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    format!("--start-at-ms={at}")
}

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts_of_several_clients_add_up() {
        let one = Count::of(&json!({
            "done": true, "opened": 3, "failed": { "connection refused": 1, "timed out": 1 }, "bytesSent": 300,
            "servers": { "blue-1": 2, "green-1": 1 }, "firstOpenMs": 50, "lastOpenMs": 70,
        }));
        let two = Count::of(
            &json!({ "opened": 1, "servers": { "blue-2": 1 }, "firstOpenMs": 40, "lastOpenMs": 60 }),
        );
        let both = one.plus(&two);
        assert_eq!((both.opened, both.failed, both.sent), (4, 2, 300));
        assert_eq!((both.answered_by("blue-"), both.answered_by("green-")), (3, 1));
        assert_eq!((both.first_ms, both.last_ms), (Some(40), Some(70)));
    }
}
