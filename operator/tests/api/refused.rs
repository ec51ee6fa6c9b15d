//! Strangers and nonsense: the stream ends with the right status, a counter rises, nobody else notices.

use leyline_wire as wire;
use leyline_wire::agent_message::Body;
use tonic::Code;

use crate::agent::{self, Agent, client_half, encoded, hello, opened};
use crate::cluster::{AGENT, Cluster};
use crate::operator::Operator;
use crate::wait::SOON;

fn rejected(reason: &str) -> String {
    format!("leyline_streams_rejected_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_stream_without_a_good_token_is_refused() {
    let cluster = Cluster::new("tokens").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.ready().await;
    cluster.service_account("stranger").await;
    let agent = cluster.pod("agent", "node-x").await;
    let stranger = cluster.pod_of("stranger", "node-x", "stranger").await;

    let other_audience = cluster.token(AGENT, "other", Some(&agent)).await;
    let other_account = cluster.token("stranger", "leyline", Some(&stranger)).await;
    let unbound = cluster.token(AGENT, "leyline", None).await;
    let cases = [
        (None, Code::Unauthenticated, "missing_token"),
        (Some("nonsense"), Code::Unauthenticated, "invalid_token"),
        (
            Some(other_audience.as_str()),
            Code::Unauthenticated,
            "invalid_token",
        ),
        (
            Some(other_account.as_str()),
            Code::PermissionDenied,
            "wrong_identity",
        ),
        (Some(unbound.as_str()), Code::PermissionDenied, "wrong_node"),
    ];
    for (token, code, reason) in cases {
        let before = operator.metric(&rejected(reason)).await.expect("metrics");
        let status = agent::open(&cluster, &operator, token)
            .await
            .err()
            .expect("refused");
        assert_eq!(status.code(), code, "{reason}: {status:?}");
        operator.counts(&rejected(reason), before + 1.0).await;
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn an_agent_speaks_for_its_own_node_only() {
    let cluster = Cluster::new("nodes").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.ready().await;
    let token = cluster.agent_token("node-x").await;
    let mut liar = Agent::connect(&cluster, &operator, &token, "node-y", 1).await;
    assert_eq!(liar.end(SOON).await.code(), Code::PermissionDenied);
    operator.counts(&rejected("wrong_node"), 1.0).await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn nonsense_ends_its_own_stream_only() {
    let cluster = Cluster::new("nonsense").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.ready().await;
    let pod = cluster.pod("shopper", "node-x").await;
    let token = cluster.agent_token("node-x").await;
    let mut honest = Agent::connect(
        &cluster,
        &operator,
        &cluster.agent_token("node-y").await,
        "node-y",
        1,
    )
    .await;

    let report = |report: wire::Report| encoded(Body::Report(report));
    let numbered = |sequence| wire::Report {
        sequence,
        ..wire::Report::default()
    };
    let with = |definition| {
        report(wire::Report {
            definitions: vec![definition],
            ..numbered(1)
        })
    };
    let long_address = wire::HalfEdgeDefinition {
        remote: vec![1; 7],
        ..client_half(1, &pod, [10, 9, 8, 7], 80)
    };
    let many = wire::Report {
        connections: vec![wire::Connection::default(); 50_000],
        ..numbered(1)
    };
    let huge = wire::Hello {
        kernel: "x".repeat(5 << 20),
        ..wire::Hello::default()
    };
    let undefined = wire::Report {
        counters: vec![opened(77, 1, 1, 1)],
        ..numbered(1)
    };
    let said = Some(encoded(hello("node-x", 1)));
    let cases = [
        (None, report(numbered(1)), Code::InvalidArgument, "no_hello"),
        (None, vec![0xff; 40].into(), Code::InvalidArgument, "malformed"),
        (
            None,
            encoded(Body::Hello(huge)),
            Code::ResourceExhausted,
            "too_large",
        ),
        (
            said.clone(),
            encoded(hello("node-x", 1)),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            said.clone(),
            report(numbered(2)),
            Code::InvalidArgument,
            "out_of_order",
        ),
        (
            said.clone(),
            with(long_address),
            Code::InvalidArgument,
            "malformed",
        ),
        (said.clone(), report(many), Code::ResourceExhausted, "too_large"),
        (
            said.clone(),
            report(undefined),
            Code::InvalidArgument,
            "inconsistent",
        ),
    ];
    for (before, message, code, reason) in cases {
        let count = operator.metric(&rejected(reason)).await.expect("metrics");
        let mut agent = agent::open(&cluster, &operator, Some(&token))
            .await
            .expect("the token is good");
        if let Some(before) = before {
            agent.send(before).await;
        }
        agent.send(message).await;
        let status = agent.end(SOON).await;
        assert_eq!(status.code(), code, "{reason}: {status:?}");
        operator.counts(&rejected(reason), count + 1.0).await;
        honest.report(wire::Report::default()).await;
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_newer_stream_of_a_node_replaces_the_older() {
    let cluster = Cluster::new("replaced").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.ready().await;
    let token = cluster.agent_token("node-x").await;
    let mut older = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    older.report(wire::Report::default()).await;
    let mut newer = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    newer.report(wire::Report::default()).await;
    assert_eq!(older.end(SOON).await.code(), Code::Aborted);
    newer.report(wire::Report::default()).await;
    assert_eq!(operator.metric("leyline_streams").await, Ok(1.0));
}
