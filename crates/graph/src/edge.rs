//! One edge: two sides that count the same connections, and what an object said before.

use std::sync::Arc;

use crate::entity::{EdgeKey, Time, Transport};
use crate::input::Counters;
use crate::intern::EntityRef;
use crate::view::{self, EdgeView, End, Evidence, Figures, Incomplete, ServiceRef, Unresolved};
use crate::window::{LENGTH, Window};
use crate::zone_bytes::ZoneBytes;
use crate::zones::{ZonePair, Zones};

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

/// Which sides an edge's figures are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sides {
    /// The client's alone.
    Client,
    /// The server's, and the client's for attempts without a connection.
    Server,
    /// The larger figure of both.
    Both,
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
    /// Bytes by zone; most edges of a cluster without zones have none.
    pub(crate) zones: Option<Box<ZoneBytes>>,
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
    /// Between which zones.
    pub(crate) zones: ZonePair,
}

impl Edge {
    pub(crate) fn new(id: EdgeId) -> Self {
        Self {
            id,
            client: Side::default(),
            server: Side::default(),
            base: None,
            zones: None,
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

    /// Exact sides where there is one.
    pub(crate) fn sides(&self) -> Sides {
        let exact = |side: &Side| !side.estimated && !connections(&side.counters.shown()).is_zero();
        match (exact(&self.client), exact(&self.server)) {
            (true, false) => Sides::Client,
            (false, true) => Sides::Server,
            _ => Sides::Both,
        }
    }

    /// Both sides as one: the larger figure of each, over exact sides where there is one.
    pub(crate) fn counted(&self) -> Counters {
        let client = self.client.counters.shown();
        let (server, _) = self.server.counters.shown().flipped().split_attempts();
        match self.sides() {
            Sides::Client => client,
            Sides::Server => server.larger(client.split_attempts().1),
            Sides::Both => client.larger(server),
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
        let (sides, bytes) = (self.sides(), bytes_of(&self.totals(true)));
        if let Some(zones) = &mut self.zones {
            zones.settle(sides, bytes);
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
        let before = (moment.historic && settled && self.base.is_some())
            .then(|| (self.counted(), self.zones_counted()));
        let side = self.side(end);
        side.counters.add(delta);
        side.estimated |= moment.estimated;
        self.zones_add(end, moment.zones, bytes_of(delta));
        if let Some((before, zones_before)) = before {
            let more = Counters {
                active: 0,
                ..self.counted().excess(before)
            };
            if let Some(base) = &mut self.base {
                base.totals = base.totals.excess(more);
            }
            let sides = self.sides();
            if let Some(zones) = &mut self.zones {
                zones.make_up(&zones_before, sides);
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
            zones,
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
        if let Some(theirs) = zones {
            self.zones.get_or_insert_default().absorb(&theirs);
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

    pub(crate) fn view(&self, settled: bool, names: &Zones, now: Time) -> EdgeView {
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
            zones: self.zones_shown(settled, &totals, names),
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

    /// Adds bytes between two zones; they may be less than nothing.
    fn zones_add(&mut self, end: End, pair: ZonePair, bytes: u64) {
        if pair != ZonePair::NONE && bytes != 0 {
            self.zones.get_or_insert_default().add(pair, end, bytes);
        }
    }

    /// Takes a contribution back.
    pub(crate) fn subtract(&mut self, end: End, amount: &Counters, pair: ZonePair) {
        self.side(end).counters.subtract(amount);
        self.zones_add(end, pair, bytes_of(amount).wrapping_neg());
    }

    /// Bytes of one side turned out to be between other zones.
    pub(crate) fn rezone(&mut self, end: End, from: ZonePair, to: ZonePair, bytes: u64) {
        self.zones_add(end, from, bytes.wrapping_neg());
        self.zones_add(end, to, bytes);
    }

    fn zones_counted(&self) -> Vec<u64> {
        let zones = self.zones.as_ref();
        zones.map_or_else(Vec::new, |zones| zones.counted(self.sides()))
    }

    /// By client zone, then server zone.
    pub(crate) fn zones_shown(
        &self,
        settled: bool,
        totals: &Counters,
        names: &Zones,
    ) -> Vec<view::ZoneBytes> {
        let mut shown: Vec<view::ZoneBytes> = self
            .zone_totals(settled, totals)
            .into_iter()
            .filter_map(|(pair, bytes)| {
                let (client, server) = names.names(pair)?;
                Some(view::ZoneBytes {
                    client: Arc::clone(client),
                    server: Arc::clone(server),
                    bytes,
                })
            })
            .collect();
        shown.sort_unstable();
        shown
    }

    /// Bytes by pair, together never more than `totals` has.
    pub(crate) fn zone_totals(&self, settled: bool, totals: &Counters) -> Vec<(ZonePair, u64)> {
        let bytes = totals.bytes_sent.saturating_add(totals.bytes_received);
        let zones = self.zones.as_ref();
        zones.map_or_else(Vec::new, |zones| zones.totals(self.sides(), settled, bytes))
    }

    /// Whether the totals come from estimated sides only.
    fn sampled(&self) -> bool {
        let exact = |side: &Side| !side.estimated && !connections(&side.counters.shown()).is_zero();
        (self.client.estimated || self.server.estimated) && !exact(&self.client) && !exact(&self.server)
    }
}

/// Payload bytes of both directions.
pub(crate) fn bytes_of(counters: &Counters) -> u64 {
    counters.bytes_sent.wrapping_add(counters.bytes_received)
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
