//! The client.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use leyline_e2e::truth::log::{Dial, Event, Role};
use socket2::{Domain, Protocol, Socket, Type};

use super::log::{Log, unique};
use super::spec::Call;
use super::sys;
use crate::protocol::{self, Close, Request};

/// Longer than any attempt takes by itself.
const PATIENCE: Duration = Duration::from_secs(150);
/// A phase that does not begin in this time never will.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(20);
/// Between two requests of a connection that stays open.
const BEAT: Duration = Duration::from_millis(500);

/// Makes all connections of a call.
pub(crate) fn run(call: &Call, logs: &Path, log: &Log) -> Result<()> {
    wait_for(logs, &call.phase)?;
    let first = resolve(&call.to)?;
    let start = Instant::now();
    let mut number = 0;
    for _ in 0..call.count {
        for address in 0..call.addresses {
            for port in 0..call.ports {
                let due = start + Duration::from_millis(number * call.every);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                number += 1;
                let to = SocketAddr::new(up(first.ip(), address), first.port().saturating_add(port));
                let dial = if call.addresses == 1 && call.ports == 1 {
                    call.to.clone()
                } else {
                    to.to_string()
                };
                one(call, to, dial, logs, log)?;
            }
        }
    }
    Ok(())
}

/// One connection from the attempt to its end.
fn one(call: &Call, to: SocketAddr, dial: String, logs: &Path, log: &Log) -> Result<()> {
    if let Some(other) = &call.race {
        return race(call, to, other, dial, log);
    }
    let id = unique();
    if let Some(stream) = attempt(call, to, &dial, id, log)? {
        talk(call, stream, id, logs, log);
    }
    Ok(())
}

/// Two destinations at once, as a client does that knows two addresses of a name: the first that answers is kept.
fn race(call: &Call, to: SocketAddr, other: &str, dial: String, log: &Log) -> Result<()> {
    let loser_id = unique();
    let loser_to = resolve(other)?;
    let loser = socket(call, loser_to)?;
    loser.set_nonblocking(true)?;
    match loser.connect(&mapped(call, loser_to).into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => bail!("{other} was to hang, but: {error}"),
        Ok(()) => bail!("{other} was to hang, but answered"),
    }
    let id = unique();
    let winner = attempt(call, to, &dial, id, log)?;
    let local = loser.local_addr().ok().and_then(|it| it.as_socket());
    drop(loser);
    log.write(Event::Dialled {
        id: name(loser_id),
        dial: other.to_owned(),
        local,
        peer: loser_to,
        outcome: Dial::Aborted,
    });
    if let Some(stream) = winner {
        talk(call, stream, id, Path::new(""), log);
    }
    Ok(())
}

/// Connects and writes down how it went.
fn attempt(call: &Call, to: SocketAddr, dial: &str, id: u64, log: &Log) -> Result<Option<TcpStream>> {
    let socket = socket(call, to)?;
    if let Some(count) = call.syn {
        sys::set_syn_count(&socket, count).context("set the number of SYNs")?;
    }
    let limit = call.cancel.map_or(PATIENCE, Duration::from_millis);
    let result = if call.cancel.is_some() {
        socket.connect_timeout(&mapped(call, to).into(), limit)
    } else {
        socket.connect(&mapped(call, to).into())
    };
    let outcome = match &result {
        Ok(()) => Dial::Connected,
        Err(error) => reason(error, call.cancel.is_some()),
    };
    let local = socket.local_addr().ok().and_then(|it| it.as_socket());
    log.write(Event::Dialled {
        id: name(id),
        dial: dial.to_owned(),
        local: local.filter(|it| it.port() != 0),
        peer: to,
        outcome,
    });
    Ok((outcome == Dial::Connected).then(|| socket.into()))
}

fn socket(call: &Call, to: SocketAddr) -> Result<Socket> {
    let domain = if call.mapped {
        Domain::IPV6
    } else {
        Domain::for_address(to)
    };
    let protocol = if call.mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    Socket::new(domain, Type::STREAM, Some(protocol)).context("make a socket")
}

fn mapped(call: &Call, to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(address) if call.mapped => {
            SocketAddr::new(IpAddr::V6(address.to_ipv6_mapped()), to.port())
        }
        _ => to,
    }
}

fn reason(error: &io::Error, cancelled: bool) -> Dial {
    match error.kind() {
        ErrorKind::ConnectionRefused => Dial::Refused,
        ErrorKind::TimedOut if cancelled && error.raw_os_error().is_none() => Dial::Aborted,
        ErrorKind::TimedOut => Dial::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Dial::Unreachable,
        _ => Dial::Reset,
    }
}

/// What is said on a connection; both sides count what they wrote and read.
fn talk(call: &Call, mut stream: TcpStream, id: u64, logs: &Path, log: &Log) {
    let (mut sent, mut received) = (0, 0);
    let result = exchange(call, &mut stream, id, logs, (&mut sent, &mut received));
    drop(stream);
    log.write(Event::Ended {
        id: name(id),
        role: Role::Client,
        broken: result.err().map(|error| error.to_string()),
        sent,
        received,
    });
}

fn exchange(
    call: &Call,
    stream: &mut TcpStream,
    id: u64,
    logs: &Path,
    (sent, received): (&mut u64, &mut u64),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if call.foreign {
        thread::sleep(Duration::from_millis(call.hold));
        return Ok(());
    }
    stream.write_all(&id.to_be_bytes())?;
    *sent += 8;
    let request = Request {
        length: call.request,
        reply: call.reply,
        close: call.close,
    };
    loop {
        *sent += request.send(stream)?;
        protocol::receive_reply(stream, call.reply)?;
        *received += call.reply as u64;
        match &call.until {
            Some(phase) if !has_begun(logs, phase) => thread::sleep(BEAT),
            _ => break,
        }
    }
    match call.close {
        Close::Client => thread::sleep(Duration::from_millis(call.hold)),
        Close::Server | Close::Abort => match stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Ok(_) => return Err(io::Error::new(ErrorKind::InvalidData, "more than the reply")),
            Err(error) if call.close == Close::Abort && error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        },
        Close::Reset => {
            thread::sleep(Duration::from_millis(call.hold));
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
        }
    }
    Ok(())
}

/// An id as it is written down.
pub(crate) fn name(id: u64) -> String {
    format!("{id:016x}")
}

fn up(address: IpAddr, by: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().saturating_add(by))),
        IpAddr::V6(_) => address,
    }
}

fn resolve(to: &str) -> Result<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match to.to_socket_addrs().map(|all| all.into_iter().next()) {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => bail!("{to} has no address"),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("resolve {to}"));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn has_begun(logs: &Path, phase: &str) -> bool {
    phase == "now" || logs.join(phase).exists()
}

fn wait_for(logs: &Path, phase: &str) -> Result<()> {
    let deadline = Instant::now() + LONGEST_WAIT;
    while !has_begun(logs, phase) {
        if Instant::now() >= deadline {
            bail!("the phase {phase} has not begun");
        }
        thread::sleep(POLL);
    }
    Ok(())
}
