//! Connections of split half-edges: those that live, and those that closed a moment ago.
//!
//! Inputs: the kernel's records with the id of their half-edge, and the time. Outputs: one record per connection,
//! in the order of its last change, for any number of streams with a cursor each. No clock, no IO.
//!
//! Bounded: when full, the oldest closed connection makes room, else the new one is refused. Either counts as
//! dropped, unless every stream has been given the closed one already. A closed connection is kept for
//! [`KEPT_AFTER_CLOSE`] for streams that begin later, and longer while nobody has taken it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use leyline_abi::{Connection, flags, kind};

/// How long a closed connection stays for streams that begin later.
pub const KEPT_AFTER_CLOSE: Duration = Duration::from_secs(30);
/// How long a closed connection waits for an operator at all: the operator forgets addresses after that.
const KEPT_UNDELIVERED: Duration = Duration::from_secs(600);
/// A half-edge without open sockets cannot have live connections: their close was lost. The time covers records
/// that are still in the ring buffer.
const STALE: Duration = Duration::from_secs(15);

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Id of the reported half-edge.
    pub id: u32,
    /// The client's initial sequence number.
    pub client_isn: u32,
    /// The server's.
    pub server_isn: u32,
    /// This socket's own address.
    pub local: [u8; 16],
    /// This socket's own port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
    /// The socket is older than the agent.
    pub adopted: bool,
    /// It has ended; totals are final.
    pub closed: bool,
    /// This record stands for 2^this connections.
    pub weight_log2: u8,
    /// When it was opened or adopted, as far as known; monotonic nanoseconds, like all times here.
    pub opened_ns: u64,
    /// When the totals were read.
    pub at_ns: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    id: u32,
    client_isn: u32,
    server_isn: u32,
    ports: (u16, u16),
}

impl Record {
    fn new(id: u32, from: &Connection) -> Self {
        Self {
            id,
            client_isn: from.client_isn,
            server_isn: from.server_isn,
            local: from.local,
            local_port: from.local_port,
            remote_port: from.remote_port,
            adopted: from.flags & flags::ADOPTED != 0,
            closed: false,
            weight_log2: from.weight_log2,
            opened_ns: from.at_ns,
            at_ns: from.at_ns,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    fn key(&self) -> Key {
        Key {
            id: self.id,
            client_isn: self.client_isn,
            server_isn: self.server_isn,
            ports: (self.local_port, self.remote_port),
        }
    }
}

/// See the module's documentation.
pub struct Connections {
    capacity: usize,
    records: BTreeMap<u64, Record>,
    index: HashMap<Key, u64>,
    /// Changes of closed records, oldest first: a closed record never changes again.
    closed: VecDeque<u64>,
    change: u64,
    delivered: u64,
    dropped: u64,
}

impl Connections {
    /// An empty store of at most `capacity` connections.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            records: BTreeMap::new(),
            index: HashMap::new(),
            closed: VecDeque::new(),
            change: 0,
            delivered: 0,
            dropped: 0,
        }
    }

    /// Takes in one record of the kernel that belongs to the reported half-edge `id`.
    pub fn fold(&mut self, id: u32, from: &Connection) {
        let fresh = Record::new(id, from);
        let key = fresh.key();
        let known = self.index.get(&key).copied();
        if let Some(closed) = known
            .and_then(|at| self.records.get_mut(&at))
            .filter(|record| record.closed)
        {
            // Records of one connection may overtake each other; its end is its end.
            closed.opened_ns = closed.opened_ns.min(from.at_ns);
            return;
        }
        let mut record = match known.and_then(|at| self.records.remove(&at)) {
            Some(record) => record,
            None if self.make_room() => fresh,
            None => return,
        };
        record.opened_ns = record.opened_ns.min(from.at_ns);
        record.at_ns = record.at_ns.max(from.at_ns);
        record.bytes_sent = record.bytes_sent.max(from.bytes_sent);
        record.bytes_received = record.bytes_received.max(from.bytes_received);
        record.closed = from.kind == kind::CLOSE;
        self.put(key, record);
    }

    fn put(&mut self, key: Key, record: Record) {
        self.change += 1;
        if record.closed {
            self.closed.push_back(self.change);
        }
        self.index.insert(key, self.change);
        self.records.insert(self.change, record);
    }

    fn make_room(&mut self) -> bool {
        if self.records.len() < self.capacity {
            return true;
        }
        match self.closed.pop_front() {
            Some(at) => {
                self.discard(at);
                true
            }
            None => {
                self.dropped += 1;
                false
            }
        }
    }

    fn discard(&mut self, at: u64) {
        if let Some(record) = self.records.remove(&at) {
            self.index.remove(&record.key());
            if at > self.delivered {
                self.dropped += 1;
            }
        }
    }

    /// Forgets connections that closed long enough ago.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some(at) = self.closed.front().copied() {
            let kept = if at > self.delivered {
                KEPT_UNDELIVERED
            } else {
                KEPT_AFTER_CLOSE
            };
            let closed_ns = self.records.get(&at).map_or(0, |record| record.at_ns);
            if Duration::from_nanos(now_ns.saturating_sub(closed_ns)) < kept {
                break;
            }
            self.closed.pop_front();
            self.discard(at);
        }
    }

    /// Closes connections whose half-edge has no open socket any more: their close record was lost.
    pub fn close_stale(&mut self, now_ns: u64, active: impl Fn(u32) -> u64) {
        let stale: Vec<u64> = self
            .records
            .iter()
            .filter(|(_, record)| {
                let quiet = Duration::from_nanos(now_ns.saturating_sub(record.at_ns));
                !record.closed && quiet >= STALE && active(record.id) == 0
            })
            .map(|(at, _)| *at)
            .collect();
        for at in stale {
            if let Some(record) = self.records.remove(&at) {
                let key = record.key();
                self.put(
                    key,
                    Record {
                        closed: true,
                        at_ns: now_ns,
                        ..record
                    },
                );
            }
        }
    }

    /// Every stream has been given all changes up to this one. Never goes back.
    pub fn delivered(&mut self, change: u64) {
        self.delivered = self.delivered.max(change.min(self.change));
    }

    /// Records that changed after `cursor`, oldest change first, each with its place in that order.
    pub fn changed_since(&self, cursor: u64) -> impl Iterator<Item = (u64, &Record)> {
        self.records
            .range((Bound::Excluded(cursor), Bound::Unbounded))
            .map(|(change, record)| (*change, record))
    }

    /// Connections held now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Connections that were dropped before every stream had been given them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
