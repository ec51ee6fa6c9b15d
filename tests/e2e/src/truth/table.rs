//! The result for people and for programs.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::judge::{Verdict, part};

/// What came out of one scenario.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub rule: String,
    /// Connections that the applications counted.
    pub connections: u64,
    /// The comparison.
    pub verdict: Verdict,
}

/// Precision and recall over all edges of all scenarios.
#[must_use]
pub fn overall(rows: &[Row]) -> (f64, f64) {
    let sum = |of: fn(&Verdict) -> usize| rows.iter().map(|row| of(&row.verdict)).sum::<usize>();
    let right = sum(|it| it.right);
    (
        part(right, sum(|it| it.shown)),
        part(right, sum(|it| it.expected)),
    )
}

/// Every scenario is exact.
///
/// # Errors
/// With how many are not.
pub fn ensure_exact(rows: &[Row]) -> Result<()> {
    let wrong = rows.iter().filter(|row| !row.verdict.is_exact()).count();
    ensure!(
        wrong == 0,
        "{wrong} of {} scenarios are not what the applications did",
        rows.len()
    );
    Ok(())
}

/// The table, what is wrong, and the sum.
#[must_use]
pub fn print(rows: &[Row], known_wrong: &[(&str, &str)]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").unwrap_or_default();
    line(format_args!(
        "{:<28} {:>5} {:>5} {:>9} {:>9} {:>7}  figures",
        "scenario", "true", "shown", "precision", "recall", "opened"
    ));
    for row in rows {
        let it = &row.verdict;
        let edges = it.right == it.shown && it.right == it.expected;
        let word = match (it.is_exact(), edges) {
            (true, _) => "exact",
            (false, true) => "WRONG",
            (false, false) => "WRONG EDGES",
        };
        line(format_args!(
            "{:<28} {:>5} {:>5} {:>8.1}% {:>8.1}% {:>7}  {word}",
            row.name,
            it.expected,
            it.shown,
            it.precision(),
            it.recall(),
            row.connections
        ));
    }
    for row in rows.iter().filter(|row| !row.verdict.is_exact()) {
        line(format_args!("\n{}: {}", row.name, row.rule));
        for problem in &row.verdict.problems {
            line(format_args!("  {problem}"));
        }
    }
    let (precision, recall) = overall(rows);
    let exact = rows.iter().filter(|row| row.verdict.is_exact()).count();
    line(format_args!(
        "\n{exact} of {} scenarios exact; over all edges precision {precision:.1} %, recall {recall:.1} %",
        rows.len()
    ));
    if !known_wrong.is_empty() {
        line(format_args!("\nnot in the table yet:"));
    }
    for (name, why) in known_wrong {
        line(format_args!("  {name}: {why}"));
    }
    text
}

/// The same for programs.
#[must_use]
pub fn json(rows: &[Row], known_wrong: &[(&str, &str)]) -> Value {
    let (precision, recall) = overall(rows);
    let all: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name, "rule": row.rule, "exact": row.verdict.is_exact(), "connections": row.connections,
                "expected": row.verdict.expected, "shown": row.verdict.shown, "right": row.verdict.right,
                "precision": row.verdict.precision(), "recall": row.verdict.recall(), "problems": row.verdict.problems,
            })
        })
        .collect();
    let known: Vec<Value> = known_wrong
        .iter()
        .map(|(name, why)| json!({ "name": name, "why": why }))
        .collect();
    json!({ "precision": precision, "recall": recall, "scenarios": all, "knownWrong": known })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_edge_is_seen_in_row_sum_and_reason() {
        let right = Verdict {
            expected: 3,
            shown: 3,
            right: 3,
            problems: Vec::new(),
        };
        let wrong = Verdict {
            expected: 1,
            shown: 1,
            right: 0,
            problems: vec!["missing: a → b".to_owned()],
        };
        let row = |name: &str, verdict: &Verdict| Row {
            name: name.to_owned(),
            rule: "the rule".to_owned(),
            connections: 1,
            verdict: verdict.clone(),
        };
        let rows = [row("good", &right), row("bad", &wrong)];
        assert_eq!(overall(&rows), (75.0, 75.0));
        let text = print(&rows, &[("later", "why")]);
        for part in [
            "bad: the rule",
            "missing: a → b",
            "1 of 2 scenarios exact",
            "later: why",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(json(&rows, &[])["scenarios"][1]["exact"], false);
    }
}
