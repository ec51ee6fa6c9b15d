//! Events: what a person should hear of, aggregated per client.

use leyline_api::EntityRef;
use leyline_graph::entity::Time;
use std::collections::{HashMap, VecDeque};

use crate::{bucket::Bucket, config::Config};

/// Dependencies an Event names; the others are a number.
const NAMED: usize = 3;
/// Characters of each name in a note, so that it stays under the 1,024 that an Event may have.
const NAME_LENGTH: usize = 200;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// A client talks to a server it did not talk to before.
    NewDependency,
    /// A dependency was not seen for the retention time, and its object is deleted.
    DependencyEnded,
}

impl EventReason {
    /// As the Event spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewDependency => "NewDependency",
            Self::DependencyEnded => "DependencyEnded",
        }
    }
}

/// One Event to create. Its type is Normal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Namespace of the Event, which is that of the objects.
    pub namespace: String,
    /// What happened.
    pub reason: EventReason,
    /// The client it is about.
    pub client: EntityRef,
    /// Name of one of the objects it is about.
    pub object: String,
    /// How many dependencies.
    pub count: u64,
    /// For people.
    pub note: String,
}

#[derive(Debug)]
struct Pending {
    namespace: String,
    object: String,
    servers: Vec<String>,
    count: u64,
}

/// Events that wait for their turn.
#[derive(Debug)]
pub(crate) struct Events {
    order: VecDeque<(EntityRef, EventReason)>,
    pending: HashMap<(EntityRef, EventReason), Pending>,
    bucket: Bucket,
    limit: usize,
    dropped: u64,
}

impl Events {
    pub(crate) fn new(config: &Config, now: Time) -> Self {
        Self {
            order: VecDeque::new(),
            pending: HashMap::new(),
            bucket: Bucket::new(config.events, now),
            limit: config.events_waiting,
            dropped: 0,
        }
    }

    pub(crate) fn add(
        &mut self,
        reason: EventReason,
        client: EntityRef,
        server: &str,
        namespace: &str,
        object: &str,
    ) {
        let key = (client, reason);
        if !self.pending.contains_key(&key) {
            if self.order.len() >= self.limit {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.order.push_back(key.clone());
        }
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            namespace: namespace.to_owned(),
            object: object.to_owned(),
            servers: Vec::new(),
            count: 0,
        });
        pending.count = pending.count.saturating_add(1);
        if pending.servers.len() < NAMED {
            pending.servers.push(server.chars().take(NAME_LENGTH).collect());
        }
    }

    /// The next Event, when its time has come.
    pub(crate) fn take(&mut self, now: Time) -> Option<Event> {
        if self.order.is_empty() || !self.bucket.take(now) {
            return None;
        }
        let key = self.order.pop_front()?;
        let pending = self.pending.remove(&key)?;
        let (client, reason) = key;
        let mut servers = pending.servers.join(", ");
        let others = pending.count.saturating_sub(pending.servers.len() as u64);
        if others > 0 {
            servers = format!("{servers} and {others} more");
        }
        let note = match reason {
            EventReason::NewDependency => format!("{} now depends on {servers}", client.name),
            EventReason::DependencyEnded => format!("{} no longer depends on {servers}", client.name),
        };
        let Pending {
            namespace,
            object,
            servers: _,
            count,
        } = pending;
        Some(Event {
            namespace,
            reason,
            client,
            object,
            count,
            note,
        })
    }

    /// Events that were dropped because too many clients had some.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }
}
