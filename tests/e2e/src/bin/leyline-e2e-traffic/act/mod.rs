//! One process of a scenario: it listens, it calls, and it writes down every connection with both addresses as its
//! sockets see them. The other half of a connection is found by the id that the client sends as its first bytes.
//!
//! Inputs: options; files in the log folder with which the harness says when a phase begins. Outputs: one log file per
//! process in that folder, which is on the node and so survives the pod. Deliberately absent: retries.

mod call;
mod listen;
mod log;
mod pass;
mod spec;
mod sys;

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result};

use log::Log;

/// Options of `act`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Act {
    /// Where the log goes and where the harness says that a phase begins.
    #[arg(long, env = "TRUTH_LOGS")]
    logs: PathBuf,
    /// `<kind> <namespace> <name>`: in whose name this process acts.
    #[arg(long, env = "TRUTH_WHO")]
    who: String,
    /// The name of the pod or process.
    #[arg(long, env = "TRUTH_INSTANCE", default_value = "process")]
    instance: String,
    /// Ports to listen on, `PORT` or `FIRST-LAST`.
    #[arg(long)]
    listen: Vec<String>,
    /// How accepted connections are served.
    #[arg(long, value_enum, default_value = "threads")]
    serve: listen::Way,
    /// Listen with multipath TCP, as Go's servers do.
    #[arg(long)]
    mptcp: bool,
    /// Calls to make, as `key=value,…`; see the documentation of the ground truth.
    #[arg(long)]
    call: Vec<spec::Call>,
    /// Live on without end after the last call; a process that listens does so in any case.
    #[arg(long)]
    stay: bool,
    /// What this process got as its standard input from the one that started it.
    #[arg(long, value_enum, hide = true)]
    inherited: Option<listen::Inherited>,
    /// A Unix socket over which accepted connections are handed to, or taken from, another process.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// Listens and calls.
pub(crate) fn run(args: &Act) -> Result<()> {
    let log = Log::open(&args.logs, &args.who, &args.instance)?;
    if let Some(inherited) = args.inherited {
        let given = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("take the standard input")?;
        return listen::inherited(args, inherited, given, &log);
    }
    if let (listen::Way::Take, Some(path)) = (args.serve, &args.socket) {
        return pass::take(path, &log);
    }
    for ports in &args.listen {
        for port in listen::ports(ports)? {
            listen::start(args, port, &log)?;
        }
    }
    let calls: Vec<_> = args
        .call
        .iter()
        .map(|spec| {
            let (spec, log, logs) = (spec.clone(), log.clone(), args.logs.clone());
            thread::spawn(move || call::run(&spec, &logs, &log))
        })
        .collect();
    let some = !calls.is_empty();
    for call in calls {
        match call.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("a call ended abnormally"),
        }
    }
    if some {
        log.done();
    }
    if args.stay || !args.listen.is_empty() {
        loop {
            thread::park();
        }
    }
    Ok(())
}
