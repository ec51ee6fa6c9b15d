//! The few Kubernetes objects the tests make.

use serde_json::{Value, json};

/// The image of the traffic tool.
pub const IMAGE: &str = "leyline.dev/traffic:dev";

/// A pod template or pod under construction.
#[derive(Debug, Clone)]
pub struct Work {
    name: String,
    args: Vec<String>,
    port: Option<u16>,
    node: Option<String>,
    spread: bool,
    host_network: bool,
}

/// Something with this name that runs the traffic tool.
#[must_use]
pub fn work(name: &str, args: &[&str]) -> Work {
    Work {
        name: name.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        port: None,
        node: None,
        spread: false,
        host_network: false,
    }
}

/// A server of the traffic tool; ready when its port is open.
#[must_use]
pub fn server(name: &str, port: u16) -> Work {
    let mut server = work(name, &["serve", &format!("--port={port}")]);
    server.port = Some(port);
    server
}

impl Work {
    /// On this node only.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Evenly over the nodes.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread = true;
        self
    }

    /// In the node's own network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    fn labels(&self) -> Value {
        json!({ "app": self.name })
    }

    fn pod_spec(&self, restart: &str) -> Value {
        let mut container = json!({
            "name": "traffic", "image": IMAGE, "imagePullPolicy": "Never", "args": self.args,
            "resources": { "requests": { "cpu": "1m", "memory": "8Mi" } },
        });
        if let (Some(port), Some(container)) = (self.port, container.as_object_mut()) {
            container.insert(
                "ports".to_owned(),
                json!([{ "name": "traffic", "containerPort": port }]),
            );
            let probe = json!({ "tcpSocket": { "port": port }, "periodSeconds": 1, "failureThreshold": 30 });
            container.insert("readinessProbe".to_owned(), probe);
        }
        let mut spec = json!({
            "restartPolicy": restart, "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
            "automountServiceAccountToken": false, "containers": [container],
            "hostNetwork": self.host_network,
            "dnsPolicy": if self.host_network { "ClusterFirstWithHostNet" } else { "ClusterFirst" },
        });
        if let Some(spec) = spec.as_object_mut() {
            if let Some(node) = &self.node {
                spec.insert(
                    "nodeSelector".to_owned(),
                    json!({ "kubernetes.io/hostname": node }),
                );
            }
            if self.spread {
                let even = json!([{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": { "matchLabels": self.labels() },
                }]);
                spec.insert("topologySpreadConstraints".to_owned(), even);
            }
        }
        spec
    }

    /// A Deployment. Further labels, for a Service over several Deployments, go onto its pods.
    #[must_use]
    pub fn deployment(&self, namespace: &str, replicas: u32, more: &Value) -> Value {
        let mut labels = self.labels();
        if let (Some(labels), Some(more)) = (labels.as_object_mut(), more.as_object()) {
            labels.extend(more.clone());
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": self.name, "namespace": namespace },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": self.labels() },
                "template": { "metadata": { "labels": labels }, "spec": self.pod_spec("Always") },
            },
        })
    }

    /// A Job of `pods` pods at once, each run once.
    #[must_use]
    pub fn job(&self, namespace: &str, pods: u32) -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": self.name, "namespace": namespace },
            "spec": {
                "completions": pods, "parallelism": pods, "backoffLimit": 0,
                "template": { "metadata": { "labels": self.labels() }, "spec": self.pod_spec("Never") },
            },
        })
    }

    /// A bare pod that is run once.
    #[must_use]
    pub fn pod(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": self.name, "namespace": namespace, "labels": self.labels() },
            "spec": self.pod_spec("Never"),
        })
    }
}

/// A ClusterIP Service on `port` to `target`, over all pods with this label.
#[must_use]
pub fn service(namespace: &str, name: &str, selector: &Value, port: u16, target: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "selector": selector, "ports": [{ "name": "traffic", "port": port, "targetPort": target }] },
    })
}
