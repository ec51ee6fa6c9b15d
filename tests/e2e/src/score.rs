//! Compares the edges that are there with the edges that must be there. Pure: text and JSON in, a verdict out.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use thiserror::Error;

/// Namespace of the objects whose client is in none.
const HOME: &str = "leyline-system";
/// How a missing namespace is written in the ground truth.
const NONE: &str = "-";

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// `Deployment`, `NodeProcess`, `Address`, …
    pub kind: String,
    /// Empty for ends that are in no namespace.
    pub namespace: String,
    /// Name of the workload, process, Service or outside end.
    pub name: String,
}

/// An edge without figures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Who called.
    pub client: End,
    /// Who answered.
    pub server: End,
    /// The port the server listens on.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub transport: String,
}

/// Why a ground truth or a list of objects cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ScoreError {
    /// A line of the ground truth has another number of columns.
    #[error("line {line} of the ground truth has {found} columns, not 8, separated by tabs")]
    Columns {
        /// Counted from 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// A port that is no port.
    #[error("line {line} of the ground truth: `{text}` is no port")]
    Port {
        /// Counted from 1.
        line: usize,
        /// What is there.
        text: String,
    },
    /// An object without a field that every object has.
    #[error("object {object} has no {field}")]
    Field {
        /// Namespace and name.
        object: String,
        /// JSON pointer of the field.
        field: &'static str,
    },
    /// Not a list of objects.
    #[error("the answer is no list of objects")]
    NoList,
}

/// An edge with the object that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What the object says.
    pub edge: Edge,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// What is wrong; nothing when all lists are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many edges were found that must be there.
    pub found: usize,
    /// Must be there, is not.
    pub missing: Vec<Edge>,
    /// Is there, must not be.
    pub extra: Vec<Edge>,
    /// Said by more than one object.
    pub duplicate: Vec<Edge>,
    /// Said by an object in a namespace that is not the client's: the edge, and where it is.
    pub misplaced: Vec<(Edge, String)>,
}

impl Edge {
    /// Whether an end is in one of the namespaces.
    #[must_use]
    pub fn touches(&self, namespaces: &[&str]) -> bool {
        [&self.client, &self.server]
            .iter()
            .any(|end| namespaces.contains(&end.namespace.as_str()))
    }

    pub(crate) fn home(&self) -> &str {
        if self.client.namespace.is_empty() {
            HOME
        } else {
            &self.client.namespace
        }
    }
}

impl Verdict {
    /// Whether exactly the expected edges are there.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let Self {
            found: _,
            missing,
            extra,
            duplicate,
            misplaced,
        } = self;
        missing.is_empty() && extra.is_empty() && duplicate.is_empty() && misplaced.is_empty()
    }
}

/// Reads a ground truth: eight columns separated by tabs, `#` begins a comment line, `-` is no namespace.
///
/// # Errors
/// When a line cannot be read.
pub fn parse_expected(text: &str) -> Result<Vec<Edge>, ScoreError> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()));
    lines
        .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
        .map(|(line, text)| row(line, text))
        .collect()
}

fn row(line: usize, text: &str) -> Result<Edge, ScoreError> {
    let columns: Vec<&str> = text.split('\t').collect();
    let [
        client_ns,
        client_kind,
        client,
        server_ns,
        server_kind,
        server,
        port,
        transport,
    ] = columns.as_slice()
    else {
        return Err(ScoreError::Columns {
            line,
            found: columns.len(),
        });
    };
    Ok(Edge {
        client: End::new(client_ns, client_kind, client),
        server: End::new(server_ns, server_kind, server),
        port: port.parse().map_err(|_| ScoreError::Port {
            line,
            text: (*port).to_owned(),
        })?,
        transport: (*transport).to_owned(),
    })
}

impl End {
    /// An end; `-` and the empty string are no namespace.
    #[must_use]
    pub fn new(namespace: &str, kind: &str, name: &str) -> Self {
        let namespace = if namespace == NONE { "" } else { namespace };
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn of(object: &str, value: Option<&Value>, field: &'static str) -> Result<Self, ScoreError> {
        let value = value.ok_or_else(|| ScoreError::Field {
            object: object.to_owned(),
            field,
        })?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        Ok(Self::new(text("namespace"), text("kind"), text("name")))
    }
}

/// Reads the answer of `kubectl get servicedependencies --all-namespaces --output=json`.
///
/// # Errors
/// When it is no list, or an object has no spec.
pub fn parse_observed(list: &Value) -> Result<Vec<Observed>, ScoreError> {
    let items = list
        .get("items")
        .and_then(Value::as_array)
        .ok_or(ScoreError::NoList)?;
    items.iter().map(object).collect()
}

/// Reads one ServiceDependency.
///
/// # Errors
/// When it has no spec.
pub fn object(item: &Value) -> Result<Observed, ScoreError> {
    let text = |pointer: &str| {
        item.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let object = format!("{namespace}/{name}");
    let port = item
        .pointer("/spec/port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    Ok(Observed {
        edge: Edge {
            client: End::of(&object, item.pointer("/spec/client"), "/spec/client")?,
            server: End::of(&object, item.pointer("/spec/server"), "/spec/server")?,
            port: port.ok_or_else(|| ScoreError::Field {
                object: object.clone(),
                field: "/spec/port",
            })?,
            transport: text("/spec/transport"),
        },
        namespace,
        name,
    })
}

/// Compares; edges without an end in `namespaces` do not count, on either side.
#[must_use]
pub fn score(expected: &[Edge], observed: &[Observed], namespaces: &[&str]) -> Verdict {
    let mut count: BTreeMap<&Edge, usize> = BTreeMap::new();
    let mut verdict = Verdict::default();
    for one in observed.iter().filter(|one| one.edge.touches(namespaces)) {
        *count.entry(&one.edge).or_default() += 1;
        if one.namespace != one.edge.home() {
            verdict.misplaced.push((one.edge.clone(), one.namespace.clone()));
        }
    }
    let mut wanted: Vec<&Edge> = expected.iter().filter(|edge| edge.touches(namespaces)).collect();
    wanted.sort();
    wanted.dedup();
    for edge in wanted {
        match count.remove(edge) {
            None => verdict.missing.push(edge.clone()),
            Some(objects) => {
                verdict.found += 1;
                if objects > 1 {
                    verdict.duplicate.push(edge.clone());
                }
            }
        }
    }
    verdict.extra = count.into_keys().cloned().collect();
    verdict
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        if namespace.is_empty() {
            write!(f, "{kind} {name}")
        } else {
            write!(f, "{kind} {namespace}/{name}")
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            server,
            port,
            transport,
        } = self;
        write!(f, "{client} → {server}:{port}/{transport}")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            found,
            missing,
            extra,
            duplicate,
            misplaced,
        } = self;
        write!(
            f,
            "{found} of {} expected edges, {} extra",
            found + missing.len(),
            extra.len()
        )?;
        for (word, edges) in [("missing", missing), ("extra", extra), ("duplicate", duplicate)] {
            for edge in edges {
                write!(f, "\n  {word}: {edge}")?;
            }
        }
        for (edge, place) in misplaced {
            write!(f, "\n  in the wrong namespace ({place}): {edge}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TRUTH: &str = "# comment\nred\tDeployment\ta\tred\tDeployment\tb\t80\tTCP\n\nred\tDeployment\ta\t-\tAddress\t192.0.2.1\t90\tTCP\n";

    fn item(namespace: &str, client: Value, server: Value, port: u16) -> Value {
        json!({
            "metadata": { "namespace": namespace, "name": "n" },
            "spec": { "client": client, "server": server, "port": port, "transport": "TCP" },
        })
    }

    fn workload(name: &str) -> Value {
        json!({ "kind": "Deployment", "namespace": "red", "name": name, "apiGroup": "apps" })
    }

    fn verdict(items: &[Value]) -> Verdict {
        let observed = parse_observed(&json!({ "items": items })).unwrap();
        score(&parse_expected(TRUTH).unwrap(), &observed, &["red"])
    }

    fn right() -> Vec<Value> {
        vec![
            item("red", workload("a"), workload("b"), 80),
            item(
                "red",
                workload("a"),
                json!({ "kind": "Address", "name": "192.0.2.1" }),
                90,
            ),
        ]
    }

    #[test]
    fn what_must_be_there_and_nothing_else_is_exact() {
        let verdict = verdict(&right());
        assert!(verdict.is_exact(), "{verdict}");
        assert_eq!(verdict.found, 2);
    }

    #[test]
    fn a_reversed_edge_is_missing_and_extra() {
        let mut items = right();
        items[0] = item("red", workload("b"), workload("a"), 80);
        let verdict = verdict(&items);
        assert_eq!((verdict.missing.len(), verdict.extra.len()), (1, 1));
        assert!(
            verdict
                .to_string()
                .contains("extra: Deployment red/b → Deployment red/a:80/TCP"),
            "{verdict}"
        );
    }

    #[test]
    fn an_ephemeral_port_is_extra() {
        let mut items = right();
        items.push(item("red", workload("a"), workload("b"), 40_000));
        assert_eq!(verdict(&items).extra.len(), 1);
    }

    #[test]
    fn two_objects_for_one_edge_are_a_duplicate() {
        let mut items = right();
        items.push(items[0].clone());
        let verdict = verdict(&items);
        assert_eq!(verdict.duplicate.len(), 1);
        assert!(!verdict.is_exact());
    }

    #[test]
    fn an_object_belongs_into_the_namespace_of_its_client() {
        let mut items = right();
        items[0]["metadata"]["namespace"] = "blue".into();
        assert_eq!(verdict(&items).misplaced.len(), 1);
        let outside = item(
            "leyline-system",
            json!({ "kind": "NodeProcess", "name": "sshd" }),
            workload("b"),
            80,
        );
        items = right();
        items.push(outside);
        let verdict = verdict(&items);
        assert_eq!((verdict.misplaced.len(), verdict.extra.len()), (0, 1));
    }

    #[test]
    fn other_namespaces_do_not_count() {
        let mut items = right();
        let other = json!({ "kind": "Deployment", "namespace": "blue", "name": "x" });
        items.push(item("blue", other.clone(), other, 1));
        assert!(verdict(&items).is_exact());
    }

    #[test]
    fn a_ground_truth_with_a_fault_is_refused_by_line() {
        assert_eq!(
            parse_expected("a\tb"),
            Err(ScoreError::Columns { line: 1, found: 2 })
        );
        let row = "#\nn\tk\ta\tn\tk\tb\thttp\tTCP";
        assert_eq!(
            parse_expected(row),
            Err(ScoreError::Port {
                line: 2,
                text: "http".to_owned()
            })
        );
    }

    #[test]
    fn an_object_without_spec_is_an_error_not_a_missing_edge() {
        assert!(parse_observed(&json!({ "items": [{ "metadata": { "name": "n" } }] })).is_err());
        assert_eq!(parse_observed(&json!({})), Err(ScoreError::NoList));
    }
}
