//! What a simulated cluster is made of: members that talk, their connections, and what agents hold of them.

use leyline_graph::input::{Counters, Role};
use leyline_graph::{EdgeView, Seed};

use crate::support::{C, H, client, conn, ip, process_client, process_server, server};

/// A running pod or process.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) uid: String,
    pub(crate) kind: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) node: usize,
    pub(crate) address: String,
    pub(crate) host: bool,
    pub(crate) process: bool,
    /// In the slices and serving from then on.
    pub(crate) ready: i64,
    /// When the watches hear of it.
    pub(crate) heard: i64,
}
impl Member {
    pub(crate) fn half(&self, is_client: bool) -> H {
        match (self.process, is_client) {
            (true, true) => process_client(&self.uid),
            (true, false) => process_server(&self.uid),
            (false, true) => client(&self.uid),
            (false, false) => server(&self.uid),
        }
    }
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.kind, self.workload)
    }
}
/// One side of a live connection, at an agent.
pub(crate) struct Socket {
    pub(crate) half: usize,
    pub(crate) record: C,
    pub(crate) changed: bool,
}

/// What an agent's kernel maps hold.
#[derive(Default)]
pub(crate) struct Agent {
    pub(crate) halves: Vec<H>,
    pub(crate) dirty: Vec<bool>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) epoch: u64,
    pub(crate) away_until: Option<i64>,
    /// It runs, but its stream is broken until then.
    pub(crate) cut_until: Option<i64>,
    pub(crate) lost: u64,
}
impl Agent {
    pub(crate) fn half(&mut self, wanted: &H) -> usize {
        let found = self.halves.iter().position(|half| {
            half.subject == wanted.subject
                && half.role == wanted.role
                && half.remote == wanted.remote
                && half.port == wanted.port
        });
        found.unwrap_or_else(|| {
            self.halves.push(wanted.clone());
            self.dirty.push(false);
            self.halves.len() - 1
        })
    }

    pub(crate) fn count(&mut self, half: usize, now: i64, change: impl FnOnce(&mut Counters)) {
        change(&mut self.halves[half].counters);
        self.halves[half].changed = Some(now);
        self.dirty[half] = true;
    }
}
pub(crate) struct Live {
    pub(crate) number: u32,
    pub(crate) client: Member,
    pub(crate) server: Member,
    pub(crate) until: i64,
    pub(crate) edge: Option<String>,
    /// As each side names the other: what an agent that starts later would find.
    pub(crate) halves: [(usize, H); 2],
    /// The client's process has let go of it: nothing moves any more, and nobody can find the socket.
    pub(crate) orphan: bool,
}
pub(crate) fn seed(edge: EdgeView) -> Seed {
    Seed {
        key: edge.key,
        service: edge.service,
        evidence: edge.evidence,
        first_seen: edge.first_seen,
        last_seen: edge.last_seen,
        totals: edge.totals,
        zones: edge.zones,
        unresolved: edge.unresolved,
        incomplete: edge.incomplete,
    }
}

pub(crate) fn socket(half: usize, live: &Live, adopted: bool, now: i64) -> Socket {
    let mut record = conn(live.number).open();
    record.adopted = adopted;
    record.opened = Some(now);
    record.seen = Some(now);
    record.local = Some(ip(&live.server.address));
    Socket {
        half,
        record,
        changed: true,
    }
}

pub(crate) fn find(agent: &Agent, number: u32, is_client: bool) -> Option<usize> {
    agent.sockets.iter().position(|socket| {
        socket.record.number == number
            && !socket.record.closed
            && (agent.halves[socket.half].role == Role::Client) == is_client
    })
}
