//! Which test programs belong to which level. Every test program of the workspace belongs to exactly one, so that a new
//! file under `tests/` cannot be forgotten.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Level;
use crate::step::output;
use crate::workspace;

/// What one call of `cargo test` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// The tests beside the code of all default members.
    BesideTheCode,
    /// Test programs of one package.
    Programs { package: String, tests: Vec<String> },
}

impl Selection {
    pub(super) fn cargo_args(&self) -> Vec<String> {
        match self {
            Self::BesideTheCode => vec![
                "--all-features".to_owned(),
                "--lib".to_owned(),
                "--bins".to_owned(),
            ],
            Self::Programs { package, tests } => {
                let mut args = vec!["--package".to_owned(), package.clone()];
                args.extend(tests.iter().flat_map(|test| ["--test".to_owned(), test.clone()]));
                args
            }
        }
    }
}

/// What the level runs; empty when there is nothing, which is an error of that level.
pub(super) fn of(level: Level) -> Result<Vec<Selection>> {
    let text = output(workspace::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))
        .context("list the packages of the workspace")?;
    let metadata: Metadata = serde_json::from_str(&text).context("read cargo's list of packages")?;
    Ok(select(level, &metadata))
}

fn select(level: Level, metadata: &Metadata) -> Vec<Selection> {
    let mut selections = Vec::new();
    if level == Level::Unit {
        selections.push(Selection::BesideTheCode);
    }
    let mut programs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for package in &metadata.packages {
        for target in package
            .targets
            .iter()
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        {
            if level_of(&package.name, &target.name) == level {
                programs
                    .entry(&package.name)
                    .or_default()
                    .push(target.name.clone());
            }
        }
    }
    selections.extend(programs.into_iter().map(|(package, tests)| Selection::Programs {
        package: package.to_owned(),
        tests,
    }));
    selections
}

fn level_of(package: &str, test: &str) -> Level {
    match (package, test) {
        ("leyline-e2e", _) => Level::E2e,
        ("leyline-node-agent", name) if name.starts_with("ebpf") => Level::Ebpf,
        ("leyline-operator", name) if name.starts_with("api") => Level::Api,
        (_, name) if name.starts_with("golden") => Level::Golden,
        _ => Level::Unit,
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        serde_json::from_str(
            r#"{"packages": [
                {"name": "leyline-api", "targets": [{"name": "golden", "kind": ["test"]}, {"name": "leyline_api", "kind": ["lib"]}]},
                {"name": "leyline-node-agent", "targets": [{"name": "ebpf", "kind": ["test"]}, {"name": "reports", "kind": ["test"]}]},
                {"name": "leyline-operator", "targets": [{"name": "api", "kind": ["test"]}]},
                {"name": "leyline-e2e", "targets": [{"name": "faults", "kind": ["test"]}, {"name": "shop", "kind": ["test"]}]}
            ]}"#,
        )
        .unwrap()
    }

    fn programs(level: Level) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for selection in select(level, &metadata()) {
            if let Selection::Programs { package, tests } = selection {
                all.extend(tests.iter().map(|test| format!("{package}/{test}")));
            }
        }
        all
    }

    #[test]
    fn every_test_program_belongs_to_exactly_one_level() {
        let all: Vec<String> = Level::ALL.into_iter().flat_map(programs).collect();
        assert_eq!(all.len(), 6, "{all:?}");
    }

    #[test]
    fn levels_are_recognised_by_package_and_name() {
        assert_eq!(programs(Level::Ebpf), ["leyline-node-agent/ebpf"]);
        assert_eq!(programs(Level::Api), ["leyline-operator/api"]);
        assert_eq!(programs(Level::E2e), ["leyline-e2e/faults", "leyline-e2e/shop"]);
        assert_eq!(programs(Level::Golden), ["leyline-api/golden"]);
        assert_eq!(programs(Level::Unit), ["leyline-node-agent/reports"]);
    }

    #[test]
    fn unit_runs_the_tests_beside_the_code_first() {
        assert_eq!(select(Level::Unit, &metadata())[0], Selection::BesideTheCode);
    }
}
