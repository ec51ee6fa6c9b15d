//! What a newcomer reads in `kubectl describe` about an end without a name: which end, what is known, what to do next.

mod world;

use leyline_api::ConditionType;
use leyline_graph::{End, Unnamed, Unresolved};
use leyline_plan::Adopted;
use world::{MINUTE, World, key};

const CLIENT_NODE_ADDRESS: &str = "client: a node's address, and no socket on that node was seen: likely a client \
    outside the cluster that came through a NodePort or load balancer (externalTrafficPolicy Local would keep its own \
    address). Else check that a Leyline agent is ready there";
const SERVER_NODE_ADDRESS: &str = "server: a node's address, and nothing on that node was seen to answer. Check that a \
    Leyline agent is ready there: only it can tell which process or hostNetwork pod has this port";
const CLIENT_AMBIGUOUS: &str = "client: more than one pod may have had this address at the time, and its own half was \
    not seen. Check that a Leyline agent is ready on every node; such edges go idle by themselves";
const SERVER_AMBIGUOUS: &str = "server: several workloads may have answered, and their half was not seen. Normal for \
    failed attempts at a Service over several workloads; else check that a Leyline agent is ready on every node with a \
    pod of it";
const NO_ENDPOINTS: &str = "server: this Service has nothing behind it. Compare its selector with the labels of your \
    pods: kubectl describe service shows both selector and endpoints";
const NO_NAME: &str = "server: nothing in the cluster has this address. Find out who does (spec has it); for an address \
    of your own network ask its DNS or inventory. A name for it is not needed for the figures to be right";

/// Every way an end can be without a name; a client's address outside the cluster is `External` and needs none.
const ALL: [(End, Unnamed, &str); 6] = [
    (End::Client, Unnamed::NodeAddress, CLIENT_NODE_ADDRESS),
    (End::Server, Unnamed::NodeAddress, SERVER_NODE_ADDRESS),
    (End::Client, Unnamed::Ambiguous, CLIENT_AMBIGUOUS),
    (End::Server, Unnamed::Ambiguous, SERVER_AMBIGUOUS),
    (End::Server, Unnamed::NoEndpoints, NO_ENDPOINTS),
    (End::Server, Unnamed::NoName, NO_NAME),
];

#[test]
fn every_end_without_a_name_says_what_to_do_next() {
    for (end, reason, text) in ALL {
        let mut w = World::new();
        let unresolved = Some(Unresolved { end, reason });
        let cart = key("cart", "redis");
        w.edge(&cart, |view| view.unresolved = unresolved);
        w.connect(&cart, 1);
        w.run(MINUTE);
        let conditions = w.only().status.clone().unwrap().conditions;
        let resolved = conditions
            .iter()
            .find(|c| c.type_ == ConditionType::Resolved)
            .unwrap();
        assert_eq!(
            (resolved.reason.as_str(), resolved.message.as_str()),
            (reason.as_str(), text)
        );
        let object = w.only().clone();
        let Adopted::Ours(seed) = w.planner.adopt(&object, w.now) else {
            unreachable!()
        };
        assert_eq!(seed.unresolved, unresolved, "a restarted operator reads it back");
    }
}

#[test]
fn no_reason_is_left_out() {
    for reason in Unnamed::ALL {
        assert!(ALL.iter().any(|(_, known, _)| *known == reason), "{reason:?}");
    }
}
