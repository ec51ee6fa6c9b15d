//! The server: one thread per connection, as the client's request says.

use std::io::{self, Read as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::protocol::{Close, Request, send_reply};

/// Connections at once; more are closed at once.
const MOST_CONNECTIONS: usize = 10_000;
/// Enough for one connection's few small frames.
const STACK: usize = 128 << 10;
/// A peer that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(300);

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// The port, on all addresses of both families.
    #[arg(long)]
    port: u16,
    /// The name the replies begin with; a pod's name by default.
    #[arg(long, env = "HOSTNAME", default_value = "server")]
    name: String,
}

/// Serves until the process is killed.
pub(crate) fn run(args: &Serve) -> Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port));
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let name: Arc<str> = args.name.as_str().into();
    let open = Arc::new(AtomicUsize::new(0));
    println!("{{\"listening\":{}}}", args.port);
    loop {
        let (stream, peer) = listener.accept().context("accept a connection")?;
        if open.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (name, open) = (Arc::clone(&name), Arc::clone(&open));
        let handler = move || {
            if let Err(error) = handle(stream, &name) {
                eprintln!("{peer}: {error}");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        };
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(handler)
            .context("start a thread")?;
    }
}

fn handle(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = Request::receive(&mut stream)?;
    send_reply(&mut stream, name, request.reply)?;
    if request.close == Close::Server {
        return Ok(());
    }
    // The end of the client's stream, or its reset.
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest), Ok(read) if read > 0) {}
    Ok(())
}
