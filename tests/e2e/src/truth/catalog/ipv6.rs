//! The other family of addresses. The test cluster has both.

use serde_json::json;

use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::scenario::{Scenario, scenario};

const PORT: &str = "9000";

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![only_ipv6(), headless(), dual_stack()]
}

fn only_ipv6() -> Scenario {
    scenario(
        "ipv6-cluster-ip",
        "A Service with an IPv6 address only: the same as any other Service.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(2))
    .service_of(
        "api",
        json!({
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"], "selector": { "app": "server" },
            "ports": [{ "port": 80, "targetPort": 9000 }],
        }),
    )
    .with(actor("one").on(NODE_A).call("to=api:80,count=15"), Shape::Job)
    .with(
        actor("two").on(NODE_B).call("to=api:80,count=15,close=server"),
        Shape::Job,
    )
}

fn headless() -> Scenario {
    scenario(
        "ipv6-headless",
        "The name leads to the pods' own IPv6 addresses: the edge is to their workload.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service_of(
        "api",
        json!({
            "clusterIP": "None", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"],
            "selector": { "app": "server" }, "ports": [{ "port": 9000 }],
        }),
    )
    .with(actor("one").on(NODE_A).call("to=api:9000,count=15"), Shape::Job)
    .with(actor("two").on(NODE_B).call("to=api:9000,count=15"), Shape::Job)
}

fn dual_stack() -> Scenario {
    scenario(
        "dual-stack",
        "One workload behind Services of either family: one edge per client, whichever it used, with the sum of both.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service_of(
        "four",
        json!({
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "selector": { "app": "server" },
            "ports": [{ "port": 80, "targetPort": 9000 }],
        }),
    )
    .service_of(
        "both",
        json!({
            "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"], "selector": { "app": "server" },
            "ports": [{ "port": 80, "targetPort": 9000 }],
        }),
    )
    .with(
        actor("client").on(NODE_B).call("to=four:80,count=10").call("to=both:80,count=10"),
        Shape::Job,
    )
}
