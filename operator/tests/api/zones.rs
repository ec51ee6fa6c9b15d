//! Bytes by zone, from the label of a Node to the object and the metrics.

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use leyline_api::{ServiceDependency, ZoneBytes};
use leyline_wire as wire;
use serde_json::json;

use crate::agent::{Agent, client_half, opened};
use crate::cluster::{Cluster, TestPod};
use crate::operator::Operator;

/// Nodes that exist as objects only; without the label for their system, no DaemonSet wants to be there. They go with the
/// namespace when the test fails.
struct Nodes {
    api: Api<Node>,
    west: String,
    east: String,
}

impl Nodes {
    async fn make(cluster: &Cluster) -> Self {
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let namespace = namespaces.get(&cluster.namespace).await.expect("namespace");
        let owner = json!({
            "apiVersion": "v1", "kind": "Namespace", "name": cluster.namespace, "uid": namespace.uid()
        });
        let api = Api::all(cluster.client.clone());
        let node = |zone: &str| format!("{}-{zone}", cluster.namespace);
        let nodes = Self {
            api,
            west: node("west"),
            east: node("east"),
        };
        for (name, zone) in [(&nodes.west, "west"), (&nodes.east, "east")] {
            let object = serde_json::from_value(json!({
                "metadata": {
                    "name": name, "labels": {"topology.kubernetes.io/zone": zone}, "ownerReferences": [owner]
                }
            }));
            let object = object.expect("a node");
            nodes
                .api
                .create(&PostParams::default(), &object)
                .await
                .expect("node");
        }
        nodes
    }

    async fn remove(self) {
        for name in [&self.west, &self.east] {
            self.api
                .delete(name, &DeleteParams::default())
                .await
                .expect("node deleted");
        }
    }
}

fn report(shopper: &TestPod, till: &TestPod, count: u64) -> wire::Report {
    wire::Report {
        definitions: vec![client_half(1, shopper, till.address, 8080)],
        counters: vec![opened(1, count, 100 * count, 1_000 * count)],
        complete: true,
        ..wire::Report::default()
    }
}

fn zones(object: &ServiceDependency) -> &[ZoneBytes] {
    object.status.as_ref().map_or(&[], |status| &status.zones)
}

fn west_to_east(bytes: i64) -> ZoneBytes {
    ZoneBytes {
        client: "west".to_owned(),
        server: "east".to_owned(),
        bytes,
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn bytes_by_zone_are_in_the_object_and_survive_a_restart() {
    let cluster = Cluster::new("zones").await;
    let nodes = Nodes::make(&cluster).await;
    let mut operator = Operator::start(&cluster, "one", &[]);
    operator.leads().await;
    let (shopper, till) = (
        cluster.pod("shopper", &nodes.west).await,
        cluster.pod("till", &nodes.east).await,
    );
    let token = cluster.agent_token(&nodes.west).await;
    let mut agent = Agent::connect(&cluster, &operator, &token, &nodes.west, 1).await;
    agent.report(report(&shopper, &till, 5)).await;
    let whole = cluster
        .object("the object", |object| object.status.is_some())
        .await;
    assert_eq!(zones(&whole), [west_to_east(5_500)]);
    operator.kill();

    let operator = Operator::start(&cluster, "one", &["--settle-after", "5s"]);
    operator.ready().await;
    let mut agent = Agent::connect(&cluster, &operator, &token, &nodes.west, 1).await;
    agent.report(report(&shopper, &till, 7)).await;
    let after = cluster
        .object("the bytes go on", |object| zones(object) != zones(&whole))
        .await;
    assert_eq!(zones(&after), [west_to_east(7_700)], "not counted twice");

    // The metric counts from its own start.
    operator.counts("leyline_graph_settled", 1.0).await;
    agent.report(report(&shopper, &till, 8)).await;
    let series = format!(
        "leyline_zone_bytes_total{{client_namespace=\"{0}\",client=\"shopper\",client_zone=\"west\",\
         server_namespace=\"{0}\",server=\"till\",server_zone=\"east\"}}",
        cluster.namespace
    );
    operator.counts(&series, 1.0).await;
    assert_eq!(operator.metric(&series).await, Ok(1_100.0));
    nodes.remove().await;
}
