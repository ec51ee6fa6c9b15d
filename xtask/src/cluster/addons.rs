//! What runs inside the cluster from the start: CoreDNS behind Service `kube-dns`, with its own rights.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::base_images::DNS_IMAGE;
use super::node::DNS_ADDRESS;
use super::state::State;
use crate::setup::go_tools;
use crate::step::output_with_input;

/// Names of the cluster are answered; every other name does not exist, at once: nothing outside is asked. Two blocks,
/// because `template` stands before `kubernetes` in CoreDNS and would answer everything.
const COREFILE: &str = "cluster.local in-addr.arpa ip6.arpa {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    cache 5
    reload
}

. {
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

/// kubectl with the administrator's rights.
pub(crate) fn kubectl(state: &State) -> Result<Command> {
    let mut command = Command::new(go_tools::kubernetes("kubectl")?);
    command.env("KUBECONFIG", state.kubeconfig());
    Ok(command)
}

/// Applies the objects; does not wait for them.
pub(crate) fn apply(state: &State) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": dns() });
    let mut command = kubectl(state)?;
    command.args(["apply", "--server-side", "--field-manager=xtask", "-f", "-"]);
    output_with_input(&mut command, &list.to_string())
        .context("apply CoreDNS")
        .map(drop)
}

fn dns() -> Vec<Value> {
    let mut all = dns_rights();
    all.extend([dns_config(), dns_service(), dns_deployment()]);
    all
}

fn meta(name: &str) -> Value {
    json!({ "name": name, "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } })
}

fn dns_rights() -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "leyline:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "leyline:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "leyline:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        }),
    ]
}

fn dns_config() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta("coredns"),
        "data": { "Corefile": COREFILE },
    })
}

fn dns_service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta("kube-dns"),
        "spec": {
            "clusterIP": DNS_ADDRESS,
            "selector": { "k8s-app": "kube-dns" },
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
            ],
        },
    })
}

fn dns_deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta("coredns"),
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "k8s-app": "kube-dns" } },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-dns" } },
                "spec": {
                    "serviceAccountName": "coredns",
                    "priorityClassName": "system-cluster-critical",
                    "dnsPolicy": "Default",
                    "containers": [dns_container()],
                    "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
                },
            },
        },
    })
}

fn dns_container() -> Value {
    json!({
        "name": "coredns",
        "image": DNS_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "resources": { "requests": { "cpu": "20m", "memory": "40Mi" }, "limits": { "memory": "170Mi" } },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
        "livenessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "periodSeconds": 10 },
        "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
    })
}
