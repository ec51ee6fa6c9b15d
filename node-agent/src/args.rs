//! Command line and environment.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::observe::ObserveArgs;

/// Watches the sockets of this node and reports who talks to whom.
#[derive(Debug, Parser)]
#[command(
    name = "leyline-node-agent",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// What is logged to stderr: a level, or `target=level` pairs separated by commas.
    #[arg(long, global = true, env = "LEYLINE_LOG", default_value = "info")]
    pub log: String,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report to the operator until stopped (the default).
    Run(RunArgs),
    /// Show the half-edges of this machine, live; needs neither operator nor Kubernetes.
    Observe(ObserveArgs),
}

impl Args {
    /// The command, `run` when none was given.
    #[must_use]
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }

    /// Logs go to stderr; stdout is for what a command shows.
    pub fn start_logging(&self) {
        let filter = EnvFilter::try_new(&self.log).unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false);
        log.with_env_filter(filter).init();
    }
}

/// Options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// This node's name in Kubernetes; the host's name when absent.
    #[arg(long, env = "LEYLINE_NODE_NAME")]
    pub node_name: Option<String>,
    /// `host:port` of the operator's headless Service.
    #[arg(
        long,
        env = "LEYLINE_OPERATOR",
        default_value = "leyline-operator.leyline-system.svc:8443"
    )]
    pub operator: String,
    /// The name in the operator's certificate.
    #[arg(
        long,
        env = "LEYLINE_SERVER_NAME",
        default_value = "leyline-operator.leyline-system.svc"
    )]
    pub server_name: String,
    /// The operator's certificate authority, PEM.
    #[arg(long, env = "LEYLINE_CA", default_value = "/etc/leyline/ca/ca.crt")]
    pub ca: PathBuf,
    /// The projected service account token.
    #[arg(long, env = "LEYLINE_TOKEN", default_value = "/var/run/secrets/leyline/token")]
    pub token: PathBuf,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "LEYLINE_ADMIN", default_value = "0.0.0.0:9403")]
    pub admin: SocketAddr,
    /// The container's memory limit in bytes; sizes of tables follow it.
    #[arg(long, env = "LEYLINE_MEMORY_LIMIT")]
    pub memory_limit: Option<u64>,
    /// Root directory of the unified cgroup hierarchy; found in /proc/self/mounts when absent.
    #[arg(long, env = "LEYLINE_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,
    /// Watch UDP as well (Linux 6.3; the variable takes true or false). Sockets that are not connected need CAP_NET_ADMIN; see docs/security.md.
    #[arg(long, env = "LEYLINE_UDP")]
    pub udp: bool,
}

impl RunArgs {
    /// The node's name, from the option or the host.
    #[must_use]
    pub fn node(&self) -> String {
        let named = self.node_name.clone().filter(|name| !name.is_empty());
        named.unwrap_or_else(|| kernel_file("hostname").to_lowercase())
    }

    /// Half-edges to make room for: 16,384 by default and with 64 MiB, proportional to the limit. An entry takes about
    /// 240 bytes in the kernel and at most 900 in user space, so tables stay below a third of the limit.
    #[must_use]
    pub fn max_half_edges(&self) -> u32 {
        const BYTES_EACH: u64 = 4_096;
        let fitting = self
            .memory_limit
            .filter(|limit| *limit > 0)
            .map(|limit| limit / BYTES_EACH);
        u32::try_from(fitting.unwrap_or(16_384).clamp(2_048, 65_536)).unwrap_or(16_384)
    }
}

/// One of the kernel's own one-line files, empty when it cannot be read.
#[must_use]
pub fn kernel_file(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> RunArgs {
        let all = std::iter::once("leyline-node-agent").chain(arguments.iter().copied());
        match Args::try_parse_from(all).unwrap().command() {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn run_is_the_default_and_takes_the_same_options() {
        assert_eq!(run(&["--node-name", "n"]).node(), "n");
        assert_eq!(run(&["run", "--node-name", "n", "--log", "debug"]).node(), "n");
        assert_eq!(run(&[]).operator, "leyline-operator.leyline-system.svc:8443");
    }

    #[test]
    fn tables_follow_the_memory_limit_within_bounds() {
        assert_eq!(run(&[]).max_half_edges(), 16_384);
        assert_eq!(run(&["--memory-limit", "67108864"]).max_half_edges(), 16_384);
        assert_eq!(run(&["--memory-limit", "1"]).max_half_edges(), 2_048);
        assert_eq!(run(&["--memory-limit", "0"]).max_half_edges(), 16_384);
        assert_eq!(run(&["--memory-limit", "99999999999"]).max_half_edges(), 65_536);
    }
}
