//! The client: connections at a fixed rate, counted by what became of them.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use crate::protocol::{self, Close, Request};

/// How long a name may take to appear in DNS.
const RESOLVE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
const STACK: usize = 128 << 10;

/// Options of `connect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// Host and port.
    #[arg(long)]
    to: String,
    /// Connections to make.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Connections per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    workers: u64,
    /// Bytes of each request.
    #[arg(long, default_value_t = 100)]
    request_bytes: usize,
    /// Bytes of each reply.
    #[arg(long, default_value_t = 1000)]
    reply_bytes: usize,
    /// Who closes.
    #[arg(long, value_enum, default_value = "server")]
    close: Close,
    /// Milliseconds a connection stays open after the reply (with `--close client` and `reset`).
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
    /// When to begin, in milliseconds since 1970: several clients begin together.
    #[arg(long, default_value_t = 0)]
    start_at_ms: u64,
}

/// What became of the attempts.
#[derive(Debug, Default)]
struct Tally {
    opened: u64,
    failed: BTreeMap<String, u64>,
    broken: BTreeMap<String, u64>,
    bytes_sent: u64,
    bytes_received: u64,
    servers: BTreeMap<String, u64>,
    first_open_ms: Option<u64>,
    last_open_ms: Option<u64>,
}

/// Makes the connections; prints the count every second and at the end.
pub(crate) fn run(args: &Connect) -> Result<()> {
    ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate must be above 0");
    ensure!(
        args.workers > 0 && args.workers <= 1024,
        "--workers must be between 1 and 1024"
    );
    ensure!(
        args.request_bytes >= protocol::REQUEST_HEAD,
        "--request-bytes must be at least {}",
        protocol::REQUEST_HEAD
    );
    ensure!(
        args.reply_bytes > protocol::LONGEST_NAME,
        "--reply-bytes must be above {}",
        protocol::LONGEST_NAME
    );
    ensure!(
        args.request_bytes.max(args.reply_bytes) <= protocol::LONGEST,
        "at most {} bytes",
        protocol::LONGEST
    );
    let to = resolve(&args.to)?;
    let wait = args.start_at_ms.saturating_sub(now_ms());
    thread::sleep(Duration::from_millis(wait));
    let start = Instant::now();
    let tally = Mutex::new(Tally::default());
    let running = AtomicU64::new(args.workers);
    thread::scope(|scope| {
        for worker in 0..args.workers {
            let (tally, running) = (&tally, &running);
            let work = move || {
                for number in
                    (worker..args.count).step_by(usize::try_from(args.workers).unwrap_or(usize::MAX))
                {
                    let due = start + Duration::from_secs_f64(number as f64 / args.rate);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    one(args, to, tally);
                }
                running.fetch_sub(1, Ordering::Release);
            };
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, work)
                .context("start a thread")?;
        }
        while running.load(Ordering::Acquire) > 0 {
            thread::sleep(Duration::from_secs(1).min(Duration::from_millis(100 + args.count)));
            print(&tally, false);
        }
        anyhow::Ok(())
    })?;
    print(&tally, true);
    Ok(())
}

fn one(args: &Connect, to: SocketAddr, tally: &Mutex<Tally>) {
    let mut stream = match TcpStream::connect_timeout(&to, CONNECT) {
        Ok(stream) => stream,
        Err(error) => return count(tally, |tally| add(&mut tally.failed, error.kind())),
    };
    count(tally, |tally| {
        tally.opened += 1;
        let now = now_ms();
        tally.first_open_ms.get_or_insert(now);
        tally.last_open_ms = Some(now);
    });
    match exchange(args, &mut stream) {
        Ok(server) => count(tally, |tally| {
            tally.bytes_sent += args.request_bytes as u64;
            tally.bytes_received += args.reply_bytes as u64;
            *tally.servers.entry(server).or_default() += 1;
        }),
        Err(error) => count(tally, |tally| add(&mut tally.broken, error.kind())),
    }
}

fn exchange(args: &Connect, stream: &mut TcpStream) -> io::Result<String> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT))?;
    let request = Request {
        length: args.request_bytes,
        reply: args.reply_bytes,
        close: args.close,
    };
    request.send(stream)?;
    let server = protocol::receive_reply(stream, args.reply_bytes)?;
    match args.close {
        Close::Server | Close::Abort => {
            let mut rest = [0; 1];
            let more = stream.read(&mut rest)?;
            if more > 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "more than the reply"));
            }
        }
        Close::Client => thread::sleep(Duration::from_millis(args.hold_ms)),
        Close::Reset => {
            thread::sleep(Duration::from_millis(args.hold_ms));
            let at_once = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream.as_fd(), sockopt::Linger, &at_once)?;
        }
    }
    Ok(server)
}

fn resolve(to: &str) -> Result<SocketAddr> {
    let deadline = Instant::now() + RESOLVE;
    loop {
        match to.to_socket_addrs().map(|mut all| all.next()) {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => bail!("{to} has no address"),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("resolve {to}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn count(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

fn add(counts: &mut BTreeMap<String, u64>, kind: io::ErrorKind) {
    *counts.entry(kind.to_string()).or_default() += 1;
}

fn print(tally: &Mutex<Tally>, done: bool) {
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let Tally {
        opened,
        failed,
        broken,
        bytes_sent,
        bytes_received,
        servers,
        first_open_ms,
        last_open_ms,
    } = &*tally;
    let line = json!({
        "done": done, "opened": opened, "failed": failed, "broken": broken, "bytesSent": bytes_sent,
        "bytesReceived": bytes_received, "servers": servers, "firstOpenMs": first_open_ms, "lastOpenMs": last_open_ms,
    });
    println!("{line}");
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
