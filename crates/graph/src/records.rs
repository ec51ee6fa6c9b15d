//! Connection records: found by witness, by half-edge, and by when their patience or memory ends.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::edges::EdgeRef;
use crate::entity::Time;
use crate::half::Half;
use crate::input::{Connection, Counters, Witness};
use crate::slab::{Key, Slab};
use crate::stats::Closed;
use crate::view::End;
use crate::zones::ZonePair;

/// What a record says about its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// The connection itself: 1, or 0 when it is counted elsewhere.
    pub(crate) connections: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Amount {
    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(other.connections),
            bytes_sent: self.bytes_sent.saturating_sub(other.bytes_sent),
            bytes_received: self.bytes_received.saturating_sub(other.bytes_received),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(other.connections),
            bytes_sent: self.bytes_sent.saturating_add(other.bytes_sent),
            bytes_received: self.bytes_received.saturating_add(other.bytes_received),
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// What is known about a record's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not known yet.
    #[default]
    Waiting,
    /// Belongs to no edge.
    Nobody(Closed),
    /// Both halves agree on this edge.
    Proven(EdgeRef),
    /// The other half did not come; `movable` when a workload that appears later takes it over.
    Fallback { edge: EdgeRef, movable: bool },
}

impl Verdict {
    pub(crate) fn edge(self) -> Option<EdgeRef> {
        match self {
            Self::Proven(edge) | Self::Fallback { edge, .. } => Some(edge),
            Self::Waiting | Self::Nobody(_) => None,
        }
    }
}

/// One side's record of a connection.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) half: Key<Half>,
    pub(crate) witness: Witness,
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) adopted: bool,
    pub(crate) closed: bool,
    pub(crate) weight: u32,
    pub(crate) total: Amount,
    /// What the half-edge's totals brought to an edge already, and to which.
    pub(crate) covered: Amount,
    pub(crate) covered_by: Option<EdgeRef>,
    /// The part that is among the counts its half-edge holds until it has a name.
    pub(crate) pending: Amount,
    pub(crate) opened: Time,
    pub(crate) seen: Time,
    /// When it was last seen to carry bytes, its first report not counted.
    pub(crate) moved: Option<Time>,
    pub(crate) arrived: Time,
    /// From before the agent's first full report.
    pub(crate) historic: bool,
    /// It waited long enough for its other half.
    pub(crate) overdue: bool,
    pub(crate) verdict: Verdict,
    /// What it put on the verdict's edge itself, and on which side.
    pub(crate) charge: Counters,
    pub(crate) end: End,
    /// Between which zones.
    pub(crate) zones: ZonePair,
    pub(crate) next: Option<Key<Record>>,
    pub(crate) previous: Option<Key<Record>>,
}

/// All records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    records: Slab<Record>,
    by_witness: HashMap<Witness, Vec<Key<Record>>>,
    /// In order of time.
    pub(crate) impatient: VecDeque<(Time, Key<Record>)>,
    pub(crate) closing: VecDeque<(Time, Key<Record>)>,
}

impl Record {
    pub(crate) fn new(half: Key<Half>, connection: &Connection, historic: bool, now: Time) -> Self {
        Self {
            half,
            witness: connection.witness,
            local: connection.local,
            local_port: connection.local_port,
            adopted: connection.adopted,
            closed: false,
            weight: connection.weight,
            total: Amount::default(),
            covered: Amount::default(),
            covered_by: None,
            pending: Amount::default(),
            historic,
            opened: connection.opened,
            seen: connection.seen,
            moved: None,
            arrived: now,
            overdue: false,
            verdict: Verdict::Waiting,
            charge: Counters::default(),
            end: End::Server,
            zones: ZonePair::NONE,
            next: None,
            previous: None,
        }
    }

    /// An amount as counters; `open` says whether the connection counts as open.
    pub(crate) fn counters(&self, amount: Amount, open: bool) -> Counters {
        Counters {
            opened: if self.adopted { 0 } else { amount.connections },
            adopted: if self.adopted { amount.connections } else { 0 },
            active: if open && !self.closed {
                amount.connections
            } else {
                0
            },
            bytes_sent: amount.bytes_sent,
            bytes_received: amount.bytes_received,
            ..Counters::default()
        }
    }
}

impl Records {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn get(&self, key: Key<Record>) -> Option<&Record> {
        self.records.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key<Record>) -> Option<&mut Record> {
        self.records.get_mut(key)
    }

    /// All records with this witness.
    pub(crate) fn with(&self, witness: Witness) -> &[Key<Record>] {
        self.by_witness.get(&witness).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn find(&self, witness: Witness, half: Key<Half>) -> Option<Key<Record>> {
        self.with(witness)
            .iter()
            .copied()
            .find(|&key| self.get(key).is_some_and(|record| record.half == half))
    }

    /// Adds a record at the head of its half-edge's list.
    pub(crate) fn insert(&mut self, mut record: Record, half: &mut Half) -> Key<Record> {
        let witness = record.witness;
        record.next = half.records;
        let key = self.records.insert(record);
        if let Some(next) = half.records.and_then(|next| self.records.get_mut(next)) {
            next.previous = Some(key);
        }
        half.records = Some(key);
        self.by_witness.entry(witness).or_default().push(key);
        key
    }

    pub(crate) fn remove(&mut self, key: Key<Record>, half: Option<&mut Half>) -> Option<Record> {
        let record = self.records.remove(key)?;
        if let Some(same) = self.by_witness.get_mut(&record.witness) {
            same.retain(|&other| other != key);
            if same.is_empty() {
                self.by_witness.remove(&record.witness);
            }
        }
        if let Some(next) = record.next.and_then(|next| self.records.get_mut(next)) {
            next.previous = record.previous;
        }
        if let Some(previous) = record.previous {
            if let Some(previous) = self.records.get_mut(previous) {
                previous.next = record.next;
            }
        } else if let Some(half) = half {
            half.records = record.next;
        }
        Some(record)
    }

    /// The records of a half-edge.
    pub(crate) fn of(&self, half: &Half) -> Vec<Key<Record>> {
        let mut keys = Vec::new();
        let mut next = half.records;
        while let Some(key) = next {
            keys.push(key);
            next = self.get(key).and_then(|record| record.next);
        }
        keys
    }
}
