//! The streams against a real gRPC server with TLS on real sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod operator;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leyline_abi::{Connection, HalfEdge, HalfEdgeKey, kind, role, transport};
use leyline_node_agent::delta::Agent;
use leyline_node_agent::ledger::{Naming, Subject};
use leyline_node_agent::metrics::Metrics;
use leyline_node_agent::state::{Moment, State};
use leyline_node_agent::streams::{self, Settings, Shared};
use operator::{Authority, Files, Operator, SERVER_NAME, Seen, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Rig {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    files: Files,
    stop: CancellationToken,
    lifetime: Duration,
}

impl Rig {
    fn new(authority: &Authority) -> Self {
        let files = Files::new();
        Files::write(&files.ca, &authority.pem);
        Files::write(&files.token, "first-token\n");
        let mut state = State::new(100_000, 30_000);
        state.addresses.set(["192.0.2.7".parse().unwrap()].into());
        Self {
            shared: Arc::new(Shared::new(state)),
            metrics: Arc::new(Metrics::new()),
            files,
            stop: CancellationToken::new(),
            lifetime: Duration::from_secs(3_600),
        }
    }

    fn connect(&self, operator: SocketAddr) -> JoinHandle<()> {
        let settings = Settings {
            operator: operator.to_string(),
            server_name: SERVER_NAME.to_owned(),
            ca: self.files.ca.clone(),
            token: self.files.token.clone(),
            agent: Agent {
                node: "node-x".into(),
                epoch: 77,
                version: "0.1".into(),
                kernel: "6.18".into(),
            },
            lifetime: self.lifetime,
            backoff: (Duration::from_millis(20), Duration::from_millis(100)),
        };
        tokio::spawn(streams::run(
            settings,
            Arc::clone(&self.shared),
            Arc::clone(&self.metrics),
            self.stop.clone(),
        ))
    }

    /// One reading of the kernel in which these half-edges have that many connections each.
    fn read(&self, half_edges: std::ops::RangeInclusive<u64>, opened: u64) {
        let mut state = self.shared.state();
        state.taken_at = Moment {
            monotonic_ns: 5_000_000_000,
            wall_ms: 1_000,
        };
        for number in half_edges {
            let key = HalfEdgeKey {
                cgroup: number,
                remote: std::net::Ipv4Addr::new(10, 96, 0, 1).to_ipv6_mapped().octets(),
                owner: 0,
                netns: 1,
                port: 80,
                role: role::CLIENT,
                transport: transport::TCP,
                padding: 0,
            };
            let value = HalfEdge {
                serial: number,
                opened,
                changed_ns: 4_000_000_000,
                ..HalfEdge::default()
            };
            let pod = Naming::Subject(Subject::Pod(format!("pod-{number}").into()));
            state
                .ledger
                .observe(&key, &value, 5_000_000_000, |_| pod, |_| true);
        }
        drop(state);
        self.shared.announce_reading();
    }

    fn connection(&self, id: u32, isn: u32, kind: u8) {
        let record = Connection {
            half_edge: u64::from(id),
            local: [1; 16],
            client_isn: isn,
            server_isn: isn,
            local_port: 1,
            remote_port: 2,
            kind,
            role: role::CLIENT,
            flags: 0,
            weight_log2: 0,
            at_ns: 4_000_000_000,
            bytes_sent: 9,
            bytes_received: 9,
        };
        self.shared.state().connections.fold(id, &record);
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|found| found == line)
    }

    async fn shows(&self, line: &str) {
        until(
            || self.metric(line),
            || format!("no {line} in\n{}", self.metrics.text()),
        )
        .await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_stream_says_who_it_is_then_everything_then_what_changes() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    let rig = Rig::new(&authority);
    rig.read(1..=5_000, 3);
    rig.connection(7, 42, kind::OPEN);
    let task = rig.connect(operator.address);

    assert_eq!(operator.opened().await, "Bearer first-token");
    let hello = operator.hello().await;
    assert_eq!((hello.node.as_str(), hello.epoch), ("node-x", 77));
    assert_eq!(hello.node_addresses, vec![vec![192, 0, 2, 7]]);
    let full = operator.full_report().await;
    assert_eq!(
        (
            full.definitions.len(),
            full.counters.len(),
            full.connections.len()
        ),
        (5_000, 5_000, 1)
    );
    rig.shows("leyline_streams 1").await;

    rig.read(17..=17, 4);
    let change = operator.report().await;
    assert_eq!(
        (change.sequence, change.definitions.len()),
        (full.sequence + 1, 0)
    );
    assert_eq!(
        change
            .counters
            .iter()
            .map(|c| (c.id, c.opened))
            .collect::<Vec<_>>(),
        vec![(17, 4)]
    );
    until(
        || rig.shared.acknowledged_connections() == Some(1),
        || "no acknowledgement".to_owned(),
    )
    .await;

    rig.stop.cancel();
    task.await.unwrap();
    rig.shows("leyline_streams 0").await;
    assert_eq!(rig.shared.acknowledged_connections(), None);
}

#[tokio::test]
async fn after_a_crash_of_the_operator_the_whole_state_comes_again_with_a_fresh_token() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    let rig = Rig::new(&authority);
    rig.read(1..=10, 1);
    let _task = rig.connect(operator.address);
    operator.opened().await;
    operator.hello().await;
    operator.full_report().await;

    let address = operator.stop();
    rig.shows("leyline_streams 0").await;
    rig.read(1..=12, 5);
    Files::write(&rig.files.token, "second-token");
    let mut operator = Operator::start_as(&authority, SERVER_NAME, address).await;
    assert_eq!(operator.opened().await, "Bearer second-token");
    assert_eq!(operator.hello().await.epoch, 77, "the same run of the agent");
    let full = operator.full_report().await;
    assert_eq!(full.definitions.len(), 12);
    assert!(full.counters.iter().all(|counters| counters.opened == 5));
}

#[tokio::test]
async fn an_operator_with_a_foreign_certificate_is_never_talked_to() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let mut operator = Operator::start(&foreign).await;
    let rig = Rig::new(&ours);
    rig.read(1..=1, 1);
    let _task = rig.connect(operator.address);
    until(
        || {
            rig.metrics.text().lines().any(|line| {
                line.strip_prefix("leyline_stream_failures_total{cause=\"Connect\"} ")
                    .is_some_and(|count| count.parse::<u32>().unwrap() >= 3)
            })
        },
        || rig.metrics.text(),
    )
    .await;
    Files::write(&rig.files.ca, &foreign.pem);
    assert!(
        matches!(operator.next().await, Seen::Opened { .. }),
        "the new authority is read for the next attempt"
    );
    operator.hello().await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let address = "127.0.0.1:0".parse().unwrap();
    let operator = Operator::start_as(&authority, "somebody-else.default.svc", address).await;
    let rig = Rig::new(&authority);
    let _task = rig.connect(operator.address);
    until(
        || {
            rig.metrics
                .text()
                .contains("leyline_stream_failures_total{cause=\"Connect\"}")
        },
        || rig.metrics.text(),
    )
    .await;
    assert!(rig.metric("leyline_streams 0"));
}

#[tokio::test]
async fn an_agent_that_starts_before_its_authority_exists_waits_for_it() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    let rig = Rig::new(&authority);
    std::fs::remove_file(&rig.files.ca).unwrap();
    let _task = rig.connect(operator.address);
    until(
        || {
            rig.metrics
                .text()
                .contains("leyline_stream_failures_total{cause=\"Credentials\"}")
        },
        || rig.metrics.text(),
    )
    .await;
    Files::write(&rig.files.ca, &authority.pem);
    operator.opened().await;
    operator.hello().await;
}

#[tokio::test]
async fn a_refused_token_is_tried_again_until_it_is_accepted() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    operator.refuses.store(true, Ordering::SeqCst);
    let rig = Rig::new(&authority);
    let _task = rig.connect(operator.address);
    operator.opened().await;
    operator.opened().await;
    until(
        || {
            rig.metrics
                .text()
                .contains("leyline_stream_failures_total{cause=\"Refused\"}")
        },
        || rig.metrics.text(),
    )
    .await;
    operator.refuses.store(false, Ordering::SeqCst);
    loop {
        if let Seen::Hello(hello) = operator.next().await {
            assert_eq!(hello.node, "node-x");
            break;
        }
    }
}

#[tokio::test]
async fn two_replicas_each_get_the_whole_state() {
    let authority = Authority::new();
    let mut first = Operator::start(&authority).await;
    let mut second = Operator::start(&authority).await;
    let rig = Rig::new(&authority);
    rig.read(1..=3, 1);
    let _one = rig.connect(first.address);
    first.opened().await;
    first.hello().await;
    assert_eq!(first.full_report().await.definitions.len(), 3);
    rig.read(4..=4, 1);
    assert_eq!(first.report().await.definitions.len(), 1);
    let _two = rig.connect(second.address);
    second.opened().await;
    second.hello().await;
    assert_eq!(second.full_report().await.definitions.len(), 4);
    rig.shows("leyline_streams 2").await;
    rig.read(2..=2, 9);
    for replica in [&mut first, &mut second] {
        let report = replica.report().await;
        assert_eq!(
            report
                .counters
                .iter()
                .map(|c| (c.id, c.opened))
                .collect::<Vec<_>>(),
            vec![(2, 9)]
        );
    }
}

#[tokio::test]
async fn a_stream_ends_itself_before_its_token_expires_and_comes_back() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    let mut rig = Rig::new(&authority);
    rig.lifetime = Duration::from_millis(300);
    rig.read(1..=2, 1);
    let _task = rig.connect(operator.address);
    for _ in 0..3 {
        operator.opened().await;
        operator.hello().await;
        assert_eq!(operator.full_report().await.definitions.len(), 2);
    }
    assert!(
        !rig.metrics.text().contains("leyline_stream_failures_total{"),
        "{}",
        rig.metrics.text()
    );
}

#[tokio::test]
async fn an_operator_that_reads_nothing_costs_no_memory() {
    let authority = Authority::new();
    let mut operator = Operator::start(&authority).await;
    operator.reads.store(false, Ordering::SeqCst);
    let rig = Rig::new(&authority);
    rig.read(1..=100_000, 1);
    let _task = rig.connect(operator.address);
    operator.opened().await;
    rig.shows("leyline_streams 1").await;
    let sent = || {
        let text = rig.metrics.text();
        let bytes = text
            .lines()
            .find_map(|line| line.strip_prefix("leyline_report_bytes_total "))
            .unwrap();
        bytes.parse::<u64>().unwrap()
    };
    until(|| sent() > 500_000, || rig.metrics.text()).await;
    for round in 2..200 {
        rig.read(1..=300, round);
        tokio::task::yield_now().await;
    }
    // The whole state and its changes are above 6 MiB; what is on its way fills the receiver's window of 1 MiB and the
    // sender's buffer, then no report is built any more.
    assert!(sent() < 2 * 1024 * 1024, "{}", rig.metrics.text());
}
