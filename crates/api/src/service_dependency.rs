//! `ServiceDependency`: one client workload that depends on one server, and how we know.
//!
//! The doc comments of the fields are what `kubectl explain sdep` prints.

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives private copies of the public structs"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::{conditions::Condition, entity_ref::EntityRef};

/// Who depends on whom. All four fields together are the identity of the dependency; they never change.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, CustomResource, KubeSchema,
)]
#[kube(
    group = "leyline.dev",
    version = "v1alpha1",
    kind = "ServiceDependency",
    plural = "servicedependencies",
    shortname = "sdep",
    category = "leyline",
    namespaced,
    status = "ServiceDependencyStatus",
    derive = "PartialEq",
    doc = "A ServiceDependency says that one workload depends on another: the client opened connections to the server's \
           port, and the sockets of at least one end were seen doing so. Leyline writes these objects into the namespace of \
           the client (leyline-system when the client is in none) and deletes them once they were idle for long enough. \
           Objects without the label leyline.dev/generated=true are left alone.",
    crates(kube_core = "::kube_core"),
    selectable = ".spec.client.name",
    selectable = ".spec.server.name",
    selectable = ".spec.server.namespace",
    selectable = ".spec.server.kind",
    selectable = ".spec.port",
    selectable = ".status.state",
    printcolumn(
        name = "Client",
        type_ = "string",
        json_path = ".spec.client.name",
        description = "who depends"
    ),
    printcolumn(
        name = "Server",
        type_ = "string",
        json_path = ".spec.server.name",
        description = "on whom"
    ),
    printcolumn(
        name = "Server-NS",
        type_ = "string",
        json_path = ".spec.server.namespace",
        description = "namespace of the server"
    ),
    printcolumn(
        name = "Port",
        type_ = "integer",
        json_path = ".spec.port",
        description = "the port the server process listens on"
    ),
    printcolumn(
        name = "Connections",
        type_ = "integer",
        json_path = ".status.connections.opened",
        description = "connections opened since countedSince"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.connections.failed",
        description = "attempts that failed since countedSince"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Active, Failing or Idle"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Transport",
        type_ = "string",
        json_path = ".spec.transport",
        description = "TCP or UDP",
        priority = 1
    ),
    printcolumn(
        name = "Client-Kind",
        type_ = "string",
        json_path = ".spec.client.kind",
        description = "what the client is",
        priority = 1
    ),
    printcolumn(
        name = "Server-Kind",
        type_ = "string",
        json_path = ".spec.server.kind",
        description = "what the server is",
        priority = 1
    ),
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".status.service.name",
        description = "the Service the client addressed",
        priority = 1
    ),
    printcolumn(
        name = "Active",
        type_ = "integer",
        json_path = ".status.connections.active",
        description = "connections open at the last write",
        priority = 1
    ),
    printcolumn(
        name = "Sent",
        type_ = "integer",
        json_path = ".status.bytes.sent",
        description = "bytes the client sent",
        priority = 1
    ),
    printcolumn(
        name = "Received",
        type_ = "integer",
        json_path = ".status.bytes.received",
        description = "bytes the client received",
        priority = 1
    ),
    printcolumn(
        name = "RTT",
        type_ = "string",
        json_path = ".status.network.rtt",
        description = "mean round-trip time",
        priority = 1
    ),
    printcolumn(
        name = "Last-Seen",
        type_ = "date",
        json_path = ".status.lastSeen",
        description = "age of the last sign of life, to the hour",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self == oldSelf").message("spec is immutable: it is the identity of the dependency"),
    validation = Rule::new("self.client.kind != 'Service'").message("a Service answers; it cannot be a client")
)]
pub struct ServiceDependencySpec {
    /// The side that opened the connections, with connect() (TCP) or the first datagram (UDP). It is never guessed from
    /// port numbers.
    pub client: EntityRef,

    /// The side that answered; the Service itself where nothing is known about who answered.
    pub server: EntityRef,

    /// The port the answering process listens on (the Service's port when server is a Service). 0: more than eight dynamic
    /// ports between these two, shown as one.
    #[schemars(range(min = 0, max = 65535))]
    pub port: u16,

    /// IP protocol: TCP or UDP.
    pub transport: Transport,
}

/// IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

impl Transport {
    /// As the object spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Active: connections were seen within the idle window. Failing: attempts fail, and none has succeeded for minutes. Idle:
/// nothing was seen within the idle window; the object is deleted after the retention time.
// The generator takes the description of an optional enum from its type, not from the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Connections were seen within the idle window.
    Active,
    /// Attempts fail, and none has succeeded for minutes.
    Failing,
    /// Nothing was seen within the idle window.
    Idle,
}

impl State {
    /// As the object spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Failing => "Failing",
            Self::Idle => "Idle",
        }
    }
}

/// Why a dependency is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Evidence {
    /// The client's sockets were seen.
    ClientSocket,
    /// The server's sockets were seen.
    ServerSocket,
}

/// What was seen of the dependency: a slow summary. Live figures are in the operator's metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ServiceDependencyStatus {
    /// Whether the dependency is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,

    /// The Service the client addressed; absent when it addressed pods or nodes directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,

    /// When the dependency was first seen. Restarts of any part do not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crd::time_schema")]
    pub first_seen: Option<Time>,

    /// When the dependency was last seen. It is no reason for a write and refreshed at most once an hour, and
    /// whenever state changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crd::time_schema")]
    pub last_seen: Option<Time>,

    /// Why the dependency is believed. ClientSocket: sockets of the client were seen. ServerSocket: sockets of the server were
    /// seen. With both, the two halves of at least one connection were seen, each on its own node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub evidence: Vec<Evidence>,

    /// The totals in connections and bytes count from here. It moves only when the earlier totals could not be carried on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crd::time_schema")]
    pub counted_since: Option<Time>,

    /// Connections since countedSince.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,

    /// Payload bytes since countedSince, as the client sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,

    /// Where the bytes went: between which zones (label topology.kubernetes.io/zone of the nodes at both ends). A pair whose
    /// client and server differ is traffic between zones. Bytes of which one zone is not known are in bytes only: ends outside
    /// the cluster, nodes without the label, and connections to a Service over several zones of which only the client's end was
    /// seen. At most 16 pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["client".into(), "server".into()]))]
    pub zones: Vec<ZoneBytes>,

    /// The period that the figures in network cover, for example 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$")
    )]
    pub window: Option<String>,

    /// How the network behaved within the window; absent when nothing was measured in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,

    /// Observed: the dependency is being seen. Resolved: both ends have a proven name; False says which end has not, and why.
    /// Complete: the figures are known to miss nothing; False when loss, sampling or folding touches this dependency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ServiceRef {
    /// Namespace of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[!-~]+$"))]
    pub namespace: String,

    /// Name of the Service.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-~]+$"))]
    pub name: String,

    /// The Service's port, which may differ from the port the server listens on.
    #[schemars(range(min = 0, max = 65535))]
    pub port: u16,
}

/// Connections, counted once although both ends may have been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Connections {
    /// Connections established. Those that were already open when Leyline started are in active only.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub opened: i64,

    /// Attempts that ended with an error.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub failed: i64,

    /// Attempts that the application gave up, for example the slower of two addresses tried at once. Not failures.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub aborted: i64,

    /// Connections open when the status was written.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub active: i64,

    /// The failed attempts by reason; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
}

/// Failed attempts by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Failures {
    /// Refused: nothing listened there.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub refused: i64,

    /// No answer in time.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub timed_out: i64,

    /// No way to the host or network, or forbidden on the way.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub unreachable: i64,

    /// Ended by any other error before the connection stood.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub reset: i64,
}

/// Payload bytes, without headers and retransmissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Bytes {
    /// Bytes from the client to the server.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub sent: i64,

    /// Bytes from the server to the client.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub received: i64,
}

/// Bytes between two zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct ZoneBytes {
    /// Zone of the client's node.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[!-~]+$"))]
    pub client: String,

    /// Zone of the server's node.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[!-~]+$"))]
    pub server: String,

    /// Payload bytes since countedSince, both directions added up.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub bytes: i64,
}

/// Behaviour of the network between the two ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Network {
    /// Mean time from connect() to the established connection, for example 1.2ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$")
    )]
    pub connect_time: Option<String>,

    /// Mean round-trip time as the kernel measured it, for example 300us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$")
    )]
    pub rtt: Option<String>,

    /// Segments that had to be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub retransmits: Option<i64>,
}
