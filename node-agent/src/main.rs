//! The binary: see the library.

use std::process::ExitCode;

use clap::Parser as _;
use leyline_node_agent::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    args.start_logging();
    // Fails only when a provider is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let options = match args.command() {
        Command::Run(options) => options,
        Command::Observe(options) => return leyline_node_agent::observe::observe(&options),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(leyline_node_agent::run::run(options));
    // A name that is being resolved would hold up the end by seconds.
    runtime.shutdown_background();
    result
}
