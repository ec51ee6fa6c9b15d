//! `run`: load the kernel side, report to the operator until told to stop.
//!
//! Inputs: [`RunArgs`]. Outputs: streams, the admin port, the log. Ends with an error only when nothing works; on SIGTERM
//! or SIGINT it detaches everything and returns within a second, and a second signal ends the process at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::{RunArgs, kernel_file};
use crate::collect::{Collector, DRAIN_EVERY};
use crate::delta::Agent;
use crate::kernel::{Kernel, KernelOptions, ProbeState};
use crate::metrics::Metrics;
use crate::naming::{Cgroups, Names, Processes, own_netns, unified_root};
use crate::state::State;
use crate::streams::{Settings, Shared};
use crate::{admin, clock, streams};

/// Connections of split half-edges that are held: ten seconds at the rate where sampling begins, and more.
const MAX_CONNECTIONS: usize = 20_000;
/// A stream ends itself within this time: the token lives for an hour.
const STREAM_LIFETIME: Duration = Duration::from_secs(45 * 60);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// What streams get for saying goodbye.
const GOODBYE: Duration = Duration::from_millis(300);

/// Runs until a signal.
///
/// # Errors
/// Nothing works: no probe, the admin port, no `/proc`.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot watch for signals")?;
    let metrics = Arc::new(Metrics::new());
    let shared = Arc::new(Shared::new(State::new(
        usize::try_from(args.max_half_edges()).context("more half-edges than this machine can count")?,
        MAX_CONNECTIONS,
    )));
    let admin = admin::listen(args.admin, Arc::clone(&shared), Arc::clone(&metrics)).await?;

    let kernel = load(&args)?;
    let mut collector = Collector::new(kernel, names(&args)?, Arc::clone(&shared), Arc::clone(&metrics));
    // The first round adopts the sockets that are there, so that the first report is whole.
    collector.round();
    tokio::spawn(admin);

    let stop = CancellationToken::new();
    let streams = tokio::spawn(streams::run(settings(&args), shared, metrics, stop.clone()));
    let mut rounds = interval(DRAIN_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reason = loop {
        tokio::select! {
            _ = rounds.tick() => collector.round(),
            reason = signals.next() => break reason,
        }
    };
    info!(reason, "stopping");
    signals.next_one_kills();
    drop(collector);
    stop.cancel();
    if timeout(GOODBYE, streams).await.is_err() {
        warn!("a stream did not end in time");
    }
    info!("stopped; all probes are detached");
    Ok(())
}

fn load(args: &RunArgs) -> anyhow::Result<Kernel> {
    let options = KernelOptions {
        max_half_edges: args.max_half_edges(),
        ..KernelOptions::default()
    };
    let options = if args.udp {
        options.with_udp(cgroup_root(args))
    } else {
        options
    };
    let kernel = Kernel::load(&options).context("nothing can be observed")?;
    for probe in kernel.probes() {
        match probe.state {
            ProbeState::Attached => info!(probe = probe.name, "attached"),
            state => warn!(probe = probe.name, %state, reason = probe.reason, "not attached"),
        }
    }
    Ok(kernel)
}

fn cgroup_root(args: &RunArgs) -> Option<PathBuf> {
    args.cgroup_root.clone().or_else(|| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        unified_root(&mounts)
    })
}

/// Names are looked up after the programs are attached: a cgroup made in between is in the ring buffer.
fn names(args: &RunArgs) -> anyhow::Result<Names> {
    let root = cgroup_root(args);
    match &root {
        Some(root) if !root.is_dir() => anyhow::bail!("the cgroup root {} is no directory", root.display()),
        Some(root) => info!(root = %root.display(), "unified cgroup hierarchy found"),
        None => warn!("no unified cgroup hierarchy: pods are found by their processes only"),
    }
    let own_netns = own_netns().context("cannot read /proc/self/ns/net")?;
    Ok(Names::new(
        Cgroups::new(root),
        Processes::new(PathBuf::from("/proc")),
        own_netns,
    ))
}

fn settings(args: &RunArgs) -> Settings {
    let agent = Agent {
        node: args.node(),
        epoch: clock::wall_ns(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel_file("osrelease"),
    };
    info!(
        node = agent.node,
        epoch = agent.epoch,
        operator = args.operator,
        "reporting"
    );
    Settings {
        operator: args.operator.clone(),
        server_name: args.server_name.clone(),
        ca: args.ca.clone(),
        token: args.token.clone(),
        agent,
        lifetime: STREAM_LIFETIME,
        backoff: BACKOFF,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Gives both signals their default effect again.
    fn next_one_kills(&self) {
        use nix::sys::signal::{SigHandler, Signal as Number, signal};
        for number in [Number::SIGTERM, Number::SIGINT] {
            // SAFETY: restoring the default disposition installs no handler, so none can run code that is not
            // async-signal-safe; nobody relies on the handler that is replaced.
            if let Err(error) = unsafe { signal(number, SigHandler::SigDfl) } {
                warn!(%error, "a second signal will not end the process");
            }
        }
    }
}
