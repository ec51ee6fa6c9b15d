//! The node agent under measurement: a real one, with an operator's end of the stream to report to.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::cpu;
use super::sink::Sink;
use crate::images::program::Program;
use crate::step::{self, wait_for};

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 19_403);
/// The limit of `config/agent`: map sizes follow it.
const MEMORY_LIMIT: u64 = 64 << 20;

/// Counts that have not moved for this long are final: the agent reads the kernel every second.
const REST: Duration = Duration::from_millis(2_500);

/// A running agent.
pub(super) struct Agent {
    child: Child,
}

/// What the agent has used and seen since it started, or between two moments.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    at: Instant,
    cpu: f64,
    elapsed: f64,
    pub(super) resident: u64,
    pub(super) map_bytes: u64,
    pub(super) half_edges: u64,
    pub(super) opened: u64,
    /// Connections that no half-edge counts.
    pub(super) lost: u64,
    /// Records of connections that are counted, but cannot be matched one by one.
    pub(super) records_lost: u64,
}

/// The agent as its image has it.
pub(super) const PROGRAM: Program = Program {
    package: "leyline-node-agent",
    name: "leyline-node-agent",
    feature: None,
};

impl Agent {
    /// Starts the agent and waits until it is ready.
    pub(super) fn start(program: &Path, sink: &Sink) -> Result<Self> {
        let child = Command::new(program)
            .arg("run")
            .env("LEYLINE_NODE_NAME", "bench")
            .env("LEYLINE_OPERATOR", sink.address())
            .env("LEYLINE_CA", sink.ca())
            .env("LEYLINE_TOKEN", sink.token())
            .env("LEYLINE_ADMIN", ADMIN.to_string())
            .env("LEYLINE_MEMORY_LIMIT", MEMORY_LIMIT.to_string())
            .stdin(Stdio::null())
            .stderr(
                std::fs::File::create(step::log_path("bench-agent-run")?).context("make the agent's log")?,
            )
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut agent = Self { child };
        wait_for("the agent's readiness", Duration::from_secs(20), || {
            if let Some(status) = agent.child.try_wait().context("look after the agent")? {
                bail!(
                    "the agent ended ({status}); log: {}",
                    step::log_path("bench-agent-run")?.display()
                );
            }
            get("/readyz").map(drop)
        })?;
        wait_for("the agent's stream", Duration::from_secs(20), || {
            let streams = value(&get("/metrics")?, "leyline_streams")?;
            ensure!(streams >= 1, "no stream to the collector yet");
            Ok(())
        })?;
        Ok(agent)
    }

    /// What the agent has used and seen so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        let metrics = get("/metrics")?;
        Ok(Usage {
            at: Instant::now(),
            cpu: cpu::of_process(self.child.id())?,
            elapsed: 0.0,
            resident: cpu::resident(self.child.id())?,
            map_bytes: value(&metrics, "leyline_map_bytes")?,
            half_edges: value(&metrics, "leyline_half_edges")?,
            opened: value(&metrics, "leyline_connections_opened_total")?,
            lost: losses(&metrics, &["half_edges_full", "socket_storage", "unknown_cgroup"])?,
            records_lost: losses(&metrics, &["connection_ring", "connections_queue"])?,
        })
    }

    /// What the agent has used and seen, once its counts have rested for longer than it takes to read the kernel.
    pub(super) fn settled(&self) -> Result<Usage> {
        let mut last = self.usage()?;
        wait_for("the agent's counts to rest", Duration::from_secs(30), || {
            let usage = self.usage()?;
            if usage.opened != last.opened {
                last = usage;
                bail!("still counting");
            }
            ensure!(usage.at.duration_since(last.at) > REST, "not long enough yet");
            Ok(usage)
        })
    }

    /// Waits until the agent knows that many half-edges.
    pub(super) fn wait_for_half_edges(&self, count: u64) -> Result<Usage> {
        wait_for("the agent's half-edges", Duration::from_secs(30), || {
            let usage = self.usage()?;
            ensure!(
                usage.half_edges >= count,
                "{} of {count} half-edges",
                usage.half_edges
            );
            Ok(usage)
        })
    }

    /// Ends the agent and waits for it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal();
        let status = self.child.wait().context("wait for the agent")?;
        ensure!(status.success(), "the agent ended with {status} on SIGTERM");
        Ok(())
    }

    fn signal(&self) {
        #[expect(clippy::cast_possible_wrap, reason = "process ids fit in i32")]
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal();
            drop(self.child.wait());
        }
    }
}

impl Usage {
    /// With the counts of a later moment, for a CPU time that does not include the wait for them.
    pub(super) fn and_counts_of(self, later: &Self) -> Self {
        Self {
            opened: later.opened,
            lost: later.lost,
            records_lost: later.records_lost,
            ..self
        }
    }

    /// The difference to an earlier moment; memory is that of the later one.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            at: self.at,
            cpu: self.cpu - before.cpu,
            elapsed: self.at.duration_since(before.at).as_secs_f64(),
            opened: self.opened - before.opened,
            lost: self.lost - before.lost,
            records_lost: self.records_lost - before.records_lost,
            ..self.clone()
        }
    }

    pub(super) fn millicores(&self) -> f64 {
        self.cpu / self.elapsed * 1e3
    }
}

/// One request to the admin port.
fn get(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&ADMIN, Duration::from_secs(2))
        .context("connect to the agent's admin port")?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .context("limit the wait for an answer")?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
    )
    .context("ask the agent")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the agent's answer")?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{path}: {}",
        answer.lines().next().unwrap_or("no answer")
    );
    Ok(answer)
}

/// The agent's losses of these causes.
fn losses(metrics: &str, causes: &[&str]) -> Result<u64> {
    let of = |cause| value(metrics, &format!("leyline_loss_total{{cause=\"{cause}\"}}"));
    causes.iter().map(of).sum()
}

/// A metric summed over its labels.
fn value(metrics: &str, name: &str) -> Result<u64> {
    let mut sum = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        if !rest.starts_with([' ', '{']) {
            continue;
        }
        let figure = rest.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        sum = Some(sum.unwrap_or(0) + figure.with_context(|| format!("not a whole number: `{line}`"))?);
    }
    sum.with_context(|| format!("the agent has no metric {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a counter\nab_total 9\na_total{cause=\"x y\"} 2\na_total{cause=\"z\"} 3\n";
        assert_eq!(value(text, "a_total").unwrap(), 5);
        assert!(value(text, "b_total").is_err());
    }
}
