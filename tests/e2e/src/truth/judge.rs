//! Compares the objects with the ground truth: precision, recall, figures. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::join::{Figures, Fold, Truth, fold_addresses};
use crate::edges::Dependency;
use crate::score::Edge;

/// Bytes may differ by this part: 1 %.
const BYTES_PART: u64 = 100;

/// How exactly the figures must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exactness {
    /// Connections exactly, bytes within 1 %.
    #[default]
    Exact,
    /// Somebody was blind meanwhile: not more than the truth. The edges themselves are exact all the same.
    NotMore,
}

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Edges there must be.
    pub expected: usize,
    /// Edges that are there.
    pub shown: usize,
    /// Edges in both.
    pub right: usize,
    /// Everything that is wrong, one line each.
    pub problems: Vec<String>,
}

impl Verdict {
    /// A scenario that could not be judged.
    #[must_use]
    pub fn unknown(reason: &str) -> Self {
        Self {
            problems: vec![reason.to_owned()],
            ..Self::default()
        }
    }

    /// Everything is as it must be.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.problems.is_empty()
    }

    /// The part of the shown edges that is right; nothing shown is nothing wrong.
    #[must_use]
    pub fn precision(&self) -> f64 {
        part(self.right, self.shown)
    }

    /// The part of the true edges that is shown.
    #[must_use]
    pub fn recall(&self) -> f64 {
        part(self.right, self.expected)
    }
}

/// A part in percent.
#[must_use]
pub fn part(some: usize, of: usize) -> f64 {
    if of == 0 {
        100.0
    } else {
        100.0 * some as f64 / of as f64
    }
}

/// Compares. `shown`: the objects that touch the scenario; only TCP is judged.
#[must_use]
pub fn judge(truth: &Truth, shown: &[Dependency], exactness: Exactness, fold: Fold) -> Verdict {
    let shown: Vec<&Dependency> = shown.iter().filter(|it| it.edge.transport == "TCP").collect();
    let folded = match fold {
        Fold::Addresses(limit) => {
            let edges: Vec<Edge> = shown.iter().map(|it| it.edge.clone()).collect();
            Some(fold_addresses(truth, &edges, limit))
        }
        Fold::None | Fold::Ports => None,
    };
    let truth = folded.as_ref().unwrap_or(truth);
    let mut verdict = Verdict {
        expected: truth.len(),
        shown: shown.len(),
        ..Verdict::default()
    };
    let mut by_edge: BTreeMap<&Edge, &Dependency> = BTreeMap::new();
    for one in &shown {
        if by_edge.insert(&one.edge, one).is_some() {
            verdict.problems.push(format!("two objects for {}", one.edge));
        }
        if one.namespace != one.edge.home() {
            verdict.problems.push(format!(
                "in the wrong namespace ({}): {}",
                one.namespace, one.edge
            ));
        }
    }
    let mut wrong: BTreeSet<&Edge> = BTreeSet::new();
    for (edge, figures) in truth {
        match by_edge.get(edge) {
            None => verdict
                .problems
                .push(format!("missing: {edge} ({})", text(figures))),
            Some(one) => {
                verdict.right += 1;
                let found = figures_of(figures, one, exactness);
                if !found.is_empty() {
                    wrong.insert(edge);
                }
                verdict.problems.extend(found);
            }
        }
    }
    for (edge, one) in by_edge {
        if !truth.contains_key(edge) {
            verdict.problems.push(format!("extra: {edge} {}", said(one)));
        } else if wrong.contains(edge) {
            verdict
                .problems
                .push(format!("    the object says {}", said(one)));
        }
    }
    verdict
}

fn figures_of(truth: &Figures, one: &Dependency, exactness: Exactness) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |what: &str, seen: u64, wanted: String| {
        problems.push(format!("{}: {what} {seen} instead of {wanted}", one.edge));
    };
    let (least, most) = (truth.opened, truth.opened + truth.unsure);
    let opened = one.opened();
    let enough = opened >= least || exactness == Exactness::NotMore;
    if !enough || opened > most {
        wrong("connections.opened", opened, format!("{least} to {most}"));
    }
    for reason in ["refused", "timedOut", "unreachable", "reset"] {
        let (seen, wanted) = (
            one.figure(&format!("/connections/failures/{reason}")),
            truth.failed.get(reason).copied().unwrap_or_default(),
        );
        if seen > wanted || (seen < wanted && exactness == Exactness::Exact) {
            wrong(&format!("failures.{reason}"), seen, wanted.to_string());
        }
    }
    if truth.ended && exactness == Exactness::Exact {
        for (what, wanted) in [("sent", truth.sent), ("received", truth.received)] {
            let seen = one.figure(&format!("/bytes/{what}"));
            if seen.abs_diff(wanted) * BYTES_PART > wanted {
                wrong(&format!("bytes.{what}"), seen, wanted.to_string());
            }
        }
    }
    if truth.ended && one.figure("/connections/active") != 0 {
        wrong(
            "connections.active",
            one.figure("/connections/active"),
            "0".to_owned(),
        );
    }
    if truth.opened == 0 && truth.unsure == 0 && one.text("/state") != "Failing" {
        problems.push(format!(
            "{}: state {} instead of Failing",
            one.edge,
            one.text("/state")
        ));
    }
    let named = !["Address", "External"].contains(&one.edge.server.kind.as_str())
        && !["Address", "External", "Service"].contains(&one.edge.client.kind.as_str())
        && one.edge.server.kind != "Service";
    if named && one.condition("Resolved").0 != "True" {
        problems.push(format!(
            "{}: Resolved is {:?}",
            one.edge,
            one.condition("Resolved")
        ));
    }
    problems
}

fn text(figures: &Figures) -> String {
    let Figures {
        opened,
        unsure,
        failed,
        sent,
        received,
        ended: _,
    } = figures;
    format!("{opened}+{unsure} opened, failed {failed:?}, {sent} bytes sent, {received} received")
}

fn said(one: &Dependency) -> String {
    let field = |name: &str| one.status.get(name).cloned().unwrap_or_default();
    format!(
        "[{}/{}: connections {}, bytes {}, evidence {}, service {}, Resolved {:?}, Complete {:?}]",
        one.namespace,
        one.name,
        field("connections"),
        field("bytes"),
        field("evidence"),
        field("service"),
        one.condition("Resolved"),
        one.condition("Complete"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::End;
    use serde_json::json;

    fn edge(server: &str) -> Edge {
        Edge {
            client: End::new("red", "Job", "c"),
            server: End::new("red", "Deployment", server),
            port: 9000,
            transport: "TCP".to_owned(),
        }
    }

    fn truth() -> Truth {
        let figures = Figures {
            opened: 10,
            sent: 1000,
            received: 20_000,
            ended: true,
            ..Figures::default()
        };
        Truth::from([(edge("s"), figures)])
    }

    fn object(edge: Edge, opened: u64, sent: u64) -> Dependency {
        Dependency {
            namespace: edge.home().to_owned(),
            edge,
            name: "n".to_owned(),
            uid: String::new(),
            status: json!({
                "state": "Active", "connections": { "opened": opened, "active": 0 },
                "bytes": { "sent": sent, "received": 20_000 },
                "conditions": [{ "type": "Resolved", "status": "True", "reason": "Named" }],
            }),
            object: json!({}),
        }
    }

    fn judged(shown: &[Dependency]) -> Verdict {
        judge(&truth(), shown, Exactness::Exact, Fold::None)
    }

    #[test]
    fn what_is_right_is_a_hundred_percent() {
        let verdict = judged(&[object(edge("s"), 10, 1009)]);
        assert!(verdict.is_exact(), "{verdict:?}");
        assert_eq!((verdict.precision(), verdict.recall()), (100.0, 100.0));
    }

    #[test]
    fn a_missing_and_an_extra_edge_are_named() {
        let verdict = judged(&[object(edge("other"), 10, 1000)]);
        assert_eq!((verdict.precision(), verdict.recall()), (0.0, 0.0));
        let text = verdict.problems.join("\n");
        assert!(
            text.contains("missing: Job red/c → Deployment red/s:9000"),
            "{text}"
        );
        assert!(
            text.contains("extra: Job red/c → Deployment red/other:9000"),
            "{text}"
        );
    }

    #[test]
    fn an_extra_edge_beside_the_right_one_lowers_precision_only() {
        let verdict = judged(&[object(edge("s"), 10, 1000), object(edge("x"), 1, 1)]);
        assert_eq!((verdict.precision(), verdict.recall()), (50.0, 100.0));
        assert!(!verdict.is_exact());
    }

    #[test]
    fn a_count_that_is_one_too_low_or_bytes_two_percent_off_are_wrong() {
        for (opened, sent) in [(9, 1000), (11, 1000), (10, 1020), (10, 980)] {
            assert!(
                !judged(&[object(edge("s"), opened, sent)]).is_exact(),
                "{opened} {sent}"
            );
        }
    }

    #[test]
    fn who_was_blind_may_count_less_and_never_more() {
        let shown = |opened| [object(edge("s"), opened, 0)];
        assert!(judge(&truth(), &shown(3), Exactness::NotMore, Fold::None).is_exact());
        assert!(!judge(&truth(), &shown(11), Exactness::NotMore, Fold::None).is_exact());
    }

    #[test]
    fn an_edge_of_failures_only_must_say_so() {
        let failed = Figures {
            failed: BTreeMap::from([("refused", 2)]),
            ended: true,
            ..Figures::default()
        };
        let truth = Truth::from([(edge("s"), failed)]);
        let mut one = object(edge("s"), 0, 0);
        one.status["connections"]["failures"] = json!({ "refused": 2 });
        one.status["bytes"] = json!({});
        assert!(!judge(&truth, std::slice::from_ref(&one), Exactness::Exact, Fold::None).is_exact());
        one.status["state"] = "Failing".into();
        assert!(judge(&truth, &[one], Exactness::Exact, Fold::None).is_exact());
    }

    #[test]
    fn an_unresolved_end_that_has_a_name_is_wrong() {
        let mut one = object(edge("s"), 10, 1000);
        one.status["conditions"][0]["status"] = "False".into();
        assert!(!judged(&[one]).is_exact());
    }
}
