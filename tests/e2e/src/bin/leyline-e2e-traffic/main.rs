//! Clients and servers with exact counts, for the end-to-end tests.
//!
//! `serve` answers; `connect` makes connections and prints what it did as one JSON object per line, the last line being
//! the final count. Only the standard library's blocking sockets: what it counts must be beyond doubt. Deliberately
//! absent: retries (a failed attempt is a result), HTTP, TLS. `act` is both at once and writes down every connection, for
//! the comparison with a ground truth.

mod act;
mod connect;
mod protocol;
mod serve;

use anyhow::Result;
use clap::Parser;

/// Makes TCP traffic and counts it.
#[derive(Debug, Parser)]
enum Command {
    /// Answers on a port until it is killed.
    Serve(serve::Serve),
    /// Makes connections and prints what it did.
    Connect(connect::Connect),
    /// Accepts and makes connections and writes every one of them into a log.
    Act(act::Act),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Serve(args) => serve::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Act(args) => act::run(&args),
    }
}
