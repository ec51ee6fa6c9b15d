//! ServiceDependency objects as a user reads them: the edge and its figures.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::score::{self, Edge, End};

/// The resource, with its group: no other short form may hide it.
pub const RESOURCE: &str = "servicedependencies.leyline.dev";

/// One object with what the tests look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// Who depends on whom.
    pub edge: Edge,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Changes when the object is deleted and made again.
    pub uid: String,
    /// `.status`; null while there is none.
    pub status: Value,
    /// The whole object.
    pub object: Value,
}

impl Dependency {
    fn of(item: &Value) -> Result<Self> {
        let score::Observed {
            edge,
            namespace,
            name,
        } = score::object(item)?;
        let uid = item
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let status = item.get("status").cloned().unwrap_or(Value::Null);
        Ok(Self {
            edge,
            namespace,
            name,
            uid,
            status,
            object: item.clone(),
        })
    }

    /// A figure of the status, 0 when it is absent: `/connections/opened`.
    #[must_use]
    pub fn figure(&self, pointer: &str) -> u64 {
        self.status
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }

    /// A text of the status, empty when it is absent: `/firstSeen`.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.status
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Connections opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.figure("/connections/opened")
    }

    /// Status and reason of a condition; empty when it is absent.
    #[must_use]
    pub fn condition(&self, kind: &str) -> (&str, &str) {
        let conditions = self
            .status
            .get("conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let text = |condition: &'_ Value, key: &str| -> Option<String> {
            condition.get(key).and_then(Value::as_str).map(str::to_owned)
        };
        let found = conditions
            .into_iter()
            .find(|condition| text(condition, "type").as_deref() == Some(kind));
        let field = |key: &str| {
            found
                .and_then(|it| it.get(key))
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        (field("status"), field("reason"))
    }
}

/// The list of all objects, as the API server gives it. By path: kubectl remembers for minutes that a kind was unknown.
///
/// # Errors
/// When the API server does not answer.
pub fn list(kubectl: &Kubectl) -> Result<Value> {
    let printed = kubectl.run(&["get", "--raw", "/apis/leyline.dev/v1alpha1/servicedependencies"])?;
    serde_json::from_str(&printed.output).context("the list of dependencies is not JSON")
}

/// All objects of the cluster.
///
/// # Errors
/// When the API server does not answer, or an object cannot be read.
pub fn all(kubectl: &Kubectl) -> Result<Vec<Dependency>> {
    let list = list(kubectl)?;
    let items = list
        .get("items")
        .and_then(Value::as_array)
        .context("the answer is no list")?;
    items.iter().map(Dependency::of).collect()
}

/// The objects with an end in a namespace.
///
/// # Errors
/// As [`all`].
pub fn touching(kubectl: &Kubectl, namespace: &str) -> Result<Vec<Dependency>> {
    let mut found = all(kubectl)?;
    found.retain(|one| one.edge.touches(&[namespace]));
    Ok(found)
}

/// The edges of the whole cluster that have a bare address at an end.
///
/// # Errors
/// As [`all`].
pub fn with_a_bare_address(kubectl: &Kubectl) -> Result<BTreeSet<Edge>> {
    let edges = all(kubectl)?.into_iter().map(|one| one.edge);
    Ok(edges
        .filter(|edge| {
            [&edge.client, &edge.server]
                .iter()
                .any(|end| end.kind == "Address")
        })
        .collect())
}

/// The one object for an edge.
///
/// # Errors
/// When there is none, or more than one.
pub fn one(kubectl: &Kubectl, edge: &Edge) -> Result<Dependency> {
    let mut found = all(kubectl)?;
    found.retain(|one| one.edge == *edge);
    ensure!(found.len() == 1, "{} objects for {edge}", found.len());
    found.pop().context("one object")
}

/// A TCP edge.
#[must_use]
pub fn tcp(client: End, server: End, port: u16) -> Edge {
    Edge {
        client,
        server,
        port,
        transport: "TCP".to_owned(),
    }
}

/// Exactly these edges have an end in the namespace.
///
/// # Errors
/// With what is missing and what is extra.
pub fn exactly(kubectl: &Kubectl, namespace: &str, expected: &[Edge]) -> Result<Vec<Dependency>> {
    let found = touching(kubectl, namespace)?;
    let observed: Vec<score::Observed> = found
        .iter()
        .map(|one| score::Observed {
            edge: one.edge.clone(),
            namespace: one.namespace.clone(),
            name: one.name.clone(),
        })
        .collect();
    let verdict = score::score(expected, &observed, &[namespace]);
    ensure!(verdict.is_exact(), "{verdict}");
    Ok(found)
}
