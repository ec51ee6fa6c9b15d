//! Which workload a pod belongs to, from owner references alone.

use crate::entity::Entity;
use crate::input::{Controller, OwnerRef, Pod};

/// A pod's name as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing that may still arrive changes it.
    Final(Entity),
    /// The object between the pod and its workload is not known yet; the name to use if it never comes.
    Provisional(Entity),
}

/// The workload of `pod`; `controller` is the object its controller reference names, if known.
pub(crate) fn workload(pod: &Pod, controller: Option<&Controller>) -> Named {
    let entity = |kind: &str, api_group: &str, name: String| Entity {
        kind: kind.to_owned(),
        api_group: api_group.to_owned(),
        namespace: pod.namespace.clone(),
        name,
    };
    let Some(owner) = &pod.controller else {
        return Named::Final(entity("Pod", "", folded(&pod.generate_name, &pod.name)));
    };
    if owner.kind == "Node" {
        // A static pod: the kubelet names its mirror after the node.
        let suffix = format!("-{}", pod.node);
        let name = pod
            .name
            .strip_suffix(&suffix)
            .filter(|name| !name.is_empty())
            .unwrap_or(&pod.name);
        return Named::Final(entity("Pod", "", name.to_owned()));
    }
    let above = |above: &OwnerRef| Named::Final(entity(&above.kind, &above.api_group, above.name.clone()));
    match controller {
        Some(Controller {
            controller: Some(next),
            ..
        }) if owner.kind == "ReplicaSet" => above(next),
        Some(Controller {
            controller: Some(next),
            ..
        }) if owner.kind == "Job" && next.kind == "CronJob" => above(next),
        Some(known) => Named::Final(entity(
            &owner.kind,
            &owner.api_group,
            folded(&known.generate_name, &owner.name),
        )),
        None => {
            let direct = entity(&owner.kind, &owner.api_group, owner.name.clone());
            if owner.kind == "ReplicaSet" || owner.kind == "Job" {
                Named::Provisional(direct)
            } else {
                Named::Final(direct)
            }
        }
    }
}

/// A generated name folds to its prefix, so that a thousand runs are one workload.
fn folded(generate_name: &str, name: &str) -> String {
    let prefix = generate_name.trim_end_matches('-');
    if !prefix.is_empty() && name.starts_with(prefix) {
        prefix.to_owned()
    } else {
        name.to_owned()
    }
}
