//! From an edge to its object.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ObjectTime;
use leyline_api::{
    Condition, EntityRef, Evidence, Network, ServiceDependency, ServiceDependencySpec,
    ServiceDependencyStatus, ServiceRef, State, Transport,
    conditions::{CompleteReason, ObservedReason, ResolvedReason},
    figures, labels, names,
};
use leyline_graph::{
    EdgeView, End, Incomplete, Unnamed, Unresolved,
    entity::{self, EdgeKey, Entity, Time},
};

use crate::{
    config::Config,
    record::{Said, Written},
    totals::{self, Totals},
};

/// `metadata.generation` of our objects: spec is immutable, so it is never another one.
const GENERATION: i64 = 1;

/// Everything a status is made of besides the view.
pub(crate) struct Parts {
    pub(crate) said: Said,
    pub(crate) totals: Totals,
    pub(crate) first_seen: Time,
    pub(crate) last_seen: Time,
    pub(crate) counted_since: Time,
    /// Of Observed, Resolved, Complete.
    pub(crate) transitions: [Time; 3],
}

/// The identity part of an object.
pub(crate) fn spec(key: &EdgeKey) -> ServiceDependencySpec {
    let EdgeKey {
        client,
        server,
        port,
        transport,
    } = key;
    ServiceDependencySpec {
        client: end(client),
        server: end(server),
        port: *port,
        transport: match transport {
            entity::Transport::Tcp => Transport::Tcp,
            entity::Transport::Udp => Transport::Udp,
        },
    }
}

/// An end as objects name it.
pub(crate) fn end(entity: &Entity) -> EntityRef {
    let Entity {
        kind,
        api_group,
        namespace,
        name,
    } = entity;
    EntityRef::new(kind, api_group, namespace, name)
}

/// The object without status.
pub(crate) fn object(key: &EdgeKey, config: &Config) -> ServiceDependency {
    let spec = spec(key);
    let mut object = ServiceDependency::new(&names::service_dependency(&spec), spec);
    object.metadata.namespace = Some(names::namespace(&object.spec, &config.system_namespace).to_owned());
    object.metadata.labels = Some(labels::service_dependency(&object.spec));
    object
}

/// The status.
pub(crate) fn status(view: &EdgeView, parts: &Parts, config: &Config) -> ServiceDependencyStatus {
    let network = network(view);
    ServiceDependencyStatus {
        state: Some(parts.said.state),
        service: view.service.as_ref().map(|s| ServiceRef {
            namespace: s.namespace.clone(),
            name: s.name.clone(),
            port: s.port,
        }),
        first_seen: Some(object_time(parts.first_seen)),
        last_seen: Some(object_time(parts.last_seen)),
        evidence: [
            (view.evidence.client_socket, Evidence::ClientSocket),
            (view.evidence.server_socket, Evidence::ServerSocket),
        ]
        .into_iter()
        .filter_map(|(seen, evidence)| seen.then_some(evidence))
        .collect(),
        counted_since: Some(object_time(parts.counted_since)),
        connections: Some(parts.totals.connections()),
        bytes: Some(parts.totals.bytes()),
        zones: totals::zones(view),
        window: network
            .as_ref()
            .map(|_| figures::period(seconds(view.window.length).max(1))),
        network,
        conditions: conditions(&parts.said, parts.transitions, config),
    }
}

/// Rounded, so that noise is no difference; absent when the window saw nothing.
fn network(view: &EdgeView) -> Option<Network> {
    let window = &view.window;
    if window.length <= 0 || (window.connect_us.is_none() && window.rtt_us.is_none()) {
        return None;
    }
    Some(Network {
        connect_time: window.connect_us.map(figures::duration),
        rtt: window.rtt_us.map(figures::duration),
        retransmits: Some(figures::count(figures::two_digits(window.retransmits))),
    })
}

/// When each condition took the status it now has.
pub(crate) fn transitions(said: &Said, before: Option<&Written>, now: Time) -> [Time; 3] {
    let Some((written, old)) = before.and_then(|w| w.said.as_ref().map(|said| (w, said))) else {
        return [now; 3];
    };
    let same = [
        (said.state == State::Idle) == (old.state == State::Idle),
        said.unresolved.is_none() == old.unresolved.is_none(),
        said.incomplete.any() == old.incomplete.any(),
    ];
    let [observed, resolved, complete] = written.transitions;
    let [a, b, c] = same;
    let at = |same: bool, before: Time| if same { before } else { now };
    [at(a, observed), at(b, resolved), at(c, complete)]
}

fn conditions(said: &Said, transitions: [Time; 3], config: &Config) -> Vec<Condition> {
    let [observed, resolved, complete] = transitions.map(object_time);
    let period = |milliseconds| figures::period(seconds(milliseconds));
    let (seen, text) = match said.state {
        State::Active => (
            ObservedReason::ConnectionsSeen,
            format!(
                "connections were seen within the last {}",
                period(config.idle_after)
            ),
        ),
        State::Failing => (
            ObservedReason::OnlyFailures,
            format!(
                "attempts fail, and none has succeeded for {}",
                period(config.failing_after)
            ),
        ),
        State::Idle => (
            ObservedReason::Idle,
            format!(
                "nothing was seen for {}; deleted {} after the last sign of life",
                period(config.idle_after),
                period(config.delete_after)
            ),
        ),
    };
    let (name, name_text) = resolution(said.unresolved);
    let (whole, whole_text) = completeness(said.incomplete);
    let mut all = vec![
        Condition::observed(seen, &text, &observed),
        Condition::resolved(name, &name_text, &resolved),
        Condition::complete(whole, &whole_text, &complete),
    ];
    for condition in &mut all {
        condition.observed_generation = GENERATION;
    }
    all
}

/// The word before the colon is read back by `read`.
fn resolution(unresolved: Option<Unresolved>) -> (ResolvedReason, String) {
    let Some(Unresolved { end, reason }) = unresolved else {
        return (
            ResolvedReason::BothEndsKnown,
            "both ends are named by proof".to_owned(),
        );
    };
    let word = match end {
        End::Client => "client",
        End::Server => "server",
    };
    (
        resolved_reason(reason),
        format!("{word}: {}", advice(end, reason)),
    )
}

fn resolved_reason(reason: Unnamed) -> ResolvedReason {
    match reason {
        Unnamed::NoName => ResolvedReason::NoName,
        Unnamed::NodeAddress => ResolvedReason::NodeAddress,
        Unnamed::Ambiguous => ResolvedReason::Ambiguous,
        Unnamed::NoEndpoints => ResolvedReason::NoEndpoints,
    }
}

/// What is known of an end without a name, and what to do next. `docs/resolution.md` says more.
fn advice(end: End, reason: Unnamed) -> &'static str {
    match (end, reason) {
        (End::Client, Unnamed::NodeAddress) => {
            "a node's address, and no socket on that node was seen: likely a client outside the cluster that came \
             through a NodePort or load balancer (externalTrafficPolicy Local would keep its own address). Else check \
             that a Leyline agent is ready there"
        }
        (End::Server, Unnamed::NodeAddress) => {
            "a node's address, and nothing on that node was seen to answer. Check that a Leyline agent is ready there: \
             only it can tell which process or hostNetwork pod has this port"
        }
        (End::Client, Unnamed::Ambiguous) => {
            "more than one pod may have had this address at the time, and its own half was not seen. Check that a \
             Leyline agent is ready on every node; such edges go idle by themselves"
        }
        (End::Server, Unnamed::Ambiguous) => {
            "several workloads may have answered, and their half was not seen. Normal for failed attempts at a Service \
             over several workloads; else check that a Leyline agent is ready on every node with a pod of it"
        }
        (_, Unnamed::NoEndpoints) => {
            "this Service has nothing behind it. Compare its selector with the labels of your pods: kubectl describe \
             service shows both selector and endpoints"
        }
        (_, Unnamed::NoName) => {
            "nothing in the cluster has this address. Find out who does (spec has it); for an address of your own \
             network ask its DNS or inventory. A name for it is not needed for the figures to be right"
        }
    }
}

/// The words before the colons are read back by `read`.
fn completeness(incomplete: Incomplete) -> (CompleteReason, String) {
    let Incomplete {
        loss,
        sampled,
        folded,
    } = incomplete;
    let all = [
        (
            loss,
            CompleteReason::Loss,
            "Loss: events of a node that contributes were lost",
        ),
        (
            sampled,
            CompleteReason::Sampled,
            "Sampled: totals are scaled from a sample of the connections",
        ),
        (
            folded,
            CompleteReason::Folded,
            "Folded: several addresses or ports are shown as one",
        ),
    ];
    let mut applying = all.into_iter().filter(|(applies, _, _)| *applies).peekable();
    let Some(&(_, gravest, _)) = applying.peek() else {
        return (
            CompleteReason::NothingMissing,
            "nothing is known to be missing".to_owned(),
        );
    };
    (
        gravest,
        applying.map(|(_, _, text)| text).collect::<Vec<_>>().join("; "),
    )
}

/// Clamped to what a timestamp can hold.
pub(crate) fn object_time(time: Time) -> ObjectTime {
    ObjectTime(Timestamp::from_millisecond(time.0).unwrap_or(if time.0 < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    }))
}

fn seconds(milliseconds: i64) -> u64 {
    u64::try_from(milliseconds / 1_000).unwrap_or(0)
}
