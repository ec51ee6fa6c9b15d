//! A scenario on the stage: what its steps may use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::actor::{Actor, Shape};
use super::log::{self, Event};
use super::machine::Machine;
use super::scenario::Scenario;
use crate::kubectl::Kubectl;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(120);

/// What a scenario's steps may use.
#[derive(Debug)]
pub struct Play<'a> {
    /// kubectl for the cluster.
    pub kubectl: &'a Kubectl,
    /// The scenario's namespace.
    pub namespace: String,
    /// The folder of its logs and phases.
    pub logs: PathBuf,
    /// The machine the cluster runs on.
    pub machine: &'a Machine,
}

/// What the logs say so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Processes that have started.
    pub processes: usize,
    /// Ports that are open.
    pub ports: usize,
    /// Processes that have made all their calls.
    pub done: usize,
    /// Attempts to connect.
    pub dialled: usize,
}

impl<'a> Play<'a> {
    pub(super) fn new(
        scenario: &Scenario,
        kubectl: &'a Kubectl,
        machine: &'a Machine,
        logs: &Path,
    ) -> Result<Self> {
        let logs = logs.join(&scenario.name);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        Ok(Self {
            kubectl,
            namespace: scenario.namespace(),
            logs,
            machine,
        })
    }

    /// Tells the scenario's processes that a phase has begun.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(&self, phase: &str) -> Result<()> {
        let path = self.logs.join(phase);
        fs::write(&path, "").with_context(|| format!("write {}", path.display()))
    }

    /// What the logs say so far.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn progress(&self) -> Result<Progress> {
        let mut progress = Progress::default();
        // Looked at several times a second: the lines are counted, not read.
        for text in log::texts(&self.logs)? {
            let count = |event: &str| text.matches(&format!("\"event\":\"{event}\"")).count();
            progress.processes += count("actor");
            progress.ports += count("listening");
            progress.done += count("done");
            progress.dialled += count("dialled");
        }
        Ok(progress)
    }

    /// Waits until the logs say something.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn until(&self, what: &str, holds: impl Fn(Progress) -> bool) -> Result<()> {
        wait::until(&format!("{}: {what}", self.namespace), PATIENCE, || {
            let progress = self.progress()?;
            ensure!(holds(progress), "{progress:?}");
            Ok(())
        })
    }

    /// Waits until a process that writes its log elsewhere listens.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn elsewhere_listens(&self, logs: &Path) -> Result<()> {
        wait::until("a process listens", PATIENCE, || {
            let actors = log::read(logs)?;
            let mut lines = actors.iter().flat_map(|actor| &actor.lines);
            ensure!(
                lines.any(|line| matches!(line.event, Event::Listening { .. })),
                "not yet"
            );
            Ok(())
        })
    }

    /// Adds a pod to the scenario.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn add(&self, actor: &Actor, shape: &Shape) -> Result<()> {
        self.apply(&[actor.object(shape, &self.namespace, &self.logs.to_string_lossy())])
    }

    /// Applies objects.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.kubectl.apply(objects).map(drop)
    }

    /// Runs kubectl in the scenario's namespace.
    ///
    /// # Errors
    /// With what it said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let all = [args, &["--namespace", &self.namespace]].concat();
        Ok(self.kubectl.run(&all)?.output)
    }

    /// A pod with label `app=<app>`.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self, app: &str) -> Result<Value> {
        let list = self.kubectl.get(&[
            "pods",
            "--namespace",
            &self.namespace,
            "--selector",
            &format!("app={app}"),
        ])?;
        list.pointer("/items/0")
            .cloned()
            .with_context(|| format!("{}: no pod of {app}", self.namespace))
    }

    /// The address of a pod with label `app=<app>`, once it has one.
    ///
    /// # Errors
    /// When it has none in time.
    pub fn address(&self, app: &str) -> Result<String> {
        wait::until(&format!("the address of {app}"), PATIENCE, || {
            let pod = self.pod(app)?;
            let address = pod.pointer("/status/podIP").and_then(Value::as_str);
            address.map(str::to_owned).context("it has none")
        })
    }

    /// A hand-made EndpointSlice for a Service without a selector.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn slice(&self, service: &str, address: &str, port: u16) -> Result<()> {
        self.apply(&[json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-by-hand"), "namespace": self.namespace,
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4", "ports": [{ "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        })])
    }

    /// Starts the traffic tool outside pods, in a network namespace or in the machine's own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn process(&self, name: &str, netns: Option<&str>, who: &str, args: &[&str]) -> Result<()> {
        self.machine.process(name, netns, who, &self.logs, args)
    }
}
