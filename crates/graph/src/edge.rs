//! One edge: two sides that count the same connections, and what an object said before.

use std::sync::Arc;

use crate::entity::{EdgeKey, Time, Transport};
use crate::input::Counters;
use crate::intern::EntityRef;
use crate::view::{EdgeView, End, Evidence, Figures, Incomplete, ServiceRef, Unresolved};
use crate::window::{LENGTH, Window};

/// An edge's key with interned ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EdgeId {
    pub(crate) client: EntityRef,
    pub(crate) server: EntityRef,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

impl EdgeId {
    pub(crate) fn key(&self) -> EdgeKey {
        EdgeKey {
            client: (*self.client).clone(),
            server: (*self.server).clone(),
            port: self.port,
            transport: self.transport,
        }
    }
}

/// What one side's half-edges contributed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub(crate) counters: Counters,
    /// Scaled from a sample.
    pub(crate) estimated: bool,
}

/// Totals from before this graph, and whose sockets had shown the edge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) totals: Counters,
    pub(crate) evidence: Evidence,
}

/// One edge.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) client: Side,
    pub(crate) server: Side,
    /// A floor until the graph settles, an addend afterwards.
    pub(crate) base: Option<Box<Base>>,
    pub(crate) first_seen: Time,
    pub(crate) last_seen: Time,
    pub(crate) last_success: Option<Time>,
    pub(crate) last_failure: Option<Time>,
    pub(crate) service: Option<Arc<ServiceRef>>,
    pub(crate) unresolved: Option<Unresolved>,
    pub(crate) window: Option<Box<Window>>,
    pub(crate) loss: bool,
    pub(crate) folded: bool,
    /// Contributions and records that point here.
    pub(crate) refs: u32,
}

/// One contribution to an edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// When it was measured.
    pub(crate) at: Time,
    /// When its first connection began, as far as known.
    pub(crate) began: Time,
    /// Now.
    pub(crate) now: Time,
    /// From before the graph settled: what the object said may include it.
    pub(crate) historic: bool,
    /// Recent enough to count in the figures of the last minutes.
    pub(crate) fresh: bool,
    /// Scaled from a sample.
    pub(crate) estimated: bool,
    /// The node was losing events.
    pub(crate) loss: bool,
}

impl Edge {
    pub(crate) fn new(id: EdgeId) -> Self {
        Self {
            id,
            client: Side::default(),
            server: Side::default(),
            base: None,
            first_seen: Time(i64::MAX),
            last_seen: Time(i64::MIN),
            last_success: None,
            last_failure: None,
            service: None,
            unresolved: None,
            window: None,
            loss: false,
            folded: false,
            refs: 0,
        }
    }

    pub(crate) fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }

    /// Both sides as one: the larger figure of each, over exact sides where there is one.
    pub(crate) fn counted(&self) -> Counters {
        let client = self.client.counters.shown();
        let (server, _) = self.server.counters.shown().flipped().split_attempts();
        let exact_client = !self.client.estimated && !connections(&client).is_zero();
        let exact_server = !self.server.estimated && !connections(&server).is_zero();
        match (exact_client, exact_server) {
            (true, false) => client,
            (false, true) => server.larger(client.split_attempts().1),
            _ => client.larger(server),
        }
    }

    /// The totals to show.
    pub(crate) fn totals(&self, settled: bool) -> Counters {
        let mut counted = self.counted();
        match &self.base {
            None => counted,
            Some(base) if settled => {
                counted.add(&base.totals);
                counted
            }
            Some(base) => counted.larger(base.totals),
        }
    }

    /// From now on the base is what the object said beyond what was counted.
    pub(crate) fn settle(&mut self) {
        let counted = Counters {
            active: 0,
            ..self.counted()
        };
        if let Some(base) = &mut self.base {
            base.totals = base.totals.excess(counted);
        }
    }

    /// Whether anything but given-up attempts is known.
    pub(crate) fn exists(&self) -> bool {
        self.base.is_some()
            || [&self.client, &self.server]
                .into_iter()
                .any(|side| is_sign(&side.counters.shown()))
    }

    /// Adds a contribution.
    pub(crate) fn add(&mut self, end: End, delta: &Counters, moment: Moment, settled: bool) {
        let before = (moment.historic && settled && self.base.is_some()).then(|| self.counted());
        let side = self.side(end);
        side.counters.add(delta);
        side.estimated |= moment.estimated;
        if let Some(before) = before {
            let more = Counters {
                active: 0,
                ..self.counted().excess(before)
            };
            if let Some(base) = &mut self.base {
                base.totals = base.totals.excess(more);
            }
        }
        let positive = delta.shown();
        if is_sign(&positive) || positive.bytes_sent > 0 || positive.bytes_received > 0 {
            self.first_seen = self.first_seen.min(moment.began);
            self.last_seen = self.last_seen.max(moment.at);
        }
        if positive.opened + positive.adopted > 0 || positive.bytes_sent > 0 || positive.bytes_received > 0 {
            self.last_success = self.last_success.max(Some(moment.at));
        }
        if positive.failed() > 0 {
            self.last_failure = self.last_failure.max(Some(moment.at));
        }
        self.loss |= moment.loss || delta.lost > 0;
        self.observe(end, delta, moment);
    }

    /// Adds to the figures of the last minutes.
    pub(crate) fn observe(&mut self, end: End, delta: &Counters, moment: Moment) {
        if moment.fresh && delta.connect_us | delta.rtt_samples | delta.retransmits != 0 {
            self.window
                .get_or_insert_default()
                .add(delta, end == End::Client, moment.now);
        }
    }

    /// Takes in everything another edge had, which turned out to be this one.
    pub(crate) fn absorb(&mut self, other: Self) {
        let Self {
            id: _,
            client,
            server,
            base,
            first_seen,
            last_seen,
            last_success,
            last_failure,
            service,
            unresolved,
            window: _,
            loss,
            folded,
            refs: _,
        } = other;
        for (mine, theirs) in [(&mut self.client, client), (&mut self.server, server)] {
            mine.counters.add(&theirs.counters);
            mine.estimated |= theirs.estimated;
        }
        if let Some(theirs) = base {
            let mine = self.base.get_or_insert_default();
            mine.totals.add(&theirs.totals);
            mine.evidence.client_socket |= theirs.evidence.client_socket;
            mine.evidence.server_socket |= theirs.evidence.server_socket;
        }
        self.unresolved = self.unresolved.max(unresolved);
        self.first_seen = self.first_seen.min(first_seen);
        self.last_seen = self.last_seen.max(last_seen);
        self.last_success = self.last_success.max(last_success);
        self.last_failure = self.last_failure.max(last_failure);
        if let Some(service) = service {
            self.addressed(&service);
        }
        self.loss |= loss;
        self.folded |= folded;
    }

    /// The client addressed this Service. Of several the first by name stays, whatever order they come in.
    pub(crate) fn addressed(&mut self, service: &Arc<ServiceRef>) -> bool {
        if self.service.as_ref().is_some_and(|known| known <= service) {
            return false;
        }
        self.service = Some(Arc::clone(service));
        true
    }

    pub(crate) fn view(&self, settled: bool, now: Time) -> EdgeView {
        let totals = self.totals(settled);
        let base = self.base.as_ref().map(|base| base.evidence).unwrap_or_default();
        let seen = |side: &Side| {
            let shown = side.counters.shown();
            is_sign(&shown) || shown.bytes_sent > 0 || shown.bytes_received > 0
        };
        EdgeView {
            key: self.id.key(),
            service: self.service.as_deref().cloned(),
            evidence: Evidence {
                client_socket: base.client_socket || seen(&self.client),
                server_socket: base.server_socket || seen(&self.server),
            },
            first_seen: self.first_seen.min(now),
            last_seen: if totals.active > 0 {
                now.max(self.last_seen)
            } else {
                self.last_seen
            },
            last_success: self.last_success,
            last_failure: self.last_failure,
            totals,
            window: self.window.as_ref().map_or(
                Figures {
                    length: LENGTH,
                    ..Figures::default()
                },
                |window| window.figures(),
            ),
            unresolved: self.unresolved,
            incomplete: Incomplete {
                loss: self.loss || totals.lost > 0,
                sampled: self.sampled(),
                folded: self.folded,
            },
        }
    }

    /// Whether the totals come from estimated sides only.
    fn sampled(&self) -> bool {
        let exact = |side: &Side| !side.estimated && !connections(&side.counters.shown()).is_zero();
        (self.client.estimated || self.server.estimated) && !exact(&self.client) && !exact(&self.server)
    }
}

/// What connections did, attempts apart.
fn connections(counters: &Counters) -> Counters {
    Counters {
        lost: 0,
        ..counters.split_attempts().0
    }
}

/// What makes an edge exist: a connection or a failed attempt. An attempt given up does not.
fn is_sign(counters: &Counters) -> bool {
    counters.opened > 0 || counters.adopted > 0 || counters.active > 0 || counters.failed() > 0
}
