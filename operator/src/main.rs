//! Entry point: arguments, TLS provider, run.

use clap::Parser;
use leyline_operator::args::Args;
use leyline_operator::runtime;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    runtime::log(&args.log)?;
    runtime::install_tls_provider();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()?
        .block_on(runtime::run(args))
}
