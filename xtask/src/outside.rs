//! A machine outside the cluster, made of a network namespace: 198.51.100.10 with a small HTTP server on port 8080.
//!
//! The sample application calls it, so that one edge leaves the cluster. The address is one of those kept for documentation
//! (RFC 5737): nobody else can be meant. The way there is real: a link, a route, masquerading on the node. Everything in the
//! namespace was started here, so the namespace itself says which processes are to be ended.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::step::{log_path, output, step, wait_for};

const NETNS: &str = "leyline-outside";
/// The machine's end of the link.
const LINK: &str = "leyline-out";
const NETWORK: &str = "198.51.100.0/24";
const GATEWAY: &str = "198.51.100.1/24";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PORT: u16 = 8080;
const LIMIT: Duration = Duration::from_secs(10);
/// A client that sends nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of a request, and the longest body that is read.
const LONGEST: u64 = 64 << 10;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Outside {
    /// Make the namespace and start its server, or leave them as they are
    Up,
    /// Remove both
    Down,
    /// The server itself
    #[command(hide = true)]
    Serve,
}

pub(crate) fn run(task: &Outside) -> Result<()> {
    match task {
        Outside::Up => up(),
        Outside::Down => down(),
        Outside::Serve => serve(),
    }
}

/// Makes the outside machine, unless it answers already.
pub(crate) fn up() -> Result<()> {
    if answers().is_ok() {
        return Ok(());
    }
    step(
        &format!("a machine outside the cluster: http://{ADDRESS}:{PORT}"),
        || {
            down()?;
            create()?;
            start()?;
            wait_for("the outside server answers", LIMIT, answers)
        },
    )
}

/// Removes it; it need not be there.
pub(crate) fn down() -> Result<()> {
    if namespace_exists() {
        for pid in processes()? {
            // It may have ended by itself.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        wait_for("the outside server ends", LIMIT, || {
            let left = processes()?;
            ensure!(left.is_empty(), "still there: {left:?}");
            Ok(())
        })?;
        ip(&["netns", "delete", NETNS])?;
    }
    if Path::new("/sys/class/net").join(LINK).exists() {
        // The other end went with the namespace, and usually this one with it.
        drop(ip(&["link", "delete", LINK]));
    }
    Ok(())
}

fn create() -> Result<()> {
    let own = format!("{ADDRESS}/24");
    let gateway = GATEWAY.split('/').next().unwrap_or_default();
    let taken = output(Command::new("ip").args(["route", "show", "to", "root", NETWORK]))?;
    ensure!(
        taken.trim().is_empty(),
        "this machine uses {NETWORK} itself: {}",
        taken.trim()
    );
    ip(&["netns", "add", NETNS])?;
    ip(&[
        "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NETNS,
    ])?;
    ip(&["address", "add", GATEWAY, "dev", LINK])?;
    ip(&["link", "set", LINK, "up"])?;
    ip(&["-n", NETNS, "link", "set", "lo", "up"])?;
    ip(&["-n", NETNS, "address", "add", &own, "dev", "eth0"])?;
    ip(&["-n", NETNS, "link", "set", "eth0", "up"])?;
    ip(&["-n", NETNS, "route", "add", "default", "via", gateway])
}

fn start() -> Result<()> {
    let path = log_path("outside")?;
    let log = std::fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let errors = log.try_clone().context("share the log file")?;
    let program = std::env::current_exe().context("find this program")?;
    // A session of its own: it outlives this run and its terminal.
    Command::new("setsid")
        .args(["nsenter", &format!("--net=/run/netns/{NETNS}"), "--"])
        .arg(program)
        .args(["outside", "serve"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context("start the outside server")
        .map(drop)
}

fn namespace_exists() -> bool {
    Path::new("/run/netns").join(NETNS).exists()
}

fn processes() -> Result<Vec<i32>> {
    let text = output(Command::new("ip").args(["netns", "pids", NETNS]))?;
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

fn answers() -> Result<()> {
    let address = SocketAddr::from((ADDRESS, PORT));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .context("connect to the outside server")?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .context("set a time limit")?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        .context("ask the outside server")?;
    let mut answer = String::new();
    stream
        .take(LONGEST)
        .read_to_string(&mut answer)
        .context("read the outside server's answer")?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "the outside server answered {answer:?}"
    );
    Ok(())
}

/// Answers every request with the same words, on a connection each.
fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?;
    loop {
        let (stream, peer) = listener.accept().context("accept a connection")?;
        let handler = move || {
            if let Err(error) = answer(&stream) {
                eprintln!("{peer}: {error:#}");
            }
        };
        thread::Builder::new().spawn(handler).context("start a thread")?;
    }
}

fn answer(stream: &TcpStream) -> Result<()> {
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("set a time limit")?;
    let mut request = BufReader::new(stream.take(LONGEST));
    let mut body = 0;
    loop {
        let mut line = String::new();
        let read = request.read_line(&mut line).context("read a request")?;
        if read == 0 {
            return Ok(()); // gone, or too long
        }
        if line.trim().is_empty() {
            break;
        }
        body = content_length(&line).unwrap_or(body);
    }
    // What stays unread would make the kernel reset the connection at the end.
    std::io::copy(&mut request.take(body.min(LONGEST)), &mut std::io::sink()).context("read a body")?;
    let text = "{\"charged\":true}";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let mut stream = stream;
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(text.as_bytes()))
        .context("answer")
}

fn content_length(line: &str) -> Option<u64> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("content-length")
        .then(|| value.trim().parse().ok())?
}

fn ip(args: &[&str]) -> Result<()> {
    output(Command::new("ip").args(args)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_a_body_is_answered_and_the_connection_ends_cleanly() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .write_all(b"POST /charge HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
            .unwrap();
        let (server, _) = listener.accept().unwrap();
        answer(&server).unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("{\"charged\":true}"),
            "{text}"
        );
    }

    #[test]
    fn only_the_length_header_is_a_length() {
        assert_eq!(content_length("Content-Length: 12\r\n"), Some(12));
        assert_eq!(content_length("Content-Type: 12\r\n"), None);
        assert_eq!(content_length("content-length: many\r\n"), None);
    }
}
