//! Leyline in the cluster: installing it, its pods, its metrics.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::wait;

/// Where Leyline runs.
pub const NAMESPACE: &str = "leyline-system";
/// The operator's Deployment.
pub const OPERATOR: &str = "leyline-operator";
/// The agent's DaemonSet.
pub const AGENT: &str = "leyline-node-agent";
const ROLLOUT: Duration = Duration::from_secs(120);
/// Causes that are no loss: sockets of the other node on the same kernel, and sampling, which edges say themselves.
const NO_LOSS: [&str; 2] = ["foreign_network", "connections_sampled"];

/// Causes that count connections which an edge does not have.
pub const CONNECTION_LOSSES: [&str; 3] = ["half_edges_full", "socket_storage", "state_changes"];

/// How metrics end.
const METRICS_END: &[u8] = b"# EOF\n";
const MOST_METRICS: usize = 4 << 20;

/// Admin port of a program.
fn port(app: &str) -> u16 {
    if app == OPERATOR { 9402 } else { 9403 }
}

/// Installs Leyline as a user does, unless it is there, and waits until it is ready.
///
/// # Errors
/// With the pods when it does not become ready.
pub fn ensure_installed(kubectl: &Kubectl) -> Result<()> {
    let there = kubectl.run(&[
        "get",
        "deployment",
        OPERATOR,
        "--namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--output=name",
    ])?;
    if there.output.trim().is_empty() {
        kubectl.run(&["apply", "--kustomize", &checkout("config/default")])?;
    }
    ready(kubectl)
}

/// Both workloads are rolled out.
///
/// # Errors
/// With the pods when they are not in time.
pub fn ready(kubectl: &Kubectl) -> Result<()> {
    kubectl.rollout(NAMESPACE, &format!("deployment/{OPERATOR}"), ROLLOUT)?;
    kubectl.rollout(NAMESPACE, &format!("daemonset/{AGENT}"), ROLLOUT)
}

/// A path in the checkout.
#[must_use]
pub fn checkout(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
        .to_string_lossy()
        .into_owned()
}

/// The pods of a program, by `app.kubernetes.io/name`.
///
/// # Errors
/// When the API server does not answer.
pub fn pods(kubectl: &Kubectl, app: &str) -> Result<Vec<Value>> {
    let selector = format!("app.kubernetes.io/name={app}");
    let list = kubectl.get(&["pods", "--namespace", NAMESPACE, "--selector", &selector])?;
    list.get("items")
        .and_then(Value::as_array)
        .cloned()
        .context("the answer is no list")
}

fn name(pod: &Value) -> &str {
    pod.pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What the agents lost so far, by cause, summed over all nodes.
///
/// # Errors
/// When an agent cannot be asked.
pub fn losses(kubectl: &Kubectl) -> Result<BTreeMap<String, u64>> {
    let mut sum = BTreeMap::new();
    for pod in pods(kubectl, AGENT)? {
        let metrics = metrics(kubectl, AGENT, name(&pod))?;
        let found = lost(&metrics);
        ensure!(
            !found.is_empty(),
            "the agent {} has no metric leyline_loss_total:\n{metrics}",
            name(&pod)
        );
        for (cause, count) in found {
            *sum.entry(cause).or_default() += count;
        }
    }
    Ok(sum)
}

/// The loss counters of every agent that are not 0, sampling and all, as one line each: what explains a wrong count.
///
/// # Errors
/// When an agent cannot be asked.
pub fn loss_counters(kubectl: &Kubectl) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for pod in pods(kubectl, AGENT)? {
        let metrics = metrics(kubectl, AGENT, name(&pod))?;
        let counters = metrics
            .lines()
            .filter(|line| line.starts_with("leyline_loss_total{") && !line.ends_with(" 0"));
        lines.extend(counters.map(|line| format!("{} {line}", name(&pod))));
    }
    Ok(lines)
}

/// `leyline_loss_total{cause="…"} N`, without what is no loss.
fn lost(metrics: &str) -> Vec<(String, u64)> {
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("leyline_loss_total{cause=\""));
    let pairs = lines.filter_map(|line| line.split_once("\"} "));
    pairs
        .filter(|(cause, _)| !NO_LOSS.contains(cause))
        .filter_map(|(cause, count)| Some((cause.to_owned(), count.trim().parse().ok()?)))
        .collect()
}

/// The metrics of one pod. Through `kubectl port-forward`, which connects from inside the pod's own network: reading them
/// makes no edge.
///
/// # Errors
/// When the pod does not answer.
pub fn metrics(kubectl: &Kubectl, app: &str, pod: &str) -> Result<String> {
    let target = format!(":{}", port(app));
    let mut command = kubectl.command(&[
        "port-forward",
        "--namespace",
        NAMESPACE,
        &format!("pod/{pod}"),
        &target,
    ]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start kubectl port-forward")?;
    let mut forward = Forward(child);
    let output = forward
        .0
        .stdout
        .take()
        .context("the output of kubectl port-forward")?;
    // Lives as long as the forwarding: kubectl ends when it cannot write any more.
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output
        .read_line(&mut line)
        .context("read from kubectl port-forward")?;
    let address = line
        .strip_prefix("Forwarding from ")
        .and_then(|rest| rest.split(' ').next());
    let address = address.with_context(|| format!("kubectl port-forward to {pod} said {line:?}"))?;
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .context("set a time limit")?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: leyline\r\n\r\n")
        .context("ask for metrics")?;
    let text = read_metrics(&mut stream).with_context(|| format!("read the metrics of {pod}"));
    drop(output);
    text
}

/// Reads up to the end mark of the text format.
fn read_metrics(from: &mut impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while !bytes.ends_with(METRICS_END) {
        let read = from.read(&mut part)?;
        ensure!(read > 0, "they end without `# EOF`");
        ensure!(bytes.len() < MOST_METRICS, "they do not end");
        bytes.extend_from_slice(part.get(..read).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// How often the containers of a program were restarted, all pods together.
///
/// # Errors
/// When the API server does not answer.
pub fn restarts(kubectl: &Kubectl, app: &str) -> Result<u64> {
    let pods = pods(kubectl, app)?;
    let count = |pod: &Value| {
        pod.pointer("/status/containerStatuses/0/restartCount")
            .and_then(Value::as_u64)
    };
    Ok(pods.iter().filter_map(count).sum())
}

/// Waits until a program's containers were restarted more often than `before` and all are ready.
///
/// # Errors
/// When that takes too long.
pub fn restarted(kubectl: &Kubectl, app: &str, before: u64, limit: Duration) -> Result<()> {
    wait::until(&format!("{app} is back"), limit, || {
        ensure!(restarts(kubectl, app)? > before, "not restarted yet");
        for pod in pods(kubectl, app)? {
            let ready = pod
                .pointer("/status/containerStatuses/0/ready")
                .and_then(Value::as_bool);
            ensure!(ready == Some(true), "{} is not ready", name(&pod));
        }
        Ok(())
    })
}

/// Prints logs and metrics of every pod of Leyline.
pub fn dump(kubectl: &Kubectl) {
    for app in [OPERATOR, AGENT] {
        for pod in pods(kubectl, app).unwrap_or_default() {
            let pod = name(&pod);
            let logs = kubectl.run(&["logs", "--namespace", NAMESPACE, pod, "--tail=60"]);
            eprintln!(
                "---- logs of {pod}\n{}",
                logs.map_or_else(|error| format!("{error:#}"), |it| it.output)
            );
            match metrics(kubectl, app, pod) {
                Ok(text) => {
                    let figures = text
                        .lines()
                        .filter(|line| line.starts_with("leyline_") && !line.contains("_bucket"));
                    eprintln!(
                        "---- metrics of {pod}\n{}",
                        figures.collect::<Vec<_>>().join("\n")
                    );
                }
                Err(error) => eprintln!("---- metrics of {pod}: {error:#}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_and_the_other_node_are_no_loss() {
        let text = "# TYPE leyline_loss counter\nleyline_loss_total{cause=\"connection_ring\"} 3\n\
                    leyline_loss_total{cause=\"foreign_network\"} 9\nleyline_loss_total{cause=\"connections_sampled\"} 9\n";
        assert_eq!(lost(text), [("connection_ring".to_owned(), 3)]);
    }
}
