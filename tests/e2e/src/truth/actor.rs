//! Pods that run the traffic tool and write logs: a small builder, so that a scenario is a few lines.

use serde_json::{Value, json};

use crate::manifest::IMAGE;

/// The first node, whose network is the machine's own.
pub const NODE_A: &str = "node-a";
/// The second node.
pub const NODE_B: &str = "node-b";
/// Where pods see the folder of their scenario's logs.
const LOGS: &str = "/truth";

/// A pod under construction: one container or more.
#[derive(Debug, Clone)]
pub struct Actor {
    name: String,
    containers: Vec<Container>,
    init: Vec<Container>,
    node: Option<String>,
    host_network: bool,
    labels: Vec<(String, String)>,
    probed: Option<u16>,
    host_port: Option<(u16, u16)>,
    grace: u32,
}

/// One container: what it listens on and whom it calls.
#[derive(Debug, Clone, Default)]
struct Container {
    args: Vec<String>,
    listens: usize,
    calls: bool,
}

/// What runs the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A Deployment of so many replicas.
    Deployment(usize),
    /// A StatefulSet of so many replicas, governed by the headless Service of its own name.
    StatefulSet(usize),
    /// A DaemonSet: one pod on each of the two nodes.
    DaemonSet,
    /// A Job.
    Job,
    /// A bare pod.
    Pod,
    /// A CronJob that is suspended; the scenario makes Jobs from it.
    CronJob,
    /// A pod that a custom resource controls: API version, kind, name, uid.
    Controlled(String, String, String, String),
}

/// A pod with this name.
#[must_use]
pub fn actor(name: &str) -> Actor {
    Actor {
        name: name.to_owned(),
        containers: vec![Container::default()],
        init: Vec::new(),
        node: None,
        host_network: false,
        labels: Vec::new(),
        probed: None,
        host_port: None,
        grace: 0,
    }
}

impl Actor {
    /// The last container listens on a port, or a range.
    #[must_use]
    pub fn listen(self, ports: &str) -> Self {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let count = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => last.saturating_sub(first) + 1,
            _ => 1,
        };
        self.change(|container| {
            container.listens += count;
            container.args.push(format!("--listen={ports}"));
        })
    }

    /// The last container makes calls.
    #[must_use]
    pub fn call(self, spec: &str) -> Self {
        self.change(|container| {
            container.calls = true;
            container.args.push(format!("--call={spec}"));
        })
    }

    /// A further option of the last container.
    #[must_use]
    pub fn option(self, option: &str) -> Self {
        self.change(|container| container.args.push(option.to_owned()))
    }

    fn change(mut self, change: impl FnOnce(&mut Container)) -> Self {
        if let Some(last) = self.containers.last_mut() {
            change(last);
        }
        self
    }

    /// One more container in the same pod.
    #[must_use]
    pub fn and(mut self) -> Self {
        self.containers.push(Container::default());
        self
    }

    /// An init container that makes this call before the others start.
    #[must_use]
    pub fn init(mut self, spec: &str) -> Self {
        self.init.push(Container {
            args: vec![format!("--call={spec}")],
            listens: 0,
            calls: true,
        });
        self
    }

    /// On this node only.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// In the node's own network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// A further label, for Services over several workloads.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The kubelet connects to this port every second.
    #[must_use]
    pub fn probed(mut self, port: u16) -> Self {
        self.probed = Some(port);
        self
    }

    /// It goes on for a while after it was told to end, as servers do that are replaced without a failure.
    #[must_use]
    pub fn graceful(mut self) -> Self {
        self.grace = 15;
        self
    }

    /// The node's port leads to the pod's.
    #[must_use]
    pub fn host_port(mut self, host: u16, port: u16) -> Self {
        self.host_port = Some((host, port));
        self
    }

    /// Processes of one pod that are there before anything begins.
    pub(super) fn processes(&self) -> usize {
        self.containers.len()
    }

    /// Ports that one pod opens.
    pub(super) fn listens(&self) -> usize {
        self.containers.iter().map(|it| it.listens).sum()
    }

    /// Processes of one pod that call and then say that they are done.
    pub(super) fn callers(&self) -> usize {
        let all = self.containers.iter().chain(&self.init);
        all.filter(|it| it.calls).count()
    }

    fn labels(&self) -> Value {
        let mut labels = serde_json::Map::new();
        labels.insert("app".to_owned(), self.name.clone().into());
        for (key, value) in &self.labels {
            labels.insert(key.clone(), value.clone().into());
        }
        labels.into()
    }

    fn container(&self, name: &str, container: &Container, who: &str) -> Value {
        let mut args = vec!["act".to_owned()];
        args.extend(container.args.iter().cloned());
        json!({
            "name": name, "image": IMAGE, "imagePullPolicy": "Never", "args": args,
            "env": [
                { "name": "TRUTH_WHO", "value": who },
                { "name": "TRUTH_LOGS", "value": LOGS },
                { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "TRUTH_INSTANCE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            ],
            "volumeMounts": [{ "name": "truth", "mountPath": LOGS }],
            "resources": { "requests": { "cpu": "1m", "memory": "4Mi" } },
        })
    }

    fn pod_spec(&self, restart: &str, who: &str, logs: &str) -> Value {
        let named = |prefix: &str, all: &[Container], more: Option<&str>| -> Vec<Value> {
            let numbered = all.iter().enumerate();
            numbered
                .map(|(n, it)| {
                    let mut it = it.clone();
                    it.args.extend(more.map(str::to_owned));
                    self.container(&format!("{prefix}{n}"), &it, who)
                })
                .collect()
        };
        // One that has called must not be started again to call once more.
        let stay = (restart == "Always").then_some("--stay");
        let mut containers = named("c", &self.containers, stay);
        if let Some(first) = containers.first_mut().and_then(Value::as_object_mut) {
            if let Some(port) = self.probed {
                let probe = json!({ "tcpSocket": { "port": port }, "periodSeconds": 1 });
                first.insert("readinessProbe".to_owned(), probe.clone());
                first.insert("livenessProbe".to_owned(), probe);
            }
            if let Some((host, port)) = self.host_port {
                first.insert(
                    "ports".to_owned(),
                    json!([{ "containerPort": port, "hostPort": host }]),
                );
            }
        }
        let mut spec = json!({
            "restartPolicy": restart, "terminationGracePeriodSeconds": self.grace, "enableServiceLinks": false,
            "automountServiceAccountToken": false, "hostNetwork": self.host_network,
            "dnsPolicy": if self.host_network { "ClusterFirstWithHostNet" } else { "ClusterFirst" },
            "initContainers": named("i", &self.init, None), "containers": containers,
            "volumes": [{ "name": "truth", "hostPath": { "path": logs, "type": "Directory" } }],
        });
        if let (Some(node), Some(spec)) = (&self.node, spec.as_object_mut()) {
            spec.insert(
                "nodeSelector".to_owned(),
                json!({ "kubernetes.io/hostname": node }),
            );
        }
        spec
    }

    /// The object. `logs`: the scenario's folder on the nodes.
    pub(super) fn object(&self, shape: &Shape, namespace: &str, logs: &str) -> Value {
        let meta = json!({ "name": self.name, "namespace": namespace, "labels": self.labels() });
        let template = |kind: &str, restart: &str| {
            let who = format!("{kind} {namespace} {}", self.name);
            json!({ "metadata": { "labels": self.labels() }, "spec": self.pod_spec(restart, &who, logs) })
        };
        let selector = json!({ "matchLabels": { "app": self.name } });
        match shape {
            Shape::Deployment(replicas) => json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                "spec": { "replicas": replicas, "selector": selector, "template": template("Deployment", "Always") },
            }),
            Shape::StatefulSet(replicas) => json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta,
                "spec": {
                    "replicas": replicas, "selector": selector, "serviceName": self.name,
                    "podManagementPolicy": "Parallel", "template": template("StatefulSet", "Always"),
                },
            }),
            Shape::DaemonSet => json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta,
                "spec": { "selector": selector, "template": template("DaemonSet", "Always") },
            }),
            Shape::Job => json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": meta,
                "spec": { "backoffLimit": 0, "template": template("Job", "Never") },
            }),
            Shape::CronJob => json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta,
                "spec": {
                    "schedule": "* * * * *", "suspend": true,
                    "jobTemplate": { "spec": { "backoffLimit": 0, "template": template("CronJob", "Never") } },
                },
            }),
            Shape::Pod => {
                let who = format!("Pod {namespace} {}", self.name);
                json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": self.pod_spec("Never", &who, logs) })
            }
            Shape::Controlled(version, kind, name, uid) => {
                let who = format!("{kind} {namespace} {name}");
                let owner = json!([{
                    "apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true,
                }]);
                let mut meta = meta;
                if let Some(meta) = meta.as_object_mut() {
                    meta.insert("ownerReferences".to_owned(), owner);
                }
                json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": self.pod_spec("Never", &who, logs) })
            }
        }
    }
}

impl Shape {
    /// Pods that are there before anything begins.
    pub(super) fn pods(&self) -> usize {
        match self {
            Self::Deployment(count) | Self::StatefulSet(count) => *count,
            Self::DaemonSet => 2,
            Self::Job | Self::Pod | Self::Controlled(..) => 1,
            Self::CronJob => 0,
        }
    }
}
