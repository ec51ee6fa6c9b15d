//! What the API server knows, as inputs of the graph.
//!
//! [`pods`] and [`trim`] say what is read and kept of each kind, [`watch`] follows one kind, `objects` follows Leyline's
//! own. Every replica observes, leader or not.

mod objects;
pub mod pods;
pub mod trim;
pub mod watch;

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use leyline_api::ServiceDependency;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::graph::Inputs;
use crate::metrics::Metrics;

/// Starts one task per kind.
pub fn start(
    client: &Client,
    inputs: &Inputs,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let observer = Observer {
        client,
        inputs,
        metrics,
        shutdown,
    };
    observer.follow::<pods::PodSource>(tasks);
    observer.follow::<PartialObjectMeta<ReplicaSet>>(tasks);
    observer.follow::<PartialObjectMeta<Job>>(tasks);
    observer.follow::<trim::ServiceSource>(tasks);
    observer.follow::<trim::SliceSource>(tasks);
    observer.follow::<trim::NodeSource>(tasks);
    observer.follow::<PartialObjectMeta<Namespace>>(tasks);
    observer.follow_objects(tasks);
}

/// Kube's default backoff, but never longer than this: while the watch on pods waits, connections of new pods wait for
/// a name, and those that have waited long enough stay nameless.
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Capped(DefaultBackoff);

impl Iterator for Capped {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next()?.min(LONGEST_BACKOFF))
    }
}

impl Backoff for Capped {
    fn reset(&mut self) {
        self.0.reset();
    }
}

struct Observer<'a> {
    client: &'a Client,
    inputs: &'a Inputs,
    metrics: &'a Metrics,
    shutdown: &'a CancellationToken,
}

impl Observer<'_> {
    fn follow<T>(&self, tasks: &mut JoinSet<()>)
    where
        T: trim::Trim + Resource<DynamicType: Default> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api: Api<T> = Api::all(self.client.clone());
        let events = watcher(api, watcher::Config::default()).backoff(Capped::default());
        let (inputs, metrics, shutdown) = (self.inputs.clone(), self.metrics.clone(), self.shutdown.clone());
        tasks.spawn(watch::follow(events, inputs, metrics, shutdown));
    }

    fn follow_objects(&self, tasks: &mut JoinSet<()>) {
        let api: Api<DeserializeGuard<ServiceDependency>> = Api::all(self.client.clone());
        let events = watcher(api, watcher::Config::default()).backoff(Capped::default());
        let (inputs, metrics, shutdown) = (self.inputs.clone(), self.metrics.clone(), self.shutdown.clone());
        tasks.spawn(objects::follow(events, inputs, metrics, shutdown));
    }
}
