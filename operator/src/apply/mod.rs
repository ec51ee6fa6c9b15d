//! Writes to the API server.
//!
//! Inputs: [`Work`] from the graph's task. Outputs: objects by server-side apply, and a [`Written`] for each write.
//! Whether this replica leads is asked before every request. An apply is built from memory alone; nothing is read before
//! it is written. A write that fails is not repeated here: the plan decides when, and builds it from newer facts.
//! `failure` says what an error means.

mod failure;

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use leyline_api::ServiceDependency;
use leyline_plan::{Action, Outcome, Ticket, Write};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::FIELD_MANAGER;
use crate::graph::answers::Answer;
use crate::graph::{Input, Inputs};
use crate::lease::Leadership;
use crate::metrics::Metrics;
use failure::Failure;

/// Work waiting for a free slot: small, because what waits here is no longer refreshed.
pub const QUEUE: usize = 64;
/// Requests at once. The lanes limit the rate; this limits what a slow API server has to hold.
const CONCURRENCY: usize = 16;
/// A request without answer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// One piece of work.
#[derive(Clone, Debug)]
pub enum Work {
    /// What the plan asks for; its outcome is reported.
    Write(Write),
    /// Something worth telling; not repeated, not reported.
    Event(leyline_plan::Event),
    /// An answer to an object somebody made by hand; not repeated, not reported.
    Answer(Answer),
}

/// How a write ended.
#[derive(Clone, Debug)]
pub struct Written {
    /// Which one.
    pub ticket: Ticket,
    /// How.
    pub outcome: Outcome,
}

/// Writes. Cloning shares the connection.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
    recorder: Recorder,
}

/// Does all work that comes, until the sender is gone; what is under way is ended.
pub async fn run(writer: Writer, work_rx: mpsc::Receiver<Work>, inputs_tx: Inputs) {
    // The graph's task ends when nobody can send to it any more: this must not keep it alive.
    let inputs_tx = inputs_tx.downgrade();
    ReceiverStream::new(work_rx)
        .for_each_concurrent(CONCURRENCY, |work| {
            let (writer, inputs_tx) = (writer.clone(), inputs_tx.clone());
            async move {
                let Some(written) = writer.perform(work).await else {
                    return;
                };
                if let Some(inputs_tx) = inputs_tx.upgrade() {
                    // Without a graph nobody needs to know.
                    let _ = inputs_tx.send(Input::Written(written)).await;
                }
            }
        })
        .await;
}

impl Writer {
    /// A writer that works while `leadership` is held.
    #[must_use]
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: None,
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            leadership,
            metrics,
            recorder,
        }
    }

    async fn perform(&self, work: Work) -> Option<Written> {
        match work {
            Work::Write(write) => {
                let started = Instant::now();
                let result = timed(self.write(&write)).await;
                self.metrics
                    .write_seconds
                    .observe(started.elapsed().as_secs_f64());
                let outcome = self.judge(write.lane.as_str(), &write.namespace, &write.name, result);
                Some(Written {
                    ticket: write.ticket,
                    outcome,
                })
            }
            Work::Event(event) => {
                let result = timed(self.tell(&event)).await;
                self.judge("event", &event.namespace, &event.object, result);
                None
            }
            Work::Answer(answer) => {
                let status = json!({"conditions": answer.conditions});
                let result = timed(self.patch_status(&answer.namespace, &answer.name, &status)).await;
                self.judge("answer", &answer.namespace, &answer.name, result);
                None
            }
        }
    }

    /// Counts and logs; what the plan is told.
    fn judge(&self, lane: &'static str, namespace: &str, name: &str, result: Result<(), Failure>) -> Outcome {
        let (word, outcome) = match &result {
            Ok(()) => ("ok", Outcome::Done),
            Err(Failure::NotLeader) => ("not_leader", Outcome::Failed),
            Err(Failure::NotFound) => ("not_found", Outcome::NotFound),
            Err(Failure::NamespaceGone) => ("namespace_gone", Outcome::NamespaceGone),
            Err(Failure::Refused(_)) => ("refused", Outcome::Refused),
            Err(Failure::Temporary(_) | Failure::Timeout) => ("failed", Outcome::Failed),
        };
        self.metrics.wrote(lane, word);
        match result {
            Err(failure @ Failure::Refused(_)) => tracing::error!(lane, namespace, name, "{failure}"),
            Err(failure @ (Failure::Temporary(_) | Failure::Timeout)) => {
                tracing::warn!(lane, namespace, name, "a write failed: {failure}");
            }
            _ => tracing::debug!(lane, namespace, name, result = word, "written"),
        }
        outcome
    }

    async fn write(&self, write: &Write) -> Result<(), Failure> {
        match &write.action {
            Action::Apply(object) => {
                self.apply(object).await?;
                self.apply_status(object).await
            }
            Action::ApplyStatus(object) => self.apply_status(object).await,
            Action::Delete => self.delete(&write.namespace, &write.name).await,
        }
    }

    async fn apply(&self, object: &ServiceDependency) -> Result<(), Failure> {
        let patch = json!({
            "apiVersion": ServiceDependency::api_version(&()),
            "kind": ServiceDependency::kind(&()),
            "metadata": {"name": object.name_any(), "namespace": object.namespace(), "labels": object.metadata.labels},
            "spec": object.spec,
        });
        self.may_write()?;
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let namespace = object.namespace().unwrap_or_default();
        self.objects(&namespace)
            .patch_metadata(&object.name_any(), &parameters, &Patch::Apply(patch))
            .await?;
        Ok(())
    }

    async fn apply_status(&self, object: &ServiceDependency) -> Result<(), Failure> {
        let namespace = object.namespace().unwrap_or_default();
        self.patch_status(&namespace, &object.name_any(), &json!(object.status))
            .await
    }

    async fn patch_status(&self, namespace: &str, name: &str, status: &Value) -> Result<(), Failure> {
        let patch = json!({
            "apiVersion": ServiceDependency::api_version(&()),
            "kind": ServiceDependency::kind(&()),
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        });
        self.may_write()?;
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.objects(namespace)
            .patch_status(name, &parameters, &Patch::Apply(patch))
            .await?;
        Ok(())
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<(), Failure> {
        self.may_write()?;
        self.objects(namespace)
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Events are told about the client where it is something in a namespace, else about the object.
    async fn tell(&self, event: &leyline_plan::Event) -> Result<(), Failure> {
        let object = ObjectReference {
            api_version: Some(ServiceDependency::api_version(&()).into_owned()),
            kind: Some(ServiceDependency::kind(&()).into_owned()),
            namespace: Some(event.namespace.clone()),
            name: Some(event.object.clone()),
            ..ObjectReference::default()
        };
        let client = event.client.namespace.as_ref().map(|namespace| ObjectReference {
            api_version: api_version(event.client.api_group()),
            kind: Some(event.client.kind.clone()),
            namespace: Some(namespace.clone()),
            name: Some(event.client.name.clone()),
            ..ObjectReference::default()
        });
        let news = Event {
            type_: EventType::Normal,
            reason: event.reason.as_str().to_owned(),
            note: Some(event.note.clone()),
            action: "Observe".to_owned(),
            // Part of what makes two Events the same: without it a second note would be lost in a count.
            secondary: Some(object.clone()),
        };
        self.may_write()?;
        self.recorder
            .publish(&news, client.as_ref().unwrap_or(&object))
            .await?;
        Ok(())
    }

    fn objects(&self, namespace: &str) -> Api<ServiceDependency> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Asked right before every request.
    fn may_write(&self) -> Result<(), Failure> {
        if self.leadership.held() {
            Ok(())
        } else {
            Err(Failure::NotLeader)
        }
    }
}

/// The version of the built-in groups; of others only the group is known.
fn api_version(group: &str) -> Option<String> {
    match group {
        "" => Some("v1".to_owned()),
        "apps" | "batch" => Some(format!("{group}/v1")),
        _ => None,
    }
}

async fn timed(request: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::time::timeout(REQUEST_TIMEOUT, request)
        .await
        .unwrap_or(Err(Failure::Timeout))
}
