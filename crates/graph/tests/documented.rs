//! Whoever meets a reason in a condition or a metric finds it explained.

use leyline_graph::{Closed, Unnamed};

const PAGE: &str = include_str!("../../../docs/resolution.md");

#[test]
fn every_reason_has_its_row_with_what_to_do() {
    let (unnamed, closed) = PAGE.split_once("## When a connection is in no edge").unwrap();
    let rows = |part: &'static str, word: &str| {
        let start = format!("| {word} | ");
        let found: Vec<&str> = part.lines().filter(|line| line.starts_with(&start)).collect();
        assert_eq!(found.len(), 1, "rows that start with {start:?}");
        let columns: Vec<&str> = found[0].trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(columns.len(), 3, "{found:?}");
        assert!(columns.iter().all(|column| !column.is_empty()), "{found:?}");
    };
    for reason in Unnamed::ALL {
        rows(unnamed, reason.as_str());
    }
    for reason in Closed::ALL {
        rows(closed, reason.as_str());
    }
}
