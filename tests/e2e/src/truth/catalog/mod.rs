//! All scenarios, by family.

mod churn;
mod failures;
mod hosts;
mod ipv6;
mod network;
mod pods;
mod restarts;
mod services;
mod sockets;
mod topology;

use std::ops::Range;

use anyhow::{Result, ensure};

use super::scenario::Scenario;

/// What is in no table yet, and why. Every run prints it.
pub const KNOWN_WRONG: &[(&str, &str)] = &[
    (
        "transparent-proxy",
        "a proxy behind a redirect inside the pod: the rule that gives its half the port of the Service is not built",
    ),
    (
        "clocks-apart",
        "two agents whose clocks differ by a minute: nothing injects that yet",
    ),
    ("udp, dns, names", "not built yet, or not judged yet"),
];

/// Every scenario of the table; `seed` draws the random topology.
#[must_use]
pub fn all(seed: u64) -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(services::all());
    all.extend(ipv6::all());
    all.extend(hosts::all());
    all.extend(pods::all());
    all.extend(sockets::all());
    all.extend(failures::all());
    all.extend(churn::all());
    all.push(topology::topology("random-topology", seed));
    all.extend(network::all());
    all.extend(restarts::all());
    all
}

/// The random topologies of further numbers.
#[must_use]
pub fn topologies(seeds: Range<u64>) -> Vec<Scenario> {
    seeds
        .map(|seed| topology::topology(&format!("random-{seed}"), seed))
        .collect()
}

/// The scenarios with these names; none named: all. `seed` draws the random topology.
///
/// # Errors
/// With all names when there is none of that name.
pub fn named(seed: u64, names: &[String]) -> Result<Vec<Scenario>> {
    let mut all = all(seed);
    let known: Vec<String> = all.iter().map(|it| it.name.clone()).collect();
    for name in names {
        ensure!(
            known.contains(name),
            "no scenario {name}; there are {}",
            known.join(", ")
        );
    }
    all.retain(|it| names.is_empty() || names.contains(&it.name));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What a kubelet takes by default, on two nodes that run other pods as well.
    const MOST_PODS: usize = 180;

    #[test]
    fn every_scenario_has_a_name_of_its_own_a_rule_and_room() {
        let all = all(1);
        let names: BTreeSet<&str> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.len() >= 45, "{}", names.len());
        assert!(
            all.iter()
                .all(|it| it.rule.len() > 20 && it.namespace().len() < 40)
        );
        let pods: usize = all.iter().map(Scenario::pods).sum();
        assert!(pods <= MOST_PODS, "{pods} pods");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_there_are() {
        let error = named(1, &["canery".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("canery") && error.contains("canary"), "{error}");
        assert_eq!(named(1, &["canary".to_owned()]).unwrap().len(), 1);
    }
}
