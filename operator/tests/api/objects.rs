//! From a real stream to the object, and what happens to objects afterwards.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use leyline_api::{EntityRef, Evidence, ServiceDependency, ServiceDependencySpec, State, Transport};
use leyline_wire as wire;
use serde_json::json;

use crate::agent::{Agent, client_half, opened, server_half};
use crate::cluster::{Cluster, kubectl};
use crate::operator::Operator;
use crate::wait::eventually;

/// A running operator that wrote the object of one edge with three connections.
struct Written {
    cluster: Cluster,
    _operator: Operator,
    agent: Agent,
    object: ServiceDependency,
}

async fn written(name: &str) -> Written {
    let cluster = Cluster::new(name).await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.leads().await;
    let agent = one_edge(&cluster, &operator).await;
    let object = cluster
        .object("the object", |object| connections(object) == 3)
        .await;
    Written {
        cluster,
        _operator: operator,
        agent,
        object,
    }
}

/// A client on `node-x` that opened connections to a server on `node-x`, seen from the client.
async fn one_edge(cluster: &Cluster, operator: &Operator) -> Agent {
    let (shopper, till) = (
        cluster.pod("shopper", "node-x").await,
        cluster.pod("till", "node-x").await,
    );
    let token = cluster.agent_token("node-x").await;
    let mut agent = Agent::connect(cluster, operator, &token, "node-x", 1).await;
    let definitions = vec![client_half(1, &shopper, till.address, 8080)];
    let counters = vec![opened(1, 3, 300, 3_000)];
    agent
        .report(wire::Report {
            definitions,
            counters,
            complete: true,
            ..wire::Report::default()
        })
        .await;
    agent
}

fn connections(object: &ServiceDependency) -> i64 {
    object
        .status
        .as_ref()
        .and_then(|status| status.connections)
        .map_or(0, |connections| connections.opened)
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn what_both_ends_saw_becomes_one_object() {
    let cluster = Cluster::new("edge").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.ready().await;
    operator.leads().await;
    let (shopper, till) = (
        cluster.pod("shopper", "node-x").await,
        cluster.pod("till", "node-y").await,
    );
    let mut x = Agent::connect(
        &cluster,
        &operator,
        &cluster.agent_token("node-x").await,
        "node-x",
        1,
    )
    .await;
    let mut y = Agent::connect(
        &cluster,
        &operator,
        &cluster.agent_token("node-y").await,
        "node-y",
        1,
    )
    .await;
    let definitions = vec![client_half(1, &shopper, till.address, 8080)];
    let counters = vec![opened(1, 3, 300, 3_000)];
    x.report(wire::Report {
        definitions,
        counters,
        complete: true,
        ..wire::Report::default()
    })
    .await;
    let definitions = vec![server_half(1, &till, shopper.address, 8080)];
    let counters = vec![opened(1, 3, 3_000, 300)];
    y.report(wire::Report {
        definitions,
        counters,
        complete: true,
        ..wire::Report::default()
    })
    .await;

    let whole = |object: &ServiceDependency| {
        let status = object.status.as_ref();
        status.is_some_and(|status| status.evidence == [Evidence::ClientSocket, Evidence::ServerSocket])
    };
    let object = cluster
        .object("the object, with evidence of both ends", whole)
        .await;
    let end = |name: &str| EntityRef::new("Pod", "", &cluster.namespace, name);
    let ServiceDependencySpec {
        client,
        server,
        port,
        transport,
    } = object.spec.clone();
    assert_eq!(
        (client, server, port, transport),
        (end("shopper"), end("till"), 8080, Transport::Tcp)
    );
    assert_eq!(
        object.metadata.name,
        Some(leyline_api::names::service_dependency(&object.spec))
    );
    assert!(leyline_api::labels::is_generated(object.metadata.labels.as_ref()));
    let status = object.status.expect("status");
    assert_eq!(status.state, Some(State::Active));
    let connections = status.connections.expect("connections");
    assert_eq!((connections.opened, connections.failed), (3, 0), "counted once");
    let bytes = status.bytes.expect("bytes");
    assert_eq!(
        (bytes.sent, bytes.received),
        (300, 3_000),
        "as the client sees them"
    );
    assert_eq!(status.conditions.len(), 3);
    assert!(
        operator.resident() < 100 << 20,
        "{} bytes resident",
        operator.resident()
    );
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn totals_follow_the_reports() {
    let Written {
        cluster,
        mut agent,
        object: first,
        _operator,
    } = written("totals").await;
    agent
        .report(wire::Report {
            counters: vec![opened(1, 10, 900, 9_000)],
            ..wire::Report::default()
        })
        .await;
    let later = cluster
        .object("the new total", |object| connections(object) == 10)
        .await;
    assert_eq!(first.metadata.uid, later.metadata.uid);
    assert_eq!(
        first.status.expect("status").first_seen,
        later.status.expect("status").first_seen
    );
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn an_object_deleted_by_hand_comes_back() {
    let Written {
        cluster,
        object,
        agent: _agent,
        _operator,
    } = written("deleted").await;
    let objects: Api<ServiceDependency> = cluster.api();
    let name = object.metadata.name.expect("name");
    objects
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    let again = cluster
        .object("the object again", |again| {
            again.metadata.uid != object.metadata.uid && connections(again) == 3
        })
        .await;
    assert_eq!(
        again.status.expect("status").first_seen,
        object.status.expect("status").first_seen
    );
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_status_that_was_taken_away_is_written_again() {
    let Written {
        cluster,
        object,
        agent: _agent,
        _operator,
    } = written("wiped").await;
    let objects: Api<ServiceDependency> = cluster.api();
    let name = object.metadata.name.expect("name");
    let nothing = Patch::Merge(json!({"status": null}));
    let wiped = objects
        .patch_status(&name, &PatchParams::default(), &nothing)
        .await
        .expect("wiped");
    assert!(wiped.status.is_none());
    let again = cluster
        .object("the status again", |object| connections(object) == 3)
        .await;
    assert_eq!(
        again.status.expect("status").first_seen,
        object.status.expect("status").first_seen
    );
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn an_object_made_by_hand_is_answered_and_left_alone() {
    let cluster = Cluster::new("foreign").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.leads().await;
    let end = |name: &str| EntityRef::new("Deployment", "apps", &cluster.namespace, name);
    let spec = ServiceDependencySpec {
        client: end("a"),
        server: end("b"),
        port: 80,
        transport: Transport::Tcp,
    };
    let objects: Api<ServiceDependency> = cluster.api();
    let made = objects
        .create(&PostParams::default(), &ServiceDependency::new("mine", spec))
        .await
        .expect("made");
    let reason = |object: &ServiceDependency| {
        let conditions = object
            .status
            .as_ref()
            .map(|status| status.conditions.clone())
            .unwrap_or_default();
        conditions
            .into_iter()
            .map(|condition| condition.reason)
            .collect::<Vec<_>>()
    };
    let answered = cluster
        .object("the answer", |object| reason(object) == ["NotGenerated"])
        .await;
    assert_eq!(
        (answered.spec, answered.metadata.uid),
        (made.spec, made.metadata.uid)
    );
    // The operator goes on as if it were not there, and gives no second answer.
    let _agent = one_edge(&cluster, &operator).await;
    let objects = eventually("the other object", async || match cluster.objects().await {
        two if two.len() == 2 => Ok(two),
        others => Err(format!("{} objects", others.len())),
    })
    .await;
    let mine = objects
        .iter()
        .find(|object| object.metadata.name.as_deref() == Some("mine"))
        .expect("still there");
    assert_eq!(mine.metadata.resource_version, answered.metadata.resource_version);
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_new_dependency_of_a_known_client_is_told_in_an_event() {
    let cluster = Cluster::new("event").await;
    let operator = Operator::start(&cluster, "a", &["--events-after", "2s"]);
    operator.leads().await;
    let (shopper, till) = (
        cluster.pod("shopper", "node-x").await,
        cluster.pod("till", "node-x").await,
    );
    let token = cluster.agent_token("node-x").await;
    let mut agent = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    let events: Api<Event> = cluster.api();
    // Each round brings a new dependency; the first ones come while the client is too young for news.
    let mut port = 8_000;
    let told = eventually("an Event", async || {
        port += 1;
        let definitions = vec![client_half(port, &shopper, till.address, port)];
        let counters = vec![opened(port, 1, 1, 1)];
        agent
            .report(wire::Report {
                definitions,
                counters,
                ..wire::Report::default()
            })
            .await;
        let all = events
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?
            .items;
        let ours = all
            .into_iter()
            .find(|event| event.reason.as_deref() == Some("NewDependency"));
        ours.ok_or_else(|| format!("none after {port}"))
    })
    .await;
    let regarding = told.regarding.expect("regarding");
    assert_eq!(
        (regarding.kind.as_deref(), regarding.name.as_deref()),
        (Some("Pod"), Some("shopper"))
    );
    assert!(
        told.note
            .expect("a note")
            .starts_with("shopper now depends on Pod")
    );
    assert!(port > 8_001, "an Event about a client that is not known yet");
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn the_schema_refuses_what_cannot_be_a_dependency() {
    let cluster = Cluster::new("schema").await;
    let client =
        json!({"kind": "Deployment", "namespace": cluster.namespace, "name": "a", "apiGroup": "apps"});
    let specs = [
        json!({"client": client, "port": 80, "transport": "TCP"}),
        json!({"client": client, "server": client, "port": 70_000, "transport": "TCP"}),
        json!({"client": client, "server": client, "port": 80, "transport": "SCTP"}),
        json!({"client": client, "server": {"kind": "x".repeat(64), "name": "b"}, "port": 80, "transport": "TCP"}),
        json!({"client": {"kind": "Service", "name": "s"}, "server": client, "port": 80, "transport": "TCP"}),
    ];
    for spec in specs {
        let object = json!({
            "apiVersion": "leyline.dev/v1alpha1", "kind": "ServiceDependency",
            "metadata": {"name": "bad", "namespace": cluster.namespace}, "spec": spec
        });
        let file = std::env::temp_dir().join(format!("{}.json", cluster.namespace));
        std::fs::write(&file, object.to_string()).expect("written");
        let output = kubectl(&[
            "create",
            "--validate=ignore",
            "-f",
            file.to_str().expect("a path"),
        ]);
        std::fs::remove_file(&file).expect("removed");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && message.contains("spec"),
            "{object}: {message}"
        );
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn many_new_edges_are_written_in_one_burst() {
    const EDGES: u32 = 100;
    let cluster = Cluster::new("burst").await;
    let operator = Operator::start(&cluster, "a", &[]);
    operator.leads().await;
    let (shopper, till) = (
        cluster.pod("shopper", "node-x").await,
        cluster.pod("till", "node-x").await,
    );
    let token = cluster.agent_token("node-x").await;
    let mut agent = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    let definitions = (1..=EDGES)
        .map(|port| client_half(port, &shopper, till.address, port))
        .collect();
    let counters = (1..=EDGES).map(|port| opened(port, 1, 1, 1)).collect();
    agent
        .report(wire::Report {
            definitions,
            counters,
            complete: true,
            ..wire::Report::default()
        })
        .await;
    eventually("every object with a status", async || {
        let objects = cluster.objects().await;
        match objects.iter().filter(|object| connections(object) == 1).count() {
            100 => Ok(()),
            count => Err(format!("{count} objects")),
        }
    })
    .await;
    assert_eq!(
        operator
            .metric("leyline_writes_total{lane=\"new\",result=\"failed\"}")
            .await,
        Ok(0.0)
    );
}
