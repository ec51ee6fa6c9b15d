//! What the graph says of simulated clusters, against the truth.

use crate::cluster::{Faults, Simulation, Truth, ZoneTruth};
use crate::passage::Outcome;

/// How many clusters to simulate; more by hand, with LEYLINE_SEEDS.
fn seeds() -> u64 {
    std::env::var("LEYLINE_SEEDS").map_or(3, |text| text.parse().unwrap())
}

/// Bytes by edge and zones.
fn placed(outcome: &Outcome) -> ZoneTruth {
    let zones = outcome.edges.iter().flat_map(|(name, edge)| {
        edge.zones.iter().map(move |zone| {
            let between = (name.clone(), zone.client.to_string(), zone.server.to_string());
            (between, zone.bytes)
        })
    });
    zones.collect()
}

/// Restarts lose bytes; what is left is where it was.
fn zones_are_no_guess(outcome: &Outcome) {
    for (between, bytes) in placed(outcome) {
        let most = outcome.zone_truth.get(&between).copied().unwrap_or(0);
        assert!(
            bytes <= most,
            "{between:?}: {bytes} of {most} bytes; {}",
            outcome.stats
        );
    }
}

#[test]
fn edges_and_their_totals_equal_the_truth() {
    for seed in 1..=seeds() {
        for masquerade in [false, true] {
            let outcome = Simulation::new(seed, masquerade, Faults::default()).run();
            let zones = placed(&outcome);
            let Outcome {
                edges,
                truth,
                zone_truth,
                stats,
            } = outcome;
            let observed: Truth = edges
                .into_iter()
                .map(|(name, edge)| {
                    assert_eq!(edge.totals.active, 0, "{name}");
                    (
                        name,
                        (
                            edge.totals.opened,
                            edge.totals.bytes_sent,
                            edge.totals.bytes_received,
                        ),
                    )
                })
                .collect();
            assert_eq!(observed, truth, "seed {seed}, masquerade {masquerade}: {stats}");
            assert_eq!(zones, zone_truth, "seed {seed}, masquerade {masquerade}: {stats}");
        }
    }
}

#[test]
fn restarting_agents_lose_counts_but_never_invent_or_lose_an_edge() {
    restarts(Faults {
        agents: true,
        ..Faults::default()
    });
}

#[test]
fn a_restarting_operator_neither_invents_nor_loses_an_edge() {
    restarts(Faults {
        operator: true,
        ..Faults::default()
    });
}

#[test]
fn everything_may_restart() {
    restarts(Faults {
        agents: true,
        operator: true,
        ..Faults::default()
    });
}

#[test]
fn whatever_agents_miss_becomes_no_edge_of_another_name() {
    let (mut seen, mut known) = (0, 0);
    for seed in 1..=3 * seeds() {
        for (masquerade, operator) in [(true, false), (true, true), (false, true)] {
            let faults = Faults {
                agents: true,
                operator,
                blindness: true,
            };
            let outcome = Simulation::new(seed, masquerade, faults).run();
            zones_are_no_guess(&outcome);
            let Outcome {
                edges, truth, stats, ..
            } = outcome;
            let invented: Vec<_> = edges
                .iter()
                .filter(|(name, _)| !truth.contains_key(*name))
                .collect();
            assert!(
                invented.is_empty(),
                "seed {seed}, masquerade {masquerade}, operator {operator}: {invented:?}; {stats}"
            );
            seen += edges.len();
            known += truth.len();
        }
    }
    // Nobody can name what only blind agents could have seen; most of it others saw as well.
    assert!(seen * 10 > known * 9, "{seen} of {known}");
}

fn restarts(faults: Faults) {
    for seed in 1..=seeds() {
        for masquerade in [false, true] {
            let outcome = Simulation::new(seed, masquerade, faults).run();
            zones_are_no_guess(&outcome);
            let Outcome {
                edges, truth, stats, ..
            } = outcome;
            for (name, edge) in edges.iter().filter(|(name, _)| !truth.contains_key(*name)) {
                println!("invented {name}: {edge:?}");
            }
            let observed: Vec<&String> = edges.keys().collect();
            let expected: Vec<&String> = truth.keys().collect();
            assert_eq!(
                observed, expected,
                "seed {seed}, masquerade {masquerade}: {stats}"
            );
            for (name, edge) in &edges {
                let (opened, sent, received) = truth[name];
                let totals = edge.totals;
                assert!(totals.opened <= opened, "{name}: {} of {opened}", totals.opened);
                assert!(
                    totals.bytes_sent <= sent && totals.bytes_received <= received,
                    "{name}"
                );
                assert_eq!(totals.active, 0, "{name}");
            }
        }
    }
}
