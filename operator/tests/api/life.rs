//! Restarts, kills and hand-overs: no object is lost, doubled, renamed or counted twice.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use leyline_api::ServiceDependency;
use leyline_wire as wire;
use serde_json::json;

use crate::agent::{Agent, client_half, opened};
use crate::cluster::{Cluster, TestPod};
use crate::operator::Operator;
use crate::wait::eventually;

fn full(shopper: &TestPod, till: &TestPod, count: u64) -> wire::Report {
    wire::Report {
        definitions: vec![client_half(1, shopper, till.address, 8080)],
        counters: vec![opened(1, count, 100 * count, 1_000 * count)],
        complete: true,
        ..wire::Report::default()
    }
}

fn connections(object: &ServiceDependency) -> i64 {
    object
        .status
        .as_ref()
        .and_then(|status| status.connections)
        .map_or(0, |connections| connections.opened)
}

fn same(before: &ServiceDependency, after: &ServiceDependency) {
    assert_eq!(before.metadata.uid, after.metadata.uid);
    let since = |object: &ServiceDependency| {
        let status = object.status.clone().expect("status");
        (status.first_seen, status.counted_since)
    };
    assert_eq!(since(before), since(after));
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_killed_leader_is_followed_by_the_other_replica() {
    let cluster = Cluster::new("failover").await;
    let mut first = Operator::start(&cluster, "first", &[]);
    first.leads().await;
    let second = Operator::start(&cluster, "second", &[]);
    second.ready().await;
    let (shopper, till) = (
        cluster.pod("shopper", "node-x").await,
        cluster.pod("till", "node-x").await,
    );
    let token = cluster.agent_token("node-x").await;
    let mut to_first = Agent::connect(&cluster, &first, &token, "node-x", 1).await;
    let mut to_second = Agent::connect(&cluster, &second, &token, "node-x", 1).await;
    to_first.report(full(&shopper, &till, 3)).await;
    to_second.report(full(&shopper, &till, 3)).await;
    let before = cluster
        .object("the object", |object| connections(object) == 3)
        .await;
    assert_eq!(second.metric("leyline_leader").await, Ok(0.0), "one writes");

    first.kill();
    second.leads().await;
    to_second
        .report(wire::Report {
            counters: vec![opened(1, 8, 800, 8_000)],
            ..wire::Report::default()
        })
        .await;
    let after = cluster
        .object("the new total", |object| connections(object) == 8)
        .await;
    same(&before, &after);
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn sigterm_gives_the_lease_back_and_tells_the_agents() {
    let cluster = Cluster::new("sigterm").await;
    let mut first = Operator::start(&cluster, "first", &["--lease-duration", "60s"]);
    first.leads().await;
    let second = Operator::start(&cluster, "second", &["--lease-duration", "60s"]);
    second.ready().await;
    let token = cluster.agent_token("node-x").await;
    let mut agent = Agent::connect(&cluster, &first, &token, "node-x", 1).await;
    agent.report(wire::Report::default()).await;
    let started = std::time::Instant::now();
    assert!(first.stop().await.success());
    assert_eq!(
        agent.end(crate::wait::SOON).await.code(),
        tonic::Code::Unavailable
    );
    // Long before the lease would have ended by itself.
    second.leads().await;
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    let leases: Api<Lease> = cluster.api();
    let lease = leases
        .get("leyline-operator")
        .await
        .expect("lease")
        .spec
        .expect("spec");
    assert_eq!(lease.holder_identity.as_deref(), Some("second"));
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_restarted_operator_goes_on_from_the_objects() {
    let cluster = Cluster::new("restart").await;
    let mut operator = Operator::start(&cluster, "one", &[]);
    operator.leads().await;
    let (shopper, till) = (
        cluster.pod("shopper", "node-x").await,
        cluster.pod("till", "node-x").await,
    );
    let token = cluster.agent_token("node-x").await;
    let mut agent = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    agent.report(full(&shopper, &till, 5)).await;
    let before = cluster
        .object("the object", |object| connections(object) == 5)
        .await;
    operator.kill();

    // The agent goes on: its counters are cumulative since its own start.
    let mut operator = Operator::start(&cluster, "one", &["--settle-after", "5s"]);
    operator.ready().await;
    let mut agent = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    agent.report(full(&shopper, &till, 7)).await;
    let after = cluster
        .object("the total goes on", |object| connections(object) > 5)
        .await;
    assert_eq!(connections(&after), 7, "not counted twice");
    same(&before, &after);
    operator.kill();

    // Now the agent starts over as well: a new epoch counts from zero and adds.
    let operator = Operator::start(&cluster, "one", &["--settle-after", "5s"]);
    operator.ready().await;
    let mut agent = Agent::connect(&cluster, &operator, &token, "node-x", 2).await;
    agent
        .report(wire::Report {
            complete: true,
            ..wire::Report::default()
        })
        .await;
    operator.counts("leyline_graph_settled", 1.0).await;
    agent.report(full(&shopper, &till, 2)).await;
    let after = cluster
        .object("the new epoch adds", |object| connections(object) > 7)
        .await;
    assert_eq!(connections(&after), 9);
    same(&before, &after);
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_changed_ca_config_map_is_repaired_and_the_certificates_stay() {
    let cluster = Cluster::new("ca").await;
    let mut operator = Operator::start(&cluster, "one", &[]);
    operator.ready().await;
    let authority = cluster.authority().await;
    operator.kill();
    let maps: Api<ConfigMap> = cluster.api();
    let change = Patch::Merge(json!({"data": {"ca.crt": "nonsense"}}));
    maps.patch("leyline-ca", &PatchParams::default(), &change)
        .await
        .expect("changed");
    let _operator = Operator::start(&cluster, "two", &[]);
    eventually("the CA is the same as before", async || {
        match cluster.authority().await {
            text if text == authority => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_terminating_namespace_ends_its_edges_without_retry() {
    let cluster = Cluster::new("ending").await;
    let operator = Operator::start(&cluster, "one", &[]);
    operator.leads().await;
    let name = format!("{}-end", cluster.namespace);
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    // The finalizer keeps it terminating for as long as the test looks.
    let ending = json!({"metadata": {"name": name, "finalizers": ["leyline.dev/test"]}});
    let ending: Namespace = serde_json::from_value(ending).expect("a namespace");
    namespaces
        .create(&PostParams::default(), &ending)
        .await
        .expect("made");
    let till = cluster.pod("till", "node-x").await;
    let shopper = cluster.pod_in(&name, "shopper", "node-x").await;
    let token = cluster.agent_token("node-x").await;
    let mut agent = Agent::connect(&cluster, &operator, &token, "node-x", 1).await;
    agent.report(full(&shopper, &till, 3)).await;
    let objects: Api<ServiceDependency> = Api::namespaced(cluster.client.clone(), &name);
    eventually("the object", async || {
        let list = objects
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        list.items.first().map(|_| ()).ok_or_else(|| "none".to_owned())
    })
    .await;

    namespaces
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    objects
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .expect("deleted");
    let counters = vec![opened(1, 9, 900, 9_000)];
    agent
        .report(wire::Report {
            counters,
            ..wire::Report::default()
        })
        .await;
    let other = cluster.pod("other", "node-x").await;
    let definitions = vec![client_half(2, &other, till.address, 8080)];
    let counters = vec![opened(2, 1, 1, 1)];
    agent
        .report(wire::Report {
            definitions,
            counters,
            ..wire::Report::default()
        })
        .await;
    // When the later edge has been written, the earlier one had its chance.
    cluster
        .object("the other object", |object| connections(object) == 1)
        .await;
    let left = objects.list(&ListParams::default()).await.expect("listed").items;
    assert!(left.is_empty(), "{left:?}");
    for lane in ["new", "conditions", "figures"] {
        for result in ["failed", "refused"] {
            let line = format!("leyline_writes_total{{lane=\"{lane}\",result=\"{result}\"}}");
            assert_eq!(operator.metric(&line).await, Ok(0.0), "{line}");
        }
    }
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    namespaces
        .patch(&name, &PatchParams::default(), &release)
        .await
        .expect("released");
}
