//! The server, in the ways in which servers hand sockets around.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use leyline_e2e::truth::log::{Event, Role};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::call::name;
use super::log::Log;
use super::{Act, pass};
use crate::protocol::{Close, Request, send_reply};

const PATIENCE: Duration = Duration::from_secs(300);
/// Processes of a pre-forking server.
const WORKERS: usize = 2;
const BACKLOG: i32 = 128;
const MOST_PORTS: u16 = 64;

/// How accepted connections are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// By a thread each.
    Threads,
    /// By processes that inherited the listener.
    Prefork,
    /// By a new program each, which got a duplicate; the own descriptor is closed.
    Exec,
    /// By another process, which gets the descriptor over a Unix socket.
    Pass,
    /// This is the other process.
    Take,
}

/// What the standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Inherited {
    /// A listener.
    Listener,
    /// An accepted connection.
    Connection,
}

/// `9000` or `9000-9011`.
pub(crate) fn ports(text: &str) -> Result<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        text.parse::<u16>()
            .with_context(|| format!("`{text}` is no port"))
    };
    let (first, last) = (number(first)?, number(last)?);
    if last < first || last - first >= MOST_PORTS {
        bail!("{first}-{last} is no range of at most {MOST_PORTS} ports");
    }
    Ok((first..=last).collect())
}

/// Opens a port and serves it.
pub(crate) fn start(args: &Act, port: u16, log: &Log) -> Result<()> {
    let protocol = if args.mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(protocol)).context("make a socket")?;
    socket.set_only_v6(false).context("listen for IPv4 too")?;
    socket
        .set_reuse_address(true)
        .context("take the port at once again")?;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket
        .bind(&address.into())
        .and_then(|()| socket.listen(BACKLOG))
        .with_context(|| format!("listen on {address}"))?;
    let listener = TcpListener::from(socket);
    match args.serve {
        Way::Prefork => {
            for _ in 0..WORKERS {
                let copy = listener.try_clone().context("copy the listener")?;
                child(args, Inherited::Listener, copy.into())?;
            }
        }
        Way::Threads | Way::Exec | Way::Pass | Way::Take => {
            let (args, log) = (args.clone(), log.clone());
            thread::spawn(move || accept(&args, &listener, &log));
        }
    }
    log.write(Event::Listening { port });
    Ok(())
}

/// What a child process does with what it was started with.
pub(crate) fn inherited(args: &Act, what: Inherited, given: OwnedFd, log: &Log) -> Result<()> {
    match what {
        Inherited::Listener => {
            accept(args, &TcpListener::from(given), log);
            Ok(())
        }
        Inherited::Connection => {
            serve(TcpStream::from(given), None, log);
            Ok(())
        }
    }
}

fn accept(args: &Act, listener: &TcpListener, log: &Log) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        let (args, log) = (args.clone(), log.clone());
        thread::spawn(move || {
            let handed = match (args.serve, args.inherited) {
                (Way::Exec, None) => child(&args, Inherited::Connection, stream.into()),
                (Way::Pass, _) => pass::give(args.socket.as_deref(), &stream, &log),
                _ => {
                    serve(stream, None, &log);
                    Ok(())
                }
            };
            if let Err(error) = handed {
                eprintln!("{error:#}");
            }
        });
    }
}

/// Starts this program again with a descriptor as its standard input; it stays open there only.
fn child(args: &Act, what: Inherited, given: OwnedFd) -> Result<()> {
    let what = match what {
        Inherited::Listener => "listener",
        Inherited::Connection => "connection",
    };
    let program = std::env::current_exe().context("find this program")?;
    let mut child = Command::new(program)
        .args(["act", "--inherited", what, "--who", &args.who])
        .args(["--instance", &args.instance])
        .arg("--logs")
        .arg(&args.logs)
        .stdin(Stdio::from(given))
        .spawn()
        .context("start a child")?;
    thread::spawn(move || child.wait());
    Ok(())
}

/// Reads the id of a connection without taking it away.
pub(crate) fn peek(stream: &TcpStream) -> Option<[u8; 8]> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut id = [0; 8];
    // The client sends its id with one call; eight bytes arrive together.
    (stream.peek(&mut id).ok()? == id.len()).then_some(id)
}

/// Writes down that a connection was accepted.
pub(crate) fn accepted(stream: &TcpStream, id: Option<[u8; 8]>, log: &Log) {
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
        return;
    };
    log.write(Event::Accepted {
        id: id.map(|id| name(u64::from_be_bytes(id))),
        port: local.port(),
        local,
        peer,
    });
}

/// Serves one connection to its end. `known`: somebody else has written down its id already.
pub(crate) fn serve(stream: TcpStream, known: Option<[u8; 8]>, log: &Log) {
    let id = known.or_else(|| peek(&stream));
    if known.is_none() {
        accepted(&stream, id, log);
    }
    let Some(id) = id else {
        return;
    };
    let mut count = Counted {
        stream,
        sent: 0,
        received: 0,
    };
    let result = talk(&mut count);
    let Counted {
        stream,
        sent,
        received,
    } = count;
    drop(stream);
    log.write(Event::Ended {
        id: name(u64::from_be_bytes(id)),
        role: Role::Server,
        broken: result.err().map(|error| error.to_string()),
        sent,
        received,
    });
}

fn talk(count: &mut Counted) -> io::Result<()> {
    count.stream.set_nodelay(true)?;
    count.stream.set_read_timeout(Some(PATIENCE))?;
    let mut id = [0; 8];
    count.read_exact(&mut id)?;
    loop {
        let request = match Request::receive(count) {
            Ok(request) => request,
            // The client is through.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        send_reply(&mut count.stream, "act", request.reply)?;
        count.sent += request.reply as u64;
        match request.close {
            Close::Server => return Ok(()),
            Close::Abort => {
                SockRef::from(&count.stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Close::Client | Close::Reset => {}
        }
    }
}

struct Counted {
    stream: TcpStream,
    sent: u64,
    received: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.received += read as u64;
        Ok(read)
    }
}
