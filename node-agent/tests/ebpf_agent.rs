//! The whole agent: the real binary on the real kernel, reporting to a real gRPC server with TLS.
//!
//! The half-edges looked at are this test's own: it dials a listener of its own on an address of the machine.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

#[expect(dead_code, reason = "the tests of the streams use the rest")]
mod operator;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use leyline_wire as wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operator::{Authority, Files, Operator, Seen};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use wire::half_edge_definition::Subject;

/// The agent's process; killed with the test.
struct Agent {
    child: Child,
    admin: SocketAddr,
}

impl Agent {
    fn start(files: &Files, operator: SocketAddr) -> Self {
        Self::start_as(&[], &[], files, operator)
    }

    /// Behind a command that changes the process's rights, and with more options.
    fn start_as(wrapper: &[&str], options: &[&str], files: &Files, operator: SocketAddr) -> Self {
        // Free a moment ago: nobody else on this machine takes ports of the ephemeral range by number.
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let words = [
            wrapper,
            &[env!("CARGO_BIN_EXE_leyline-node-agent"), "run"],
            options,
        ]
        .concat();
        let (program, rest) = words.split_first().unwrap();
        let child = Command::new(program)
            .args(rest)
            .args(["--node-name", "node-x", "--admin", &admin.to_string()])
            .args(["--operator", &operator.to_string()])
            .args([
                "--ca",
                files.ca.to_str().unwrap(),
                "--token",
                files.token.to_str().unwrap(),
            ])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, admin }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a signal and returns the exit code, how long it took, and the last line of the log.
    async fn end(mut self, signal: Signal) -> (Option<i32>, Duration, String) {
        let began = Instant::now();
        kill(
            Pid::from_raw(self.child.id().unwrap().try_into().unwrap()),
            signal,
        )
        .unwrap();
        let code = self.child.wait().await.unwrap().code();
        let took = began.elapsed();
        (code, took, last_line(&mut self.child).await)
    }
}

async fn last_line(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    last
}

/// Reports of one stream, folded as an operator does.
#[derive(Default)]
struct Folded {
    definitions: HashMap<u32, wire::HalfEdgeDefinition>,
    counters: HashMap<u32, wire::HalfEdgeCounters>,
    connections: Vec<wire::Connection>,
}

impl Folded {
    fn take(&mut self, report: wire::Report) {
        for definition in report.definitions {
            let is_new = self.definitions.insert(definition.id, definition).is_none();
            assert!(is_new, "an id is defined once per stream");
        }
        for counters in report.counters {
            assert!(
                self.definitions.contains_key(&counters.id),
                "definitions come first"
            );
            self.counters.insert(counters.id, counters);
        }
        self.connections.extend(report.connections);
    }

    fn of(&self, role: wire::Role, port: u16) -> Option<(&wire::HalfEdgeDefinition, wire::HalfEdgeCounters)> {
        let mine = |d: &&wire::HalfEdgeDefinition| d.role() == role && d.port == u32::from(port);
        let definition = self.definitions.values().find(mine)?;
        Some((definition, *self.counters.get(&definition.id)?))
    }

    /// Takes reports until both halves satisfy `wanted`.
    async fn until(
        &mut self,
        operator: &mut Operator,
        port: u16,
        wanted: impl Fn(&wire::HalfEdgeCounters, &wire::HalfEdgeCounters) -> bool,
    ) {
        self.until_as(operator, port, wire::Role::Server, wanted).await;
    }

    /// As [`Self::until`], where the other end than the client has this role.
    async fn until_as(
        &mut self,
        operator: &mut Operator,
        port: u16,
        role: wire::Role,
        wanted: impl Fn(&wire::HalfEdgeCounters, &wire::HalfEdgeCounters) -> bool,
    ) {
        for _ in 0..60 {
            if let (Some((_, client)), Some((_, server))) =
                (self.of(wire::Role::Client, port), self.of(role, port))
                && wanted(&client, &server)
            {
                return;
            }
            match operator.next().await {
                Seen::Report(report) => self.take(report),
                other => panic!("report expected, got {other:?}"),
            }
        }
        let client = self.of(wire::Role::Client, port);
        panic!(
            "never reported: client {client:?}, server {:?}",
            self.of(role, port)
        );
    }
}

/// An address of this machine that is not loopback, which the programs leave out.
fn own_address() -> IpAddr {
    let addresses = leyline_node_agent::addresses::node_addresses().unwrap();
    addresses
        .into_iter()
        .find(IpAddr::is_ipv4)
        .expect("the machine has an address besides loopback")
}

/// One request and one answer of these sizes; the client closes first.
fn exchange(listener: &TcpListener, request: usize, answer: usize) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&vec![1; request]).unwrap();
    server.read_exact(&mut vec![0; request]).unwrap();
    server.write_all(&vec![2; answer]).unwrap();
    client.read_exact(&mut vec![0; answer]).unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "the client closed");
}

async fn begin(operator: &mut Operator) -> (wire::Hello, Folded) {
    operator.opened().await;
    let hello = operator.hello().await;
    let mut folded = Folded::default();
    folded.take(operator.full_report().await);
    (hello, folded)
}

#[tokio::test]
#[ignore = "needs root and a kernel with BTF"]
async fn both_halves_of_own_connections_are_reported_exactly_and_sigterm_ends_quickly() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    let files = Files::new();
    Files::write(&files.ca, &authority.pem);
    Files::write(&files.token, "token");
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Older than the agent: adopted, with a role each.
    let old_client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (old_server, _) = listener.accept().unwrap();

    let agent = Agent::start(&files, operator.address);
    let (hello, mut folded) = begin(&mut operator).await;
    assert_eq!(hello.node, "node-x");
    assert!(
        hello
            .probes
            .iter()
            .any(|probe| probe.state() == wire::probe::State::Attached),
        "{:?}",
        hello.probes
    );
    folded
        .until(&mut operator, port, |client, server| {
            client.adopted == 1 && server.adopted == 1
        })
        .await;

    for _ in 0..10 {
        exchange(&listener, 71, 1_009);
    }
    let done = |half: &wire::HalfEdgeCounters, sent, received| {
        (half.opened, half.active, half.bytes_sent, half.bytes_received) == (10, 1, sent, received)
    };
    folded
        .until(&mut operator, port, |c, s| {
            done(c, 710, 10_090) && done(s, 10_090, 710)
        })
        .await;

    let exe = std::env::current_exe().unwrap();
    let name = leyline_identity::sanitise(exe.file_name().unwrap().as_encoded_bytes()).unwrap();
    for role in [wire::Role::Client, wire::Role::Server] {
        let (definition, _) = folded.of(role, port).unwrap();
        assert_eq!(definition.subject, Some(Subject::Process(name.clone())));
        assert!(definition.split, "an own address may hide who answers");
    }
    let closed: Vec<_> = folded
        .connections
        .iter()
        .filter(|c| c.closed && c.bytes_sent == 71)
        .collect();
    let served = |c: &&wire::Connection| {
        let same = |o: &&wire::Connection| (o.client_isn, o.server_isn) == (c.client_isn, c.server_isn);
        folded
            .connections
            .iter()
            .filter(|o| o.closed && o.bytes_sent == 1_009)
            .any(|o| same(&o))
    };
    assert!(
        closed.len() >= 10 && closed.iter().all(served),
        "every witness is the same at both ends"
    );

    assert!(
        agent.get("/readyz").starts_with("HTTP/1.1 200"),
        "{}",
        agent.get("/readyz")
    );
    assert!(agent.get("/metrics").contains("leyline_streams 1\n"));
    let (code, took, last) = agent.end(Signal::SIGTERM).await;
    assert_eq!(code, Some(0), "{last}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop((old_client, old_server));
}

#[tokio::test]
#[ignore = "needs root and a kernel with BTF"]
async fn an_agent_that_was_killed_comes_back_with_a_new_epoch_and_adopts_what_is_open() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    let files = Files::new();
    Files::write(&files.ca, &authority.pem);
    Files::write(&files.token, "token");
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();

    let agent = Agent::start(&files, operator.address);
    let (first, mut folded) = begin(&mut operator).await;
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    folded
        .until(&mut operator, port, |c, s| {
            c.opened == 1 && s.opened == 1 && c.active == 1
        })
        .await;
    agent.end(Signal::SIGKILL).await;

    let agent = Agent::start(&files, operator.address);
    let (second, mut folded) = begin(&mut operator).await;
    assert!(second.epoch > first.epoch);
    folded
        .until(&mut operator, port, |c, s| {
            (c.opened, c.adopted, c.active, s.adopted) == (0, 1, 1, 1)
        })
        .await;
    drop((client, server));
    folded
        .until(&mut operator, port, |c, s| c.active == 0 && s.active == 0)
        .await;
    agent.end(Signal::SIGTERM).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with BTF"]
async fn an_admin_port_that_is_taken_is_the_last_line_of_the_log() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_leyline-node-agent"))
        .args(["run", "--admin", &address])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let code = child.wait().await.unwrap().code();
    let last = last_line(&mut child).await;
    assert_eq!(code, Some(1), "{last}");
    assert!(
        last.contains(&format!("cannot listen on the admin address {address}")),
        "{last}"
    );
}

#[tokio::test]
#[ignore = "needs root and a kernel with BTF"]
async fn without_capabilities_the_agent_ends_and_the_last_line_names_them() {
    // setpriv belongs to util-linux, which every Debian has.
    let mut child = Command::new("setpriv")
        .args([
            "--inh-caps=-all",
            "--bounding-set=-all",
            env!("CARGO_BIN_EXE_leyline-node-agent"),
        ])
        .args(["run", "--admin", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let code = child.wait().await.unwrap().code();
    let last = last_line(&mut child).await;
    assert_eq!(code, Some(1), "{last}");
    assert!(last.contains("nothing can be observed: needs CAP_BPF"), "{last}");
}

/// Asks and answers between two sockets of an own address; returns the server's port.
fn ask(address: IpAddr, connected: bool) -> u16 {
    let patience = Some(Duration::from_secs(10));
    let client = UdpSocket::bind((address, 0)).unwrap();
    // A server chooses its port.
    let free = UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap();
    let server = UdpSocket::bind(free).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(patience).unwrap();
    }
    let to = server.local_addr().unwrap();
    let from = client.local_addr().unwrap();
    if connected {
        client.connect(to).unwrap();
        server.connect(from).unwrap();
    }
    let mut buffer = [0; 2_000];
    for _ in 0..3 {
        let (request, answer) = ([1; 71], [2; 1_009]);
        if connected {
            client.send(&request).unwrap();
            server.recv(&mut buffer).unwrap();
            server.send(&answer).unwrap();
            client.recv(&mut buffer).unwrap();
        } else {
            client.send_to(&request, to).unwrap();
            server.recv_from(&mut buffer).unwrap();
            server.send_to(&answer, from).unwrap();
            client.recv_from(&mut buffer).unwrap();
        }
    }
    to.port()
}

fn probe(hello: &wire::Hello, name: &str) -> (wire::probe::State, String) {
    let found = hello.probes.iter().find(|probe| probe.name == name);
    let found = found.unwrap_or_else(|| panic!("{name} is not among {:?}", hello.probes));
    (found.state(), found.reason.clone())
}

#[tokio::test]
#[ignore = "needs root and a kernel with BTF"]
async fn datagrams_are_reported_and_without_net_admin_those_of_connected_sockets() {
    use wire::probe::State::{Attached, Unsupported};
    let authority = Authority::new();
    let files = Files::new();
    Files::write(&files.ca, &authority.pem);
    Files::write(&files.token, "token");
    let without: &[&str] = &["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"];
    for (wrapper, connected, expected) in [
        (&[][..], false, (Attached, "")),
        (&[][..], true, (Attached, "")),
        (without, true, (Unsupported, "needs CAP_NET_ADMIN")),
    ] {
        let mut operator = Operator::start(&authority).await;
        let agent = Agent::start_as(wrapper, &["--udp"], &files, operator.address);
        let (hello, mut folded) = begin(&mut operator).await;
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(probe(&hello, "udp_sendmsg4"), expected);
        assert_eq!(probe(&hello, "udp_recvmsg6"), expected);
        assert_eq!(probe(&hello, "udp_sent").0, Attached);
        assert_eq!(probe(&hello, "tcp_state").0, Attached);
        let port = ask(own_address(), connected);
        // A server that has one peer for ever may be older than the agent, and then who spoke first is not known.
        let role = if connected {
            wire::Role::Unknown
        } else {
            wire::Role::Server
        };
        let done = |half: &wire::HalfEdgeCounters, sent, received| {
            let opened = half.opened + half.adopted;
            (opened, half.bytes_sent, half.bytes_received) == (1, sent, received)
        };
        folded
            .until_as(&mut operator, port, role, |c, s| {
                done(c, 213, 3_027) && done(s, 3_027, 213)
            })
            .await;
        for role in [wire::Role::Client, role] {
            let (definition, _) = folded.of(role, port).unwrap();
            assert_eq!(definition.transport(), wire::Transport::Udp);
            assert!(!definition.split, "flows are not reported one by one");
        }
        agent.end(Signal::SIGTERM).await;
    }
}
