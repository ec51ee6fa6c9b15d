//! One stream to every operator replica, at most [`MAX_REPLICAS`].
//!
//! Inputs: the operator's headless name, asked again every five seconds; the shared [`State`]. Outputs: a task
//! per address, in `stream`. IO: name resolution, TCP, TLS, two small files.
//!
//! Nothing is queued while an operator is away: a stream that comes back is given a full report out of the state.

mod credentials;
mod stream;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::delta::Agent;
use crate::metrics::Metrics;
use crate::state::State;

/// Operator replicas that are reported to.
pub const MAX_REPLICAS: usize = 3;
/// Between two questions for the operator's addresses.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// The same, while there is no answer: at the start of a cluster the name comes up within seconds.
const RETRY_RESOLVE: Duration = Duration::from_secs(1);
/// Answers in a row an address may be missing from before its stream is ended: a rolling update of DNS flickers.
const MISSING_ALLOWED: u32 = 3;

/// What all streams share.
pub struct Shared {
    state: Mutex<State>,
    cursors: Mutex<HashMap<SocketAddr, u64>>,
    /// The number of the last reading of the kernel; streams wait for it to change.
    readings_tx: watch::Sender<u64>,
}

impl Shared {
    /// Wraps a state.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            cursors: Mutex::default(),
            readings_tx: watch::Sender::new(0),
        }
    }

    /// The state, for a moment: never held over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every stream that the state has moved on.
    pub fn announce_reading(&self) {
        self.readings_tx.send_modify(|reading| *reading += 1);
    }

    /// What the operators have acknowledged of the connection store: the least advanced stream counts. `None`
    /// while there is no stream.
    #[must_use]
    pub fn acknowledged_connections(&self) -> Option<u64> {
        self.cursors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .copied()
            .min()
    }

    fn acknowledge(&self, replica: SocketAddr, connections: u64) {
        self.cursors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(replica, connections);
    }

    fn leave(&self, replica: SocketAddr) {
        self.cursors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&replica);
    }
}

/// How to reach the operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the headless Service.
    pub operator: String,
    /// The name in the operator's certificate.
    pub server_name: String,
    /// Certificate authority file.
    pub ca: PathBuf,
    /// Token file.
    pub token: PathBuf,
    /// What `Hello` says.
    pub agent: Agent,
    /// A stream ends itself within this time, before its token expires.
    pub lifetime: Duration,
    /// First and longest pause between two attempts to connect.
    pub backoff: (Duration, Duration),
}

/// Keeps the streams until `stop`; returns when all have ended.
pub async fn run(settings: Settings, shared: Arc<Shared>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let settings = Arc::new(settings);
    let tasks = TaskTracker::new();
    let mut replicas: HashMap<SocketAddr, Replica> = HashMap::new();
    let mut resolved = Resolution::Untried;
    loop {
        let answer = tokio::select! {
            answer = resolve(&settings.operator) => answer,
            () = stop.cancelled() => break,
        };
        resolved.note(&settings.operator, &answer);
        let pause = if answer.is_ok() {
            RESOLVE_EVERY
        } else {
            RETRY_RESOLVE
        };
        if let Ok(addresses) = answer {
            for address in keep(&mut replicas, &addresses) {
                let replica_stop = stop.child_token();
                let task = stream::keep_streaming(
                    address,
                    Arc::clone(&settings),
                    Arc::clone(&shared),
                    Arc::clone(&metrics),
                    replica_stop.clone(),
                );
                tasks.spawn(task);
                replicas.insert(
                    address,
                    Replica {
                        stop: replica_stop,
                        missing: 0,
                    },
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => break,
        }
    }
    tasks.close();
    tasks.wait().await;
}

struct Replica {
    stop: CancellationToken,
    missing: u32,
}

/// Ends the streams of addresses that are gone, and returns the addresses that need one.
fn keep(replicas: &mut HashMap<SocketAddr, Replica>, addresses: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
    replicas.retain(|address, replica| {
        replica.missing = if addresses.contains(address) {
            0
        } else {
            replica.missing + 1
        };
        let is_kept = replica.missing < MISSING_ALLOWED;
        if !is_kept {
            info!(%address, "operator replica is gone");
            replica.stop.cancel();
        }
        is_kept
    });
    // Those about to go take nobody's place: in a rolling update the new ones are needed at once.
    let listed = replicas.values().filter(|replica| replica.missing == 0).count();
    let room = MAX_REPLICAS.saturating_sub(listed);
    addresses
        .iter()
        .filter(|address| !replicas.contains_key(address))
        .take(room)
        .copied()
        .collect()
}

async fn resolve(operator: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match timeout(RESOLVE_EVERY, tokio::net::lookup_host(operator)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Logs the resolver's answers only when they change.
#[derive(PartialEq)]
enum Resolution {
    Untried,
    Works,
    Fails,
}

impl Resolution {
    fn note(&mut self, operator: &str, answer: &Result<BTreeSet<SocketAddr>, String>) {
        let now = if answer.is_ok() { Self::Works } else { Self::Fails };
        if now != *self {
            match answer {
                Ok(addresses) => info!(operator, ?addresses, "operator found"),
                Err(reason) => {
                    warn!(
                        operator,
                        reason, "operator not found; is its Service there? asking on"
                    );
                }
            }
        }
        *self = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(numbers: &[u8]) -> BTreeSet<SocketAddr> {
        numbers
            .iter()
            .map(|n| SocketAddr::from(([10, 0, 0, *n], 8443)))
            .collect()
    }

    #[test]
    fn three_replicas_are_kept_and_one_that_flickers_is_not_dropped() {
        let mut replicas = HashMap::new();
        let mut step = |numbers: &[u8]| {
            let fresh = keep(&mut replicas, &addresses(numbers));
            for address in &fresh {
                replicas.insert(
                    *address,
                    Replica {
                        stop: CancellationToken::new(),
                        missing: 0,
                    },
                );
            }
            (fresh.len(), replicas.len())
        };
        assert_eq!(step(&[1, 2, 3, 4]), (3, 3));
        assert_eq!(step(&[2, 3]), (0, 3), "one answer without it is no reason");
        assert_eq!(step(&[1, 2, 3]), (0, 3));
        assert_eq!(
            step(&[2, 7, 8]),
            (2, 5),
            "new ones need not wait for old ones to go"
        );
        assert_eq!(step(&[2, 7, 8]), (0, 5));
        assert_eq!(step(&[2, 7, 8]), (0, 3), "gone for good");
    }
}
