//! All scenarios, by family.

mod churn;
mod failures;
mod hosts;
mod pods;
mod restarts;
mod services;
mod sockets;
mod topology;

use anyhow::{Result, ensure};

use super::scenario::Scenario;

/// What is known to be wrong, and why: in no table until it is right.
pub const KNOWN_WRONG: &[(&str, &str)] = &[];

/// Every scenario of the table; `seed` draws the random topology.
#[must_use]
pub fn all(seed: u64) -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(services::all());
    all.extend(hosts::all());
    all.extend(pods::all());
    all.extend(sockets::all());
    all.extend(failures::all());
    all.extend(churn::all());
    all.push(topology::topology(seed));
    all.extend(restarts::all());
    all
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
