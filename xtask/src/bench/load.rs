//! The loads, and what one run of one of them gives.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::agent::Usage;
use super::cpu;
use super::place::Place;
use crate::step;

/// What is done to nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// As many keep-alive requests as go through.
    KeepAlive,
    /// One request per connection, closed by the server, as many as go through.
    PerConnection,
    /// 10,000 keep-alive requests per second, whatever the server does.
    FixedRate,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Requests per second.
    pub(super) rate: f64,
    /// Microseconds.
    pub(super) p50: f64,
    /// Microseconds.
    pub(super) p99: f64,
    /// CPU of nginx per request, microseconds.
    pub(super) server_cpu: f64,
    /// CPU of the whole machine per request, microseconds.
    pub(super) machine_cpu: f64,
    /// Connections made, where every request makes one.
    pub(super) connections: Option<f64>,
    /// The agent's own figures, where one ran.
    pub(super) agent: Option<Usage>,
}

/// What a load generator said.
struct Answered {
    requests: f64,
    p50: f64,
    p99: f64,
}

impl Load {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive requests",
            Self::PerConnection => "one request per connection",
            Self::FixedRate => "10,000 requests/s",
        }
    }

    /// Runs the load for `seconds`.
    pub(super) fn run(self, place: &Place, seconds: u64) -> Result<Sample> {
        let server = cpu::of_process(place.server_pid())?;
        let machine = cpu::of_machine()?;
        let started = Instant::now();
        let answered = match self {
            Self::KeepAlive => wrk(place, seconds, &[]),
            Self::PerConnection => wrk(place, seconds, &["-H", "Connection: close"]),
            Self::FixedRate => h2load(place, seconds),
        }?;
        let elapsed = started.elapsed().as_secs_f64();
        let server = cpu::of_process(place.server_pid())? - server;
        let machine = cpu::of_machine()? - machine;
        ensure!(answered.requests > 0.0, "{}: nothing was answered", self.title());
        Ok(Sample {
            rate: answered.requests / elapsed,
            p50: answered.p50,
            p99: answered.p99,
            server_cpu: server / answered.requests * 1e6,
            machine_cpu: machine / answered.requests * 1e6,
            connections: (self == Self::PerConnection).then_some(answered.requests),
            agent: None,
        })
    }
}

fn wrk(place: &Place, seconds: u64, more: &[&str]) -> Result<Answered> {
    let text = step::output(
        place
            .client("wrk")
            .args([
                "--threads",
                "1",
                "--connections",
                "32",
                "--latency",
                "--duration",
                &format!("{seconds}s"),
            ])
            .args(more)
            .arg(place.url()),
    )?;
    read_wrk(&text).with_context(|| format!("wrk said:\n{text}"))
}

fn read_wrk(text: &str) -> Result<Answered> {
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok())
        .context("no count of requests")?;
    let percentile = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .map(str::trim);
        value
            .and_then(microseconds)
            .with_context(|| format!("no latency {name}"))
    };
    Ok(Answered {
        requests,
        p50: percentile("50%")?,
        p99: percentile("99%")?,
    })
}

fn microseconds(text: &str) -> Option<f64> {
    for (unit, scale) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(value) = text.strip_suffix(unit) {
            return Some(value.trim().parse::<f64>().ok()? * scale);
        }
    }
    None
}

/// 50 clients with 200 requests per second each; h2load keeps its schedule whether or not answers come in time.
fn h2load(place: &Place, seconds: u64) -> Result<Answered> {
    let log = tempfile::NamedTempFile::new().context("make a file for h2load's log")?;
    let mut command: Command = place.client("h2load");
    command
        .args([
            "--h1",
            "--clients",
            "50",
            "--rps",
            "200",
            "--duration",
            &seconds.to_string(),
        ])
        .arg("--log-file")
        .arg(log.path())
        .arg(place.url());
    step::output(&mut command)?;
    let text = fs::read_to_string(log.path()).context("read h2load's log")?;
    read_h2load(&text)
}

/// Each line: start in microseconds, status, duration in microseconds.
fn read_h2load(log: &str) -> Result<Answered> {
    let mut took: Vec<f64> = Vec::new();
    for line in log.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(_), Some("200"), Some(duration)) = (fields.next(), fields.next(), fields.next()) {
            took.push(
                duration
                    .parse()
                    .with_context(|| format!("h2load logged `{line}`"))?,
            );
        }
    }
    took.sort_by(f64::total_cmp);
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .context("h2load logged no answer")
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 requests")]
    let requests = took.len() as f64;
    Ok(Answered {
        requests,
        p50: at(50)?,
        p99: at(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_prints() {
        let text = "  Latency Distribution\n     50%  484.00us\n     75%    1.00ms\n     99%    2.50ms\n  362142 requests in 6.00s, 441.39MB read\n";
        let answered = read_wrk(text).unwrap();
        assert_eq!(
            (answered.requests, answered.p50, answered.p99),
            (362_142.0, 484.0, 2_500.0)
        );
    }

    #[test]
    fn reads_h2loads_log_and_leaves_failures_out() {
        let log: String = (1..=100)
            .map(|n| format!("{}\t200\t{n}\n", 1000 + n))
            .chain(["1\t-1\t9999\n".to_owned()])
            .collect();
        let answered = read_h2load(&log).unwrap();
        assert_eq!(
            (answered.requests, answered.p50, answered.p99),
            (100.0, 51.0, 100.0)
        );
    }

    #[test]
    fn an_empty_log_is_an_error() {
        assert!(read_h2load("").is_err());
    }
}
