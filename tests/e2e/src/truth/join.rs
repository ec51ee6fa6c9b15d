//! The ground truth of a scenario: both halves of every connection, joined by the id that the client sent and the server
//! read. Pure: logs in, edges out.
//!
//! Only what the applications say counts, and what the scenario has written down by hand for those ends that write no log
//! (the API server, an address where nobody is). Nothing of Leyline is used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};

use super::log::{Actor, Dial, Event, Role};
use crate::score::{Edge, End};

/// What a destination is, where no server of ours answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The destination as the client's log has it.
    pub dial: String,
    /// Who is there, or would be.
    pub server: End,
    /// The port the edge has.
    pub port: u16,
}

/// How the ends that are too many fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fold {
    /// They do not.
    #[default]
    None,
    /// All ports between two ends are one, port 0.
    Ports,
    /// This many bare addresses per client stay, the others are `External other`; which ones stay is free.
    Addresses(usize),
}

/// What an edge must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections that stood and that the server knows of.
    pub opened: u64,
    /// Connections that stood, but the server was gone before it could say so: they may count or not.
    pub unsure: u64,
    /// Failed attempts by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Payload bytes the client wrote.
    pub sent: u64,
    /// Payload bytes the client read.
    pub received: u64,
    /// Every connection ended in sight of its client: the bytes are known, and none is open.
    pub ended: bool,
}

/// The edges there must be.
pub type Truth = BTreeMap<Edge, Figures>;

/// One connection, both halves.
#[derive(Debug, Default)]
struct Connection {
    client: Option<(End, String, IpAddr, Dial)>,
    instance: String,
    /// Who accepted, the port it listens on, its pod, its own address.
    server: Option<(End, u16, String, IpAddr)>,
    bytes: Option<(u64, u64)>,
    broken: bool,
}

/// Joins the logs of a scenario.
///
/// # Errors
/// When a log is full or contradicts itself, or a server knows a connection that no client has made.
pub fn join(actors: &[Actor], elsewhere: &[Elsewhere], fold: Fold) -> Result<Truth> {
    let connections = collect(actors)?;
    let mut truth = Truth::new();
    let mut unsure = Vec::new();
    for (id, connection) in &connections {
        let Some((client, dial, address, outcome)) = &connection.client else {
            bail!("a server accepted {id}, which no client has made");
        };
        if address.is_loopback() || *outcome == Dial::Aborted {
            continue;
        }
        let place = elsewhere.iter().find(|it| it.dial == *dial);
        let (server, port) = match (&connection.server, place) {
            (Some((server, port, instance, local)), _) => {
                // Inside one pod, over its own address: as little an edge as localhost. Through a Service it is one.
                if *instance == connection.instance && local == address {
                    continue;
                }
                (server, *port)
            }
            (None, Some(place)) => (&place.server, place.port),
            (None, None) if *outcome == Dial::Connected => {
                unsure.push((client.clone(), dial.clone()));
                continue;
            }
            (None, None) => bail!("{dial}: {outcome:?}, and the scenario does not say who is there"),
        };
        let edge = Edge {
            client: client.clone(),
            server: server.clone(),
            port: if fold == Fold::Ports { 0 } else { port },
            transport: "TCP".to_owned(),
        };
        add(&mut truth, edge, connection, *outcome);
    }
    for (client, dial) in unsure {
        place_unsure(&mut truth, &connections, &client, &dial)?;
    }
    Ok(truth)
}

fn add(truth: &mut Truth, edge: Edge, connection: &Connection, outcome: Dial) {
    let figures = truth.entry(edge).or_insert_with(|| Figures {
        ended: true,
        ..Figures::default()
    });
    match reason(outcome) {
        None => {
            figures.opened += 1;
            match connection.bytes {
                Some((sent, received)) if !connection.broken => {
                    figures.sent += sent;
                    figures.received += received;
                }
                _ => figures.ended = false,
            }
        }
        Some(reason) => *figures.failed.entry(reason).or_default() += 1,
    }
}

/// A connection of which only the client knows: it may count on the edge of this client's other connections to the same
/// destination, on the first one if there are several; the bytes of none of them are judged then.
fn place_unsure(
    truth: &mut Truth,
    connections: &BTreeMap<String, Connection>,
    client: &End,
    dial: &str,
) -> Result<()> {
    let mut found = false;
    for other in connections.values() {
        let (Some((other_client, other_dial, ..)), Some((server, port, ..))) = (&other.client, &other.server)
        else {
            continue;
        };
        if other_client != client || other_dial != dial {
            continue;
        }
        let edge = Edge {
            client: client.clone(),
            server: server.clone(),
            port: *port,
            transport: "TCP".to_owned(),
        };
        if let Some(figures) = truth.get_mut(&edge) {
            figures.ended = false;
            if !found {
                figures.unsure += 1;
            }
            found = true;
        }
    }
    if !found {
        bail!("{client} connected to {dial}, and no server has ever said that it answers there");
    }
    Ok(())
}

fn collect(actors: &[Actor]) -> Result<BTreeMap<String, Connection>> {
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    for actor in actors {
        let who = end(&actor.who)?;
        for line in &actor.lines {
            match &line.event {
                Event::Dialled {
                    id,
                    dial,
                    peer,
                    outcome,
                    ..
                } => {
                    let one = connections.entry(id.clone()).or_default();
                    if one.client.is_some() {
                        bail!("two clients made {id}");
                    }
                    one.client = Some((who.clone(), dial.clone(), peer.ip().to_canonical(), *outcome));
                    one.instance.clone_from(&actor.instance);
                }
                Event::Accepted {
                    id: Some(id),
                    port,
                    local,
                    ..
                } => {
                    let one = connections.entry(id.clone()).or_default();
                    if one.server.is_some() {
                        bail!("two servers accepted {id}");
                    }
                    let address = local.ip().to_canonical();
                    one.server = Some((who.clone(), *port, actor.instance.clone(), address));
                }
                Event::Ended {
                    id,
                    role: Role::Client,
                    broken,
                    sent,
                    received,
                } => {
                    let one = connections.entry(id.clone()).or_default();
                    one.bytes = Some((*sent, *received));
                    one.broken |= broken.is_some();
                }
                Event::Full => bail!("{}: its log is full, the truth is not known", actor.instance),
                Event::Ended {
                    role: Role::Server, ..
                }
                | Event::Accepted { id: None, .. }
                | Event::Actor { .. }
                | Event::Listening { .. }
                | Event::Done => {}
            }
        }
    }
    Ok(connections)
}

/// `<kind> <namespace> <name>`.
fn end(who: &str) -> Result<End> {
    let mut words = who.splitn(3, ' ');
    let mut next = || {
        words
            .next()
            .with_context(|| format!("`{who}` does not say who acts"))
    };
    let (kind, namespace, name) = (next()?, next()?, next()?);
    Ok(End::new(namespace, kind, name))
}

/// How the objects call a failed attempt; none: it did not fail.
fn reason(outcome: Dial) -> Option<&'static str> {
    match outcome {
        Dial::Connected | Dial::Aborted => None,
        Dial::Refused => Some("refused"),
        Dial::TimedOut => Some("timedOut"),
        Dial::Unreachable => Some("unreachable"),
        Dial::Reset => Some("reset"),
    }
}

/// Folds bare addresses: those that Leyline shows stay, up to the limit; all others are one end. Which ones stay is not the
/// truth's business, how many is.
#[must_use]
pub fn fold_addresses(truth: &Truth, shown: &[Edge], limit: usize) -> Truth {
    let mut folded = Truth::new();
    let mut kept: BTreeMap<End, usize> = BTreeMap::new();
    for (edge, figures) in truth {
        let stays = edge.server.kind != "Address" || {
            let kept = kept.entry(edge.client.clone()).or_default();
            let stays = *kept < limit && shown.contains(edge);
            *kept += usize::from(stays);
            stays
        };
        let mut edge = edge.clone();
        if !stays {
            edge.server = End::new("-", "External", "other");
        }
        let sum = folded.entry(edge).or_insert_with(|| Figures {
            ended: true,
            ..Figures::default()
        });
        sum.opened += figures.opened;
        sum.unsure += figures.unsure;
        sum.sent += figures.sent;
        sum.received += figures.received;
        sum.ended &= figures.ended;
        for (reason, count) in &figures.failed {
            *sum.failed.entry(reason).or_default() += count;
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::log::Line;
    use std::net::SocketAddr;

    fn actor(who: &str, instance: &str, events: Vec<Event>) -> Actor {
        let lines = events.into_iter().map(|event| Line { at: 0, event });
        Actor {
            who: who.to_owned(),
            instance: instance.to_owned(),
            lines: lines.collect(),
        }
    }

    fn dialled(id: &str, dial: &str, peer: &str, outcome: Dial) -> Event {
        Event::Dialled {
            id: id.to_owned(),
            dial: dial.to_owned(),
            local: None,
            peer: peer.parse().unwrap(),
            outcome,
        }
    }

    fn accepted(id: &str, port: u16) -> Event {
        let here = SocketAddr::from(([10, 244, 0, 9], port));
        Event::Accepted {
            id: Some(id.to_owned()),
            port,
            local: here,
            peer: here,
        }
    }

    fn ended(id: &str, sent: u64, received: u64) -> Event {
        Event::Ended {
            id: id.to_owned(),
            role: Role::Client,
            broken: None,
            sent,
            received,
        }
    }

    fn edges(truth: &Truth) -> Vec<String> {
        truth.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn both_halves_meet_by_the_id_and_not_by_an_address() {
        let client = actor(
            "Job red c",
            "c-1",
            vec![
                dialled("1", "api:80", "10.96.0.9:80", Dial::Connected),
                ended("1", 10, 20),
                dialled("2", "api:80", "10.96.0.9:80", Dial::Connected),
                ended("2", 1, 2),
            ],
        );
        let blue = actor("Deployment red blue", "b-1", vec![accepted("2", 9000)]);
        let green = actor("Deployment red green", "g-1", vec![accepted("1", 9001)]);
        let truth = join(&[client, blue, green], &[], Fold::None).unwrap();
        assert_eq!(
            edges(&truth),
            [
                "Job red/c → Deployment red/blue:9000/TCP",
                "Job red/c → Deployment red/green:9001/TCP"
            ]
        );
        let bytes: Vec<(u64, u64)> = truth.values().map(|it| (it.sent, it.received)).collect();
        assert_eq!(bytes, [(1, 2), (10, 20)]);
    }

    #[test]
    fn loopback_and_what_the_application_gave_up_are_no_edges() {
        let client = actor(
            "Pod red p",
            "p",
            vec![
                dialled("1", "localhost:80", "127.0.0.1:80", Dial::Connected),
                dialled("2", "192.0.2.1:80", "192.0.2.1:80", Dial::Aborted),
                dialled("3", "x:80", "[::ffff:127.0.0.1]:80", Dial::Connected),
            ],
        );
        assert_eq!(join(&[client], &[], Fold::None).unwrap(), Truth::new());
    }

    #[test]
    fn a_pod_that_calls_itself_has_an_edge_only_through_a_service() {
        let called = |peer: &str| {
            let events = vec![
                dialled("1", "self:80", peer, Dial::Connected),
                accepted("1", 9000),
            ];
            join(&[actor("Deployment red d", "d-1", events)], &[], Fold::None).unwrap()
        };
        assert_eq!(called("10.244.0.9:9000"), Truth::new());
        assert_eq!(
            edges(&called("10.96.0.9:80")),
            ["Deployment red/d → Deployment red/d:9000/TCP"]
        );
    }

    #[test]
    fn a_failed_attempt_needs_a_hand_written_other_end() {
        let client = actor(
            "Job red c",
            "c",
            vec![dialled("1", "shut:80", "10.96.0.9:80", Dial::Refused)],
        );
        assert!(join(std::slice::from_ref(&client), &[], Fold::None).is_err());
        let place = Elsewhere {
            dial: "shut:80".to_owned(),
            server: End::new("red", "Deployment", "d"),
            port: 9001,
        };
        let truth = join(&[client], &[place], Fold::None).unwrap();
        assert_eq!(edges(&truth), ["Job red/c → Deployment red/d:9001/TCP"]);
        assert_eq!(truth.values().next().unwrap().failed["refused"], 1);
    }

    #[test]
    fn a_connection_whose_server_died_is_a_doubt_and_not_an_edge() {
        let mut events = vec![
            dialled("1", "api:80", "10.96.0.9:80", Dial::Connected),
            dialled("2", "api:80", "10.96.0.9:80", Dial::Connected),
            ended("1", 1, 1),
        ];
        let server = actor("Deployment red s", "s", vec![accepted("1", 9000)]);
        let truth = join(
            &[actor("Job red c", "c", events.clone()), server],
            &[],
            Fold::None,
        )
        .unwrap();
        let figures = truth.values().next().unwrap();
        assert_eq!((figures.opened, figures.unsure, figures.ended), (1, 1, false));
        events.truncate(1);
        assert!(join(&[actor("Job red c", "c", events)], &[], Fold::None).is_err());
    }

    #[test]
    fn a_server_that_invents_a_connection_or_a_full_log_is_an_error() {
        let server = actor("Deployment red s", "s", vec![accepted("1", 9000)]);
        assert!(join(&[server], &[], Fold::None).is_err());
        assert!(join(&[actor("Job red c", "c", vec![Event::Full])], &[], Fold::None).is_err());
    }

    #[test]
    fn addresses_above_the_limit_are_one_end_whichever_they_are() {
        let client = End::new("red", "Job", "c");
        let edge = |n: u8| Edge {
            client: client.clone(),
            server: End::new("-", "Address", &format!("198.18.0.{n}")),
            port: 80,
            transport: "TCP".to_owned(),
        };
        let one = Figures {
            opened: 1,
            ended: true,
            ..Figures::default()
        };
        let truth: Truth = (0..5).map(|n| (edge(n), one.clone())).collect();
        let folded = fold_addresses(&truth, &[edge(4), edge(1), edge(9)], 2);
        let names: Vec<&str> = folded.keys().map(|edge| edge.server.name.as_str()).collect();
        assert_eq!(names, ["198.18.0.1", "198.18.0.4", "other"]);
        assert_eq!(folded.values().map(|it| it.opened).max(), Some(3));
    }
}
