//! From an object back to what it says: after a restart, and of what another replica wrote.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ObjectTime;
use leyline_api::{
    Condition, ConditionStatus, ConditionType, EntityRef, Evidence, ServiceDependency, ServiceDependencySpec,
    ServiceDependencyStatus, Transport, conditions::ResolvedReason, labels, names,
};
use leyline_graph::{
    End, Incomplete, Seed, ServiceRef, Unnamed, Unresolved, ZoneBytes,
    entity::{self, EdgeKey, Entity, Time},
};

use crate::{
    config::Config,
    record::{Said, Since, Stored, Written, facts},
    totals::Totals,
};

/// Whose object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Ours, under its right name.
    Ours,
    /// Labelled as ours, but not under the name that its spec has: a copy that somebody made.
    Stray,
    /// Somebody else's.
    Foreign,
}

pub(crate) fn whose(object: &ServiceDependency, config: &Config) -> Whose {
    if !labels::is_generated(object.metadata.labels.as_ref()) {
        return Whose::Foreign;
    }
    let name = names::service_dependency(&object.spec);
    let namespace = names::namespace(&object.spec, &config.system_namespace);
    let right = object.metadata.name.as_deref() == Some(&name)
        && object.metadata.namespace.as_deref() == Some(namespace);
    if right { Whose::Ours } else { Whose::Stray }
}

pub(crate) fn key(spec: &ServiceDependencySpec) -> EdgeKey {
    let ServiceDependencySpec {
        client,
        server,
        port,
        transport,
    } = spec;
    EdgeKey {
        client: entity_of(client),
        server: entity_of(server),
        port: *port,
        transport: match transport {
            Transport::Tcp => entity::Transport::Tcp,
            Transport::Udp => entity::Transport::Udp,
        },
    }
}

fn entity_of(end: &EntityRef) -> Entity {
    Entity {
        kind: end.kind.clone(),
        api_group: end.api_group().to_owned(),
        namespace: end.namespace().to_owned(),
        name: end.name.clone(),
    }
}

/// What the API server holds, according to the object.
pub(crate) fn stored(object: &ServiceDependency, now: Time) -> Stored {
    let Some(status) = object.status.as_ref().filter(|status| status.state.is_some()) else {
        return Stored::Bare(now);
    };
    let transition = |type_| find(status, type_).map_or(now, |c| time(&c.last_transition_time));
    Stored::Whole(Written {
        at: now,
        own: false,
        said: said(status),
        last_seen: status.last_seen.as_ref().map_or(now, time),
        transitions: [
            transition(ConditionType::Observed),
            transition(ConditionType::Resolved),
            transition(ConditionType::Complete),
        ],
    })
}

/// What the graph needs to go on from the object.
pub(crate) fn seed(object: &ServiceDependency, now: Time) -> Seed {
    let nothing = ServiceDependencyStatus::default();
    let status = object.status.as_ref().unwrap_or(&nothing);
    let made = object.metadata.creation_timestamp.as_ref().map_or(now, time);
    let first_seen = status.first_seen.as_ref().map_or(made, time);
    let evidence = evidence(status);
    Seed {
        key: key(&object.spec),
        service: service(status),
        evidence,
        first_seen,
        last_seen: status.last_seen.as_ref().map_or(made, time).max(first_seen),
        totals: Totals::read(status).counters(),
        zones: zones(status),
        unresolved: said(status).and_then(|said| said.unresolved),
        incomplete: said(status).map(|said| said.incomplete).unwrap_or_default(),
    }
}

/// Bytes by zone; what no planner writes is left out.
fn zones(status: &ServiceDependencyStatus) -> Vec<ZoneBytes> {
    let zones = status.zones.iter().filter_map(|zone| {
        Some(ZoneBytes {
            client: Arc::from(zone.client.as_str()),
            server: Arc::from(zone.server.as_str()),
            bytes: u64::try_from(zone.bytes).ok()?,
        })
    });
    zones.collect()
}

/// When the dependency was first seen, and since when its totals count.
pub(crate) fn since(object: &ServiceDependency) -> Since {
    let status = object.status.as_ref();
    let readable = status.is_some_and(|s| s.connections.is_some() && s.bytes.is_some());
    Since {
        first_seen: status.and_then(|s| s.first_seen.as_ref()).map(time),
        counted: status
            .and_then(|s| s.counted_since.as_ref())
            .filter(|_| readable)
            .map(time),
    }
}

/// None when a condition is missing or says something that no planner writes: then it must be written again.
fn said(status: &ServiceDependencyStatus) -> Option<Said> {
    find(status, ConditionType::Observed)?;
    let resolved = find(status, ConditionType::Resolved)?;
    let complete = find(status, ConditionType::Complete)?;
    let unresolved = match resolved.status {
        ConditionStatus::True => None,
        ConditionStatus::False | ConditionStatus::Unknown => Some(unresolved(resolved)?),
    };
    let incomplete = Incomplete {
        loss: complete.message.contains("Loss:"),
        sampled: complete.message.contains("Sampled:"),
        folded: complete.message.contains("Folded:"),
    };
    if incomplete.any() == (complete.status == ConditionStatus::True) {
        return None;
    }
    let facts = facts(service(status).as_ref(), evidence(status));
    Some(Said {
        state: status.state?,
        unresolved,
        incomplete,
        facts,
    })
}

fn unresolved(condition: &Condition) -> Option<Unresolved> {
    let end = match condition.message.split_once(':')?.0 {
        "client" => End::Client,
        "server" => End::Server,
        _ => return None,
    };
    let reasons = [
        (ResolvedReason::NoName, Unnamed::NoName),
        (ResolvedReason::NodeAddress, Unnamed::NodeAddress),
        (ResolvedReason::Ambiguous, Unnamed::Ambiguous),
        (ResolvedReason::NoEndpoints, Unnamed::NoEndpoints),
    ];
    let (_, reason) = reasons
        .into_iter()
        .find(|(written, _)| written.as_str() == condition.reason)?;
    Some(Unresolved { end, reason })
}

fn find(status: &ServiceDependencyStatus, type_: ConditionType) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn service(status: &ServiceDependencyStatus) -> Option<ServiceRef> {
    status.service.as_ref().map(|s| ServiceRef {
        namespace: s.namespace.clone(),
        name: s.name.clone(),
        port: s.port,
    })
}

fn evidence(status: &ServiceDependencyStatus) -> leyline_graph::Evidence {
    leyline_graph::Evidence {
        client_socket: status.evidence.contains(&Evidence::ClientSocket),
        server_socket: status.evidence.contains(&Evidence::ServerSocket),
    }
}

fn time(time: &ObjectTime) -> Time {
    Time(time.0.as_millisecond())
}
