//! The one task that owns the graph and the plan, and what it is fed with.
//!
//! Everything that happens (an object changed, an agent said something, time passed, a write ended) comes through one
//! bounded channel, in order. So there are no locks, and whoever is too fast waits. [`driver`] is the task.

mod agents;
pub mod answers;
pub mod driver;
mod gauges;
mod missing;
mod zones;

pub use agents::{Agents, TakeError};

use std::collections::HashSet;
use std::net::IpAddr;

use leyline_api::ServiceDependency;
use leyline_graph::ReportError;
use leyline_graph::input::{Controller, EndpointSlice, Node, Pod, Report, Service};
use tokio::sync::{mpsc, oneshot};

use crate::apply::Written;

/// Inputs under way. A report can hold 4 MiB, but there is at most one per stream; an inventory event is small.
pub const INPUTS: usize = 1_024;

/// Where inputs are sent.
pub type Inputs = mpsc::Sender<Input>;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A Kubernetes object changed.
    Inventory(Inventory),
    /// The first list of a kind is complete.
    Listed(Kind),
    /// A `ServiceDependency` changed.
    Object(Object),
    /// An agent's stream started.
    Hello {
        /// The agent's node.
        node: String,
        /// The agent's run.
        epoch: u64,
        /// Addresses of the node's own network namespace.
        addresses: Vec<IpAddr>,
    },
    /// An agent reported.
    Report {
        /// The agent's node.
        node: String,
        /// The agent's run.
        epoch: u64,
        /// What it said.
        report: Report,
        /// Told when the graph has taken it in, or why it has not.
        taken_tx: oneshot::Sender<Result<(), ReportError>>,
    },
    /// A node's agent has no stream any more.
    Gone {
        /// The agent's node.
        node: String,
    },
    /// A write ended.
    Written(Written),
}

/// A trimmed Kubernetes object, or the name of one that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the graph's input types document the fields")]
pub enum Inventory {
    Pod(Pod),
    PodGone { uid: String },
    Controller(Controller),
    ControllerGone { uid: String },
    Service(Service),
    ServiceGone { namespace: String, name: String },
    Slice(EndpointSlice),
    SliceGone { namespace: String, name: String },
    Node(Node),
    NodeGone { name: String },
    Namespace { name: String, terminating: bool },
    NamespaceGone { name: String },
}

/// A `ServiceDependency` as the watch has it.
#[derive(Clone, Debug)]
pub enum Object {
    /// It is there, in this form.
    Present(Box<ServiceDependency>),
    /// It is there and cannot be understood.
    Invalid {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Whether Leyline wrote it.
        generated: bool,
        /// Its generation.
        generation: Option<i64>,
        /// What is wrong.
        error: String,
    },
    /// It is gone; this is what it was.
    Gone(Box<ServiceDependency>),
    /// They are gone (namespace and name): noticed by a watch that had to start over.
    Missing(HashSet<(String, String)>),
}

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the kinds")]
pub enum Kind {
    Pod,
    ReplicaSet,
    Job,
    Service,
    EndpointSlice,
    Node,
    Namespace,
    ServiceDependency,
}

impl Kind {
    /// Every kind: the inventory is complete when all have been listed.
    pub const ALL: [Self; 8] = [
        Self::Pod,
        Self::ReplicaSet,
        Self::Job,
        Self::Service,
        Self::EndpointSlice,
        Self::Node,
        Self::Namespace,
        Self::ServiceDependency,
    ];

    /// As Kubernetes spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::ServiceDependency => "ServiceDependency",
        }
    }
}
