//! Which replica writes.
//!
//! Inputs: Lease `leyline-operator`. Output: [`Leadership`], asked before every write. IO: the API server. Every change is
//! conditional on the object's resourceVersion, so of two replicas one wins. Another holder's lease is over when its
//! record has not changed for its duration *on this replica's clock*: clocks of nodes are never compared. The holder
//! stops by itself when it could not renew in time, also while the API server is out of reach.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Name of the Lease.
pub const LEASE: &str = "leyline-operator";
/// A lease whose record names no duration.
const UNKNOWN_DURATION: Duration = Duration::from_secs(15);
/// Nobody may lock others out for longer, whatever the record says.
const LONGEST_DURATION: Duration = Duration::from_secs(60);

/// How the lease is held.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names this replica.
    pub identity: String,
    /// Without renewal a lease ends after this.
    pub duration: Duration,
    /// How often the holder renews and the others look.
    pub renew: Duration,
}

/// Whether this replica may write now.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// True until the time by which the lease must have been renewed.
    #[must_use]
    pub fn held(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits for the next renewal, gain or loss; false when the lease is no longer tended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Why the lease could not be tended this time.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("cannot read the Lease")]
    Read(#[source] kube::Error),
    #[error("cannot write the Lease")]
    Write(#[source] kube::Error),
    #[error("the API server did not answer in time")]
    Timeout,
}

/// Another holder's record and when it was first seen in this form.
struct Observed {
    record: LeaseSpec,
    since: Instant,
}

struct Tender {
    leases: Api<Lease>,
    config: Config,
    observed: Option<Observed>,
}

/// Tends the lease until `shutdown`, then gives it back.
pub fn tend(
    client: Client,
    namespace: &str,
    config: Config,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Leadership, impl Future<Output = ()> + Send + 'static) {
    let (until_tx, until_rx) = watch::channel(None);
    let mut tender = Tender {
        leases: Api::namespaced(client, namespace),
        config,
        observed: None,
    };
    let tending = async move {
        let mut ticks = tokio::time::interval(tender.config.renew);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let started = Instant::now();
            let outcome = tokio::time::timeout(tender.config.renew, tender.step()).await;
            let was = until_tx.borrow().is_some_and(|until| started < until);
            match outcome.unwrap_or(Err(LeaseError::Timeout)) {
                // One renewal early: a write that is under way ends before another replica begins.
                Ok(true) => until_tx.send_replace(Some(
                    started + tender.config.duration.saturating_sub(tender.config.renew),
                )),
                Ok(false) => until_tx.send_replace(None),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(cause, "leadership: {error}");
                    None
                }
            };
            let is = until_tx.borrow().is_some_and(|until| Instant::now() < until);
            metrics.leader.set(is.into());
            if was != is {
                tracing::info!(
                    identity = tender.config.identity,
                    leader = is,
                    "leadership changed"
                );
            }
        }
        let held = until_tx.send_replace(None).is_some();
        metrics.leader.set(0);
        if held {
            tender.release().await;
        }
    };
    (Leadership(until_rx), tending)
}

impl Tender {
    /// One look at the lease; true when this replica holds it afterwards.
    async fn step(&mut self) -> Result<bool, LeaseError> {
        let Some(lease) = self.leases.get_opt(LEASE).await.map_err(LeaseError::Read)? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.record(None)),
            };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let record = lease.spec.clone().unwrap_or_default();
        if !self.mine(&record) && !self.is_over(&record) {
            return Ok(false);
        }
        let spec = Some(self.record(Some(&record)));
        // The resourceVersion read above makes this conditional.
        won(self
            .leases
            .replace(LEASE, &PostParams::default(), &Lease { spec, ..lease })
            .await)
    }

    fn mine(&self, record: &LeaseSpec) -> bool {
        record.holder_identity.as_deref() == Some(&self.config.identity)
    }

    fn is_over(&mut self, record: &LeaseSpec) -> bool {
        if record.holder_identity.as_deref().is_none_or(str::is_empty) {
            return true;
        }
        let seconds = record
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds
            .map_or(UNKNOWN_DURATION, Duration::from_secs)
            .min(LONGEST_DURATION);
        match &self.observed {
            Some(observed) if observed.record == *record => observed.since.elapsed() > duration,
            _ => {
                self.observed = Some(Observed {
                    record: record.clone(),
                    since: Instant::now(),
                });
                false
            }
        }
    }

    fn record(&self, last: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = last.filter(|last| self.mine(last));
        let transitions = last.and_then(|last| last.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.duration.as_secs().max(1)).ok(),
            acquire_time: kept
                .and_then(|last| last.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if kept.is_some() || last.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that the next replica need not wait.
    async fn release(&mut self) {
        let given = async {
            let lease = self.leases.get(LEASE).await?;
            let Some(record) = lease.spec.clone().filter(|record| self.mine(record)) else {
                return Ok(());
            };
            let spec = Some(LeaseSpec {
                holder_identity: None,
                ..record
            });
            self.leases
                .replace(LEASE, &PostParams::default(), &Lease { spec, ..lease })
                .await
                .map(drop)
        };
        match tokio::time::timeout(self.config.renew, given).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "could not give the lease back; it ends by itself"),
            Err(_) => tracing::info!("could not give the lease back in time; it ends by itself"),
        }
    }
}

/// A conflict means that another replica was faster.
fn won(answer: kube::Result<Lease>) -> Result<bool, LeaseError> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(LeaseError::Write(error)),
    }
}
