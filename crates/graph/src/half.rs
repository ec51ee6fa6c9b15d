//! A half-edge: what one node sees at its own sockets, and where its counts went.

use std::net::IpAddr;

use crate::agents::Agent;
use crate::edges::EdgeRef;
use crate::entity::{Time, Transport};
use crate::input::{Counters, Role, Subject};
use crate::intern::{EntityRef, Shared};
use crate::records::Record;
use crate::slab::Key;
use crate::view::End;
use crate::zones::ZonePair;

/// Where a portion of a half-edge's counts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Waiting for a name.
    Pending,
    /// In no edge: set aside, or assigned record by record.
    Nobody,
    /// In this edge.
    Edge(EdgeRef),
}

/// Portions beyond which a further pair of zones makes no portion of its own.
const PORTIONS: usize = 16;

/// A part of a half-edge's counts.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    pub(crate) slot: Slot,
    /// Given to the best name known then; moves when a better one comes.
    pub(crate) provisional: bool,
    /// Between which zones, as far as known when they were counted; only of portions in an edge.
    pub(crate) zones: ZonePair,
    pub(crate) counters: Counters,
}

/// Which edges the records of a half-edge proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Proven {
    #[default]
    None,
    One(EdgeRef),
    Many,
}

/// A half-edge.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) agent: Key<Agent>,
    pub(crate) id: u32,
    pub(crate) subject: Shared<Subject>,
    /// The entity of a process; pods are looked up.
    pub(crate) process: Option<EntityRef>,
    pub(crate) role: Role,
    pub(crate) remote: IpAddr,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    pub(crate) split: bool,
    /// The stream that defined it last.
    pub(crate) stream: u32,
    /// The agent will not speak of it again.
    pub(crate) ended: bool,
    /// In the waiting set.
    pub(crate) waiting: bool,
    /// Since when its name is not known; kept while the name is a guess.
    pub(crate) waiting_since: Option<Time>,
    /// When the counts that have no final place yet last changed.
    pub(crate) open_at: Time,
    /// The time by which the last difference found its place; its records go by the same.
    pub(crate) measured_at: Time,
    pub(crate) proven: Proven,
    /// Oldest first; the sum of all is what the agent last reported.
    pub(crate) portions: Vec<Portion>,
    pub(crate) records: Option<Key<Record>>,
}

impl Half {
    /// What the agent last reported.
    pub(crate) fn reported(&self) -> Counters {
        let mut sum = Counters::default();
        for portion in &self.portions {
            sum.add(&portion.counters);
        }
        sum
    }

    /// Its side of an edge; an undecided role never contributes as a whole.
    pub(crate) fn end(&self) -> End {
        if self.role == Role::Client {
            End::Client
        } else {
            End::Server
        }
    }

    /// The portion with this slot, made if need be, as the newest one.
    pub(crate) fn portion(&mut self, slot: Slot, provisional: bool, zones: ZonePair) -> (&mut Portion, bool) {
        let position = self.portions.iter().position(|portion| {
            portion.slot == slot && portion.provisional == provisional && portion.zones == zones
        });
        let made = position.is_none();
        let portion = match position {
            Some(position) => self.portions.remove(position),
            None => Portion {
                slot,
                provisional,
                zones,
                counters: Counters::default(),
            },
        };
        // Most half-edges have one portion for ever; room for four would double the graph.
        self.portions.reserve_exact(1);
        self.portions.push(portion);
        (
            self.portions
                .last_mut()
                .expect("a portion was pushed just before"),
            made,
        )
    }

    /// The pair to keep a contribution under: none once the zones of its ends have changed too often.
    pub(crate) fn bounded(&self, zones: ZonePair) -> ZonePair {
        if self.portions.len() < PORTIONS || self.portions.iter().any(|portion| portion.zones == zones) {
            zones
        } else {
            ZonePair::NONE
        }
    }

    /// Takes the counts that wait, if any.
    pub(crate) fn take_pending(&mut self) -> Option<Counters> {
        let position = self
            .portions
            .iter()
            .position(|portion| portion.slot == Slot::Pending)?;
        Some(self.portions.remove(position).counters)
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.portions.iter().any(|portion| portion.slot == Slot::Pending)
    }

    pub(crate) fn is_provisional(&self) -> bool {
        self.portions.iter().any(|portion| portion.provisional)
    }
}
