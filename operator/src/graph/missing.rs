//! Which objects are gone, when only their names are known.
//!
//! A watch that had to start over notices what is missing by name; a name is a hash and does not say which edge it
//! was. The graph's edges are named again and compared. Rare, so it may take a moment.

use std::collections::HashSet;

use leyline_api::{EntityRef, ServiceDependency, ServiceDependencySpec, Transport, names};
use leyline_graph::Graph;
use leyline_graph::entity::{self, EdgeKey, Entity};

/// The objects among `names` (namespace and name) that describe an edge of `graph`.
pub(super) fn objects(
    graph: &Graph,
    wanted: &HashSet<(String, String)>,
    system_namespace: &str,
) -> Vec<ServiceDependency> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let named = graph.edges().map(|edge| object(&edge.key, system_namespace));
    named
        .filter(|object| {
            let ServiceDependency { metadata, .. } = object;
            let name = metadata.namespace.clone().zip(metadata.name.clone());
            name.is_some_and(|name| wanted.contains(&name))
        })
        .collect()
}

fn object(key: &EdgeKey, system_namespace: &str) -> ServiceDependency {
    let EdgeKey {
        client,
        server,
        port,
        transport,
    } = key;
    let spec = ServiceDependencySpec {
        client: end(client),
        server: end(server),
        port: *port,
        transport: match transport {
            entity::Transport::Tcp => Transport::Tcp,
            entity::Transport::Udp => Transport::Udp,
        },
    };
    let mut object = ServiceDependency::new(&names::service_dependency(&spec), spec);
    object.metadata.namespace = Some(names::namespace(&object.spec, system_namespace).to_owned());
    object
}

fn end(entity: &Entity) -> EntityRef {
    let Entity {
        kind,
        api_group,
        namespace,
        name,
    } = entity;
    EntityRef::new(kind, api_group, namespace, name)
}
