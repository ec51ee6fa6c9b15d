//! One end of a dependency, as objects name it.
//!
//! Whatever comes in, the result is legal for the schema: hostile or overlong text is rewritten and hashed, so that an
//! apply never fails because of a name and two different inputs never become the same end.

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives private copies of the public structs"
)]

use kube_derive::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::names;

/// Longest `kind` and `namespace`.
const LABEL_LENGTH: usize = 63;
/// Kinds of ends that are in no namespace; the schema refuses one.
const WITHOUT_NAMESPACE: [&str; 4] = ["NodeProcess", "Host", "External", "Address"];
/// Longest `name` and `apiGroup`.
const NAME_LENGTH: usize = 253;

/// One end of a dependency: a workload, a node process, a Service, an outside machine, or a plain address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new(
        "!(self.kind in ['NodeProcess', 'Host', 'External', 'Address']) || !has(self.__namespace__)"
    ).message("ends of kind NodeProcess, Host, External and Address are in no namespace")
)]
pub struct EntityRef {
    /// What this end is: the kind of a workload (Deployment, StatefulSet, DaemonSet, CronJob, Job, Pod or a custom kind),
    /// Service (the Service was addressed and nothing is known about who answered),
    /// NodeProcess (a process outside pods, folded over all nodes), Host (a named machine outside the cluster),
    /// External (a DNS name, or world, private or other), or Address (an address that nothing could be proven about).
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[!-~]+$"))]
    pub kind: String,

    /// Namespace of this end; absent for ends that are in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[!-~]+$"))]
    pub namespace: Option<String>,

    /// Name of the workload, Service, unit or executable, outside name, or address.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-~]+$"))]
    pub name: String,

    /// API group of kind; absent for the core group and for ends that are not Kubernetes objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-~]+$"))]
    pub api_group: Option<String>,
}

impl EntityRef {
    /// An end that the schema accepts. Empty `api_group` and `namespace` mean that there is none.
    #[must_use]
    pub fn new(kind: &str, api_group: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: legal(kind, LABEL_LENGTH),
            namespace: (!namespace.is_empty() && !WITHOUT_NAMESPACE.contains(&kind))
                .then(|| legal(namespace, LABEL_LENGTH)),
            name: legal(name, NAME_LENGTH),
            api_group: (!api_group.is_empty()).then(|| legal(api_group, NAME_LENGTH)),
        }
    }

    /// The namespace, empty when there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The API group, empty when there is none.
    #[must_use]
    pub fn api_group(&self) -> &str {
        self.api_group.as_deref().unwrap_or_default()
    }
}

/// Printable ASCII without blanks, 1 to `limit` characters; anything that had to be changed carries a hash of what it was.
fn legal(text: &str, limit: usize) -> String {
    if !text.is_empty() && text.len() <= limit && text.bytes().all(|b| b.is_ascii_graphic()) {
        return text.to_owned();
    }
    let keep = limit - names::HASH_LENGTH - 1;
    let kept: String = text
        .chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '-' })
        .take(keep)
        .collect();
    format!("{kept}-{}", names::hash([text]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        let end = EntityRef::new("Deployment", "apps", "shop", "cart");
        assert_eq!(
            (end.kind.as_str(), end.api_group(), end.namespace()),
            ("Deployment", "apps", "shop")
        );
        assert_eq!(end.name, "cart");
        assert_eq!(
            EntityRef::new("NodeProcess", "", "", "kubelet.service").namespace,
            None
        );
    }

    #[test]
    fn hostile_names_become_legal_and_stay_distinct() {
        let names = [
            "",
            " ",
            "\0",
            "\u{202e}evil",
            &"x".repeat(253),
            &"x".repeat(254),
            &"ü".repeat(300),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let end = EntityRef::new(name, name, name, name);
            assert!((1..=NAME_LENGTH).contains(&end.name.len()), "{:?}", end.name);
            assert!((1..=LABEL_LENGTH).contains(&end.kind.len()), "{:?}", end.kind);
            assert!(end.name.bytes().all(|b| b.is_ascii_graphic()), "{:?}", end.name);
            assert!(seen.insert(end.name.clone()), "{:?} twice", end.name);
        }
    }
}
