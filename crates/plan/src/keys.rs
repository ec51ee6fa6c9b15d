//! Small keys for edges: each entity is kept once, however many edges it has.

use leyline_graph::entity::{EdgeKey, Entity, Time, Transport};
use std::{collections::HashMap, sync::Arc};

/// An edge, in 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EdgeId {
    pub(crate) client: u32,
    pub(crate) server: u32,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

#[derive(Debug)]
struct Slot {
    entity: Arc<Entity>,
    edges: u32,
    /// When the entity was first seen as a client.
    client_since: Option<Time>,
}

/// All entities of all edges.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    ids: HashMap<Arc<Entity>, u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
}

impl Keys {
    /// The id of an edge whose entities are known.
    pub(crate) fn find(&self, key: &EdgeKey) -> Option<EdgeId> {
        Some(EdgeId {
            client: *self.ids.get(&key.client)?,
            server: *self.ids.get(&key.server)?,
            port: key.port,
            transport: key.transport,
        })
    }

    /// The id of an edge that is kept from now on; ends with [`Keys::release`].
    pub(crate) fn keep(&mut self, key: &EdgeKey) -> EdgeId {
        EdgeId {
            client: self.keep_entity(&key.client),
            server: self.keep_entity(&key.server),
            port: key.port,
            transport: key.transport,
        }
    }

    fn keep_entity(&mut self, entity: &Entity) -> u32 {
        let known = self.ids.get(entity).copied();
        let slot = known
            .and_then(|id| self.slots.get_mut(id as usize))
            .and_then(Option::as_mut);
        if let (Some(id), Some(slot)) = (known, slot) {
            slot.edges = slot.edges.saturating_add(1);
            return id;
        }
        let entity = Arc::new(entity.clone());
        let slot = Slot {
            entity: Arc::clone(&entity),
            edges: 1,
            client_since: None,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.slots.get_mut(id as usize) {
            *place = Some(slot);
        }
        self.ids.insert(entity, id);
        id
    }

    /// The edge is gone; entities without any edge go too.
    pub(crate) fn release(&mut self, id: EdgeId) {
        for entity in [id.client, id.server] {
            let Some(place) = self.slots.get_mut(entity as usize) else {
                continue;
            };
            let Some(slot) = place else { continue };
            slot.edges = slot.edges.saturating_sub(1);
            if slot.edges == 0 {
                self.ids.remove(&slot.entity);
                *place = None;
                self.free.push(entity);
            }
        }
    }

    /// The full key of an edge that is kept.
    pub(crate) fn key(&self, id: EdgeId) -> Option<EdgeKey> {
        Some(EdgeKey {
            client: self.entity(id.client)?.clone(),
            server: self.entity(id.server)?.clone(),
            port: id.port,
            transport: id.transport,
        })
    }

    /// One entity that is kept.
    pub(crate) fn entity(&self, id: u32) -> Option<&Entity> {
        Some(&self.slots.get(id as usize)?.as_ref()?.entity)
    }

    /// Remembers that the client was there at this time.
    pub(crate) fn client_seen(&mut self, id: EdgeId, at: Time) {
        if let Some(Some(slot)) = self.slots.get_mut(id.client as usize) {
            slot.client_since = Some(slot.client_since.map_or(at, |since| since.min(at)));
        }
    }

    /// Since when the client is known as one.
    pub(crate) fn client_since(&self, id: EdgeId) -> Option<Time> {
        self.slots.get(id.client as usize)?.as_ref()?.client_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(name: &str) -> Entity {
        Entity {
            kind: "Pod".into(),
            api_group: String::new(),
            namespace: "n".into(),
            name: name.into(),
        }
    }

    fn key(client: &str, server: &str) -> EdgeKey {
        EdgeKey {
            client: entity(client),
            server: entity(server),
            port: 80,
            transport: Transport::Tcp,
        }
    }

    #[test]
    fn entities_live_as_long_as_their_edges() {
        let mut keys = Keys::default();
        let ab = keys.keep(&key("a", "b"));
        let bc = keys.keep(&key("b", "c"));
        let aa = keys.keep(&key("a", "a"));
        assert_eq!(keys.find(&key("a", "b")), Some(ab));
        assert_eq!(keys.key(bc), Some(key("b", "c")));
        keys.release(ab);
        assert_eq!(keys.key(bc), Some(key("b", "c")));
        assert_eq!(keys.key(aa), Some(key("a", "a")));
        keys.release(bc);
        keys.release(aa);
        assert_eq!(keys.find(&key("a", "a")), None);
        assert!(keys.ids.is_empty() && keys.slots.iter().all(Option::is_none));
        let again = keys.keep(&key("x", "y"));
        assert_eq!(keys.key(again), Some(key("x", "y")));
        assert_eq!(keys.slots.len(), 3, "freed places are used again");
    }
}
