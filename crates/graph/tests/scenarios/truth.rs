//! What the graph says of simulated clusters, against the truth.

use crate::cluster::{Faults, Simulation, Truth};

/// How many clusters to simulate; more by hand, with LEYLINE_SEEDS.
fn seeds() -> u64 {
    std::env::var("LEYLINE_SEEDS").map_or(3, |text| text.parse().unwrap())
}

#[test]
fn edges_and_their_totals_equal_the_truth() {
    for seed in 1..=seeds() {
        for masquerade in [false, true] {
            let (edges, truth, stats) = Simulation::new(seed, masquerade, Faults::default()).run();
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
        }
    }
}

#[test]
fn restarting_agents_lose_counts_but_never_invent_or_lose_an_edge() {
    restarts(Faults {
        agents: true,
        operator: false,
    });
}

#[test]
fn a_restarting_operator_neither_invents_nor_loses_an_edge() {
    restarts(Faults {
        agents: false,
        operator: true,
    });
}

#[test]
fn everything_may_restart() {
    restarts(Faults {
        agents: true,
        operator: true,
    });
}

fn restarts(faults: Faults) {
    for seed in 1..=seeds() {
        for masquerade in [false, true] {
            let (edges, truth, stats) = Simulation::new(seed, masquerade, faults).run();
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
