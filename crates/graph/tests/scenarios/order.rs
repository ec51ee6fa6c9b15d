//! In whatever order things arrive, the same edges come out.

use std::collections::BTreeMap;

use crate::support::{
    N1, Random, World, client, conn, controller, owner, pod, process_client, process_server, server,
};
use leyline_graph::Config;
use leyline_graph::input::Controller;

type Step = Box<dyn Fn(&mut World)>;

/// A cluster with every way to name an end, as independent steps.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut step = |f: fn(&mut World)| steps.push(Box::new(f));
    step(|w| w.pod(pod("web-1").at("10.244.0.5").of("ReplicaSet", "web-7f")));
    step(|w| {
        let set = Controller {
            controller: Some(owner("apps", "Deployment", "web")),
            ..controller("ReplicaSet", "web-7f")
        };
        w.graph.apply_controller(set, w.time());
    });
    step(|w| {
        w.pod(
            pod("stable-1")
                .at("10.244.0.7")
                .of("Deployment", "stable")
                .probed(8080),
        )
    });
    step(|w| {
        w.pod(
            pod("canary-1")
                .on("n2")
                .at("10.244.1.7")
                .of("Deployment", "canary"),
        )
    });
    step(|w| {
        w.pod(
            pod("redis-0")
                .on("n2")
                .at("10.244.1.6")
                .of("StatefulSet", "redis"),
        )
    });
    step(|w| {
        w.pod(
            pod("logger-1")
                .on("n2")
                .host()
                .at("10.250.0.2")
                .of("DaemonSet", "logger"),
        )
    });
    step(|w| {
        w.graph
            .apply_service(crate::support::service("api", "10.96.0.8", 80), w.time())
    });
    step(|w| w.slice("api", 8080, &["stable-1", "canary-1"]));
    step(|w| {
        w.graph
            .apply_service(crate::support::service("redis", "10.96.0.9", 6379), w.time())
    });
    step(|w| w.slice("redis", 6380, &["redis-0"]));
    step(|w| {
        w.report(
            "n1",
            [client("web-1")
                .to("10.96.0.8", 80)
                .with([conn(1).bytes(1, 2), conn(2).bytes(3, 4).open()])],
        )
    });
    step(|w| {
        w.report(
            "n1",
            [client("web-1")
                .to("10.96.0.9", 6379)
                .with([conn(3).bytes(5, 6)])
                .refused(1)],
        )
    });
    step(|w| {
        w.report(
            "n1",
            [server("stable-1")
                .from("10.244.0.5", 8080)
                .with([conn(1).bytes(2, 1)])],
        )
    });
    step(|w| {
        w.report(
            "n2",
            [server("canary-1")
                .from(N1, 8080)
                .with([conn(2).bytes(4, 3).open()])],
        )
    });
    step(|w| {
        w.report(
            "n2",
            [server("redis-0").from(N1, 6380).with([conn(3).bytes(6, 5)])],
        )
    });
    step(|w| w.report("n2", [client("logger-1").to("10.244.0.7", 8080).with([conn(4)])]));
    step(|w| {
        w.report(
            "n1",
            [server("stable-1").from("10.250.0.2", 8080).with([conn(4)])],
        )
    });
    step(|w| {
        w.report(
            "n1",
            [process_client("kubelet.service")
                .to("10.244.0.7", 8080)
                .with([conn(5)])],
        )
    });
    step(|w| {
        w.report(
            "n1",
            [server("stable-1").from("10.244.0.1", 8080).with([conn(5)])],
        )
    });
    step(|w| w.report("n2", [client("redis-0").to(N1, 2379).with([conn(6)])]));
    step(|w| {
        w.report(
            "n1",
            [process_server("etcd").from("10.250.0.2", 2379).with([conn(6)])],
        )
    });
    step(|w| w.report("n2", [server("redis-0").from("10.250.0.2", 6380).with([conn(7)])]));
    step(|w| {
        w.report(
            "n1",
            [client("web-1").to("198.51.100.1", 443).unsplit().opened(2)],
        )
    });
    step(|w| w.report("n1", [server("web-1").from("192.168.3.3", 80).opened(2)]));
    steps
}

/// Runs the steps in this order, `gap` milliseconds apart.
fn run(order: &[usize], gap: i64) -> BTreeMap<String, String> {
    let steps = steps();
    let mut world = World::with(Config::default());
    for &index in order {
        steps[index](&mut world);
        world.pass(gap);
    }
    world.pass(30_000);
    world
        .edges()
        .into_iter()
        .map(|(name, edge)| {
            let facts = format!(
                "{:?} {:?} {:?} {:?} {:?}",
                edge.totals, edge.service, edge.evidence, edge.unresolved, edge.incomplete
            );
            (name, facts)
        })
        .collect()
}

#[test]
fn every_order_gives_the_same_edges() {
    let count = steps().len();
    let natural: Vec<usize> = (0..count).collect();
    let expected = run(&natural, 0);
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Address/10.250.0.2 -> StatefulSet/redis:6380",
            "DaemonSet/logger -> Deployment/stable:8080",
            "Deployment/web -> Address/198.51.100.1:443",
            "Deployment/web -> Deployment/canary:8080",
            "Deployment/web -> Deployment/stable:8080",
            "Deployment/web -> StatefulSet/redis:6380",
            "External/private -> Deployment/web:80",
            "StatefulSet/redis -> NodeProcess/etcd:2379",
        ]
    );
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..400 {
        let mut order = natural.clone();
        for index in (1..count).rev() {
            order.swap(index, random.below(index + 1));
        }
        // All at once, or so slowly that some of the waiting runs out and has to be made good.
        let gap = [0, 300, 500][round % 3];
        let observed = run(&order, gap);
        assert_eq!(observed, expected, "order {order:?}, {gap} ms apart");
    }
}
