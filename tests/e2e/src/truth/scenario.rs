//! A scenario: its rule in words, what is deployed, what happens, and what the logs cannot tell.

use std::sync::OnceLock;

use anyhow::Result;
use serde_json::{Value, json};

use super::actor::{Actor, Shape};
use super::join::{Elsewhere, Fold};
use super::judge::Exactness;
use super::play::Play;
use crate::score::End;

/// How all namespaces begin.
pub const NAMESPACES: &str = "truth-";

/// Something a scenario does, with the cluster at hand.
pub type Step = Box<dyn Fn(&Play) -> Result<()> + Send + Sync>;

/// Scenarios of one batch run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Batch {
    /// Leyline runs undisturbed.
    #[default]
    Quiet,
    /// This one needs the cluster for itself: it kills parts of Leyline.
    Alone,
}

/// One scenario, in a namespace of its own.
pub struct Scenario {
    /// Its name; the namespace is `truth-<name>-<number of the run>`.
    pub name: String,
    /// Which edges there must be, and why.
    pub rule: String,
    /// With which others it runs.
    pub batch: Batch,
    /// How exact the figures must be.
    pub exactness: Exactness,
    /// How ends fold.
    pub fold: Fold,
    /// Ends that write no log.
    pub elsewhere: Vec<Elsewhere>,
    pub(super) actors: Vec<(Actor, Shape)>,
    pub(super) objects: Vec<Value>,
    /// Once everything listens, before anything begins.
    pub(super) prepare: Vec<Step>,
    /// Once it has begun.
    pub(super) script: Vec<Step>,
    /// Callers that the script adds, or that never say that they are done.
    pub(super) more_callers: isize,
    /// Processes outside pods that `prepare` starts.
    pub(super) more_processes: usize,
}

/// A scenario with nothing in it yet. The rule comes first: what must be seen is decided before anything is deployed.
#[must_use]
pub fn scenario(name: &str, rule: &str) -> Scenario {
    Scenario {
        name: name.to_owned(),
        rule: rule.to_owned(),
        batch: Batch::Quiet,
        exactness: Exactness::Exact,
        fold: Fold::None,
        elsewhere: Vec::new(),
        actors: Vec::new(),
        objects: Vec::new(),
        prepare: Vec::new(),
        script: Vec::new(),
        more_callers: 0,
        more_processes: 0,
    }
}

impl Scenario {
    /// The namespace. Another one in every run: edges of an earlier run stay for a while, with their counts.
    #[must_use]
    pub fn namespace(&self) -> String {
        static RUN: OnceLock<u16> = OnceLock::new();
        format!(
            "{NAMESPACES}{}-{:04x}",
            self.name,
            RUN.get_or_init(|| fastrand::u16(..))
        )
    }

    /// Something that runs from the beginning.
    #[must_use]
    pub fn with(mut self, actor: Actor, shape: Shape) -> Self {
        self.actors.push((actor, shape));
        self
    }

    /// A Service over the pods with label `app=<target>`.
    #[must_use]
    pub fn service(self, name: &str, target: &str, port: u16, target_port: u16) -> Self {
        self.service_of(
            name,
            json!({ "selector": { "app": target }, "ports": [{ "port": port, "targetPort": target_port }] }),
        )
    }

    /// A Service with this spec.
    #[must_use]
    pub fn service_of(self, name: &str, spec: Value) -> Self {
        let namespace = self.namespace();
        self.object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": namespace }, "spec": spec,
        }))
    }

    /// Any other object.
    #[must_use]
    pub fn object(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// Nobody writes a log at this destination; this is who is there, or would be.
    #[must_use]
    pub fn elsewhere(mut self, dial: &str, server: End, port: u16) -> Self {
        self.elsewhere.push(Elsewhere {
            dial: dial.to_owned(),
            server,
            port,
        });
        self
    }

    /// Done once everything listens, before anything begins.
    #[must_use]
    pub fn prepare(mut self, step: impl Fn(&Play) -> Result<()> + Send + Sync + 'static) -> Self {
        self.prepare.push(Box::new(step));
        self
    }

    /// As [`Self::prepare`], and it starts so many processes, `callers` of which call.
    #[must_use]
    pub fn processes(
        mut self,
        count: usize,
        callers: isize,
        step: impl Fn(&Play) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.more_processes += count;
        self.more_callers += callers;
        self.prepare(step)
    }

    /// Done once everything has begun.
    #[must_use]
    pub fn then(mut self, step: impl Fn(&Play) -> Result<()> + Send + Sync + 'static) -> Self {
        self.script.push(Box::new(step));
        self
    }

    /// The script adds so many callers, or takes them away before they are done.
    #[must_use]
    pub fn callers(mut self, more: isize) -> Self {
        self.more_callers += more;
        self
    }

    /// How ends fold.
    #[must_use]
    pub fn fold(mut self, fold: Fold) -> Self {
        self.fold = fold;
        self
    }

    /// It disturbs Leyline itself.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.batch = Batch::Alone;
        self
    }

    /// Somebody is blind meanwhile: the edges are exact, the figures are not more than the truth.
    #[must_use]
    pub fn not_more(mut self) -> Self {
        self.exactness = Exactness::NotMore;
        self
    }

    /// Pods that are there before anything begins.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.actors.iter().map(|(_, shape)| shape.pods()).sum()
    }

    /// Processes that are there before anything begins.
    pub(super) fn expected_processes(&self) -> usize {
        let pods = self.actors.iter();
        pods.map(|(actor, shape)| actor.processes() * shape.pods())
            .sum::<usize>()
            + self.more_processes
    }

    /// Ports that are open before anything begins.
    pub(super) fn expected_ports(&self) -> usize {
        let pods = self.actors.iter();
        pods.map(|(actor, shape)| actor.listens() * shape.pods()).sum()
    }

    /// Processes that say at the end that they are done.
    pub(super) fn expected_callers(&self) -> usize {
        let pods = self.actors.iter();
        let sum: usize = pods.map(|(actor, shape)| actor.callers() * shape.pods()).sum();
        sum.saturating_add_signed(self.more_callers)
    }
}
