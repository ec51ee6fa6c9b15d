//! What objects say about edges: their totals from before this graph, until when those are a floor, and when they go.

use std::sync::Arc;

use super::Edges;
use crate::config::Config;
use crate::edge::EdgeId;
use crate::entity::{EdgeKey, Entity};
use crate::input::Counters;
use crate::intern::Interner;
use crate::view::{Seed, ZoneBytes};
use crate::zones::{ZonePair, Zones};

impl Edges {
    pub(crate) fn seed(
        &mut self,
        seed: Seed,
        names: &mut Interner<Entity>,
        known_zones: &mut Zones,
        config: &Config,
    ) {
        let Seed {
            key,
            service,
            evidence,
            first_seen,
            last_seen,
            totals,
            zones,
            unresolved,
            incomplete,
        } = seed;
        let id = EdgeId {
            client: names.intern(key.client),
            server: names.intern(key.server),
            port: key.port,
            transport: key.transport,
        };
        let Some(place) = self.ensure(id, unresolved, config) else {
            return;
        };
        let settled = self.settled;
        let Some(edge) = self.get_mut(place) else { return };
        let totals = Counters { active: 0, ..totals };
        let counted = if settled {
            edge.counted()
        } else {
            Counters::default()
        };
        let base = edge.base.get_or_insert_default();
        base.totals = base.totals.larger(totals.excess(counted));
        base.evidence = evidence;
        let sides = edge.sides();
        for ZoneBytes {
            client,
            server,
            bytes,
        } in zones
        {
            let (client, server) = (known_zones.zone(&client), known_zones.zone(&server));
            let pair = known_zones.pair(client, server);
            if pair != ZonePair::NONE && bytes > 0 {
                edge.zones
                    .get_or_insert_default()
                    .seed(pair, bytes, sides, settled);
            }
        }
        edge.first_seen = edge.first_seen.min(first_seen);
        edge.last_seen = edge.last_seen.max(last_seen);
        edge.loss |= incomplete.loss;
        edge.folded |= incomplete.folded;
        let id = edge.id.clone();
        if let Some(service) = service {
            edge.addressed(&Arc::new(service.clone()));
            self.through
                .entry((id.client.clone(), service))
                .or_default()
                .insert(id.server.clone());
        }
        self.changed.insert(id);
    }

    pub(crate) fn settle(&mut self) {
        if self.settled {
            return;
        }
        self.settled = true;
        for place in self.by_id.values().copied().collect::<Vec<_>>() {
            if let Some(edge) = self.get_mut(place) {
                edge.settle();
            }
        }
    }

    pub(crate) fn forget(&mut self, key: &EdgeKey, names: &Interner<Entity>) {
        let (Some(client), Some(server)) = (names.get(&key.client), names.get(&key.server)) else {
            return;
        };
        let id = EdgeId {
            client,
            server,
            port: key.port,
            transport: key.transport,
        };
        let Some(&place) = self.by_id.get(&id) else { return };
        if self
            .get(place)
            .is_some_and(|edge| edge.totals(self.settled).active > 0)
        {
            return;
        }
        self.unlist(&id);
        if let Some(edge) = self.get_mut(place) {
            edge.base = None;
            if let Some(zones) = &mut edge.zones {
                zones.forget_base();
            }
        }
        self.changed.insert(id);
        self.unsure.insert(place);
    }
}
