//! `cargo xtask bench network`: what the agent costs the applications on its node, and what it sees for that.
//!
//! Every load runs without and with the agent in turn, in one call, on the same nginx; each figure is printed as
//! minimum, median and maximum, with the ratio of the medians. The loads go through two network namespaces that the
//! benchmark makes and removes. Deliberately absent: a verdict. Goals are printed beside the figures, machines differ.

mod agent;
mod cpu;
mod load;
mod place;
mod sink;
mod summary;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::images::program;
use crate::step::{say, step};
use agent::Agent;
use load::{Load, Sample};
use place::Place;
use summary::Table;

/// `cargo xtask bench …`
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// The network level: keep-alive requests, one request per connection, a fixed rate, memory.
    Network(NetworkArgs),
}

/// Options of `bench network`.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// Rounds per load; each runs once without and once with the agent.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per run.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Half-edges for the memory figures.
    #[arg(long, default_value_t = 5_000)]
    half_edges: u16,
    /// Another agent to measure; this workspace's, as its image has it, when absent.
    #[arg(long)]
    agent: Option<PathBuf>,
}

/// Runs a benchmark.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Network(args) => network(args),
    }
}

fn network(args: &NetworkArgs) -> Result<()> {
    place::ensure_tools()?;
    crate::setup::for_build()?;
    program::compile(&[agent::PROGRAM, sink::PROGRAM])?;
    let program = args.agent.clone().unwrap_or_else(|| agent::PROGRAM.path());
    let sink = sink::Sink::start()?;
    let place = Place::new().context("make the benchmark's network namespaces and start nginx")?;
    for load in [Load::KeepAlive, Load::PerConnection, Load::FixedRate] {
        let mut table = Table::new(load);
        step(
            &format!(
                "{}: {} rounds of {} s without and with the agent",
                load.title(),
                args.rounds,
                args.seconds
            ),
            || {
                for round in 0..args.rounds {
                    // Alternating the order keeps a slow drift of the machine out of the ratio.
                    if round % 2 == 0 {
                        table.without.push(load.run(&place, args.seconds)?);
                        table
                            .with
                            .push(with_agent(&program, &sink, &place, load, args.seconds)?);
                    } else {
                        table
                            .with
                            .push(with_agent(&program, &sink, &place, load, args.seconds)?);
                        table.without.push(load.run(&place, args.seconds)?);
                    }
                }
                Ok(())
            },
        )?;
        say(&table.to_string());
    }
    memory(args, &program, &sink, &place)
}

/// One run with the agent attached; the agent's own figures are in the sample.
fn with_agent(
    program: &std::path::Path,
    sink: &sink::Sink,
    place: &Place,
    load: Load,
    seconds: u64,
) -> Result<Sample> {
    let agent = Agent::start(program, sink)?;
    let before = agent.usage()?;
    let mut sample = load.run(place, seconds)?;
    let after = agent.usage()?;
    // The agent reads the kernel once a second: what it saw is complete a moment after the load has ended.
    let seen = agent.settled()?;
    sample.agent = Some(after.and_counts_of(&seen).since(&before));
    agent.stop()?;
    Ok(sample)
}

/// Resident memory and map bytes with many half-edges.
fn memory(args: &NetworkArgs, program: &std::path::Path, sink: &sink::Sink, place: &Place) -> Result<()> {
    let agent = Agent::start(program, sink)?;
    let idle = agent.usage()?;
    // Both ends of a connection are on this kernel: each port makes a client and a server half-edge.
    place.connect_to_ports(args.half_edges / 2)?;
    let full = agent.wait_for_half_edges(u64::from(args.half_edges / 2 * 2))?;
    say(&format!(
        "Memory of the agent (goal at 5,000 half-edges: 50 MiB together)\n\n{}",
        summary::memory(&idle, &full)
    ));
    agent.stop()
}
