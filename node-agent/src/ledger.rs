//! Folds the kernel's half-edges into the half-edges that are reported, and remembers what changed when.
//!
//! Inputs: entries of the kernel's map with the name of whom they belong to, and the time. Outputs: reported
//! half-edges with totals that only grow, in the order of their last change, so that each stream sends only what
//! is newer than its own cursor; which kernel entries may be removed; what was not counted and why.
//! No clock, no IO.
//!
//! Several kernel entries make one reported half-edge: a pod has a cgroup per container, a service has a thread
//! group per worker. Only differences are added, so a kernel entry may be removed at any time without a total
//! going back. Ids are never reused.
//!
//! Deliberately absent: connections (see [`crate::connections`]), names of workloads (the operator's work).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use leyline_abi::{HalfEdge, HalfEdgeKey};

use crate::totals::{active, add, attempts, difference};

/// How long an entry without live sockets stays while there is room.
pub const IDLE: Duration = Duration::from_secs(600);
/// The same, when more than half of the room is taken.
const IDLE_ABOVE_HALF: Duration = Duration::from_secs(60);
/// The same, when more than three quarters are taken. Longer than a report may take to get out.
const IDLE_ABOVE_THREE_QUARTERS: Duration = Duration::from_secs(10);
/// How long an entry may wait for its cgroup to get a name.
const PENDING: Duration = Duration::from_secs(30);

/// Whom a half-edge belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A pod, by the uid found in its cgroup path.
    Pod(Arc<str>),
    /// A process outside pods in the node's own network, by unit or executable.
    Process(Arc<str>),
}

/// The answer to "whose is this kernel entry?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Known.
    Subject(Subject),
    /// A process outside pods in another network namespace: not this node's to report.
    ForeignNetwork,
    /// Not known yet; asked again at the next read.
    Unknown,
}

/// Key of a reported half-edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReportedKey {
    /// Whose sockets.
    pub subject: Subject,
    /// The other end, IPv4 in its mapped form.
    pub remote: [u8; 16],
    /// The server's port.
    pub port: u16,
    /// See [`leyline_abi::role`].
    pub role: u8,
    /// See [`leyline_abi::transport`].
    pub transport: u8,
}

/// A reported half-edge.
#[derive(Debug)]
pub struct Reported {
    /// What it is.
    pub key: ReportedKey,
    /// Whether connections are recorded one by one as well.
    pub split: bool,
    /// Totals since the agent started; `serial` has no meaning here.
    pub totals: HalfEdge,
    change: u64,
    contributors: u32,
}

impl Reported {
    /// Sockets open now.
    #[must_use]
    pub fn active(&self) -> u64 {
        active(&self.totals)
    }
}

/// What happened to a kernel entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It adds to this reported half-edge.
    Reported(u32),
    /// It has no name yet.
    Pending,
    /// It belongs to nobody that is reported; counted in [`LedgerLoss`].
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Reported(u32),
    Pending { since_ns: u64 },
    Rejected(Cause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    ForeignNetwork,
    UnknownCgroup,
    Full,
}

struct Tracked {
    last: HalfEdge,
    place: Place,
}

/// Connections and attempts that are in no reported half-edge, by cause. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerLoss {
    /// Processes outside pods in another network namespace.
    pub foreign_network: u64,
    /// The cgroup could not be named in time.
    pub unknown_cgroup: u64,
    /// No room for another reported half-edge.
    pub full: u64,
}

/// See the module's documentation.
pub struct Ledger {
    capacity: usize,
    kernel: HashMap<HalfEdgeKey, Tracked>,
    serials: HashMap<u64, HalfEdgeKey>,
    reported: HashMap<u32, Reported>,
    ids: HashMap<ReportedKey, u32>,
    by_change: BTreeMap<u64, u32>,
    change: u64,
    last_id: u32,
    ended: u64,
    opened: u64,
    loss: LedgerLoss,
}

impl Ledger {
    /// An empty ledger for at most `capacity` reported half-edges; the kernel's map should have the same size.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            kernel: HashMap::new(),
            serials: HashMap::new(),
            reported: HashMap::new(),
            ids: HashMap::new(),
            by_change: BTreeMap::new(),
            change: 0,
            last_id: 0,
            ended: 0,
            opened: 0,
            loss: LedgerLoss::default(),
        }
    }

    /// Takes in one entry of the kernel's map. `name` is asked only while the entry has no name; `split` once per
    /// reported half-edge.
    pub fn observe(
        &mut self,
        key: &HalfEdgeKey,
        value: &HalfEdge,
        now_ns: u64,
        name: impl FnOnce(&HalfEdgeKey) -> Naming,
        split: impl FnOnce(&HalfEdgeKey) -> bool,
    ) {
        let tracked = self.kernel.get(key);
        let (known, place) = match tracked {
            Some(tracked) if tracked.last.serial == value.serial => (tracked.last, tracked.place),
            other => {
                if let Some(stale) = other {
                    let (serial, place) = (stale.last.serial, stale.place);
                    self.release(serial, place);
                }
                self.serials.insert(value.serial, *key);
                (HalfEdge::default(), Place::Pending { since_ns: now_ns })
            }
        };
        let added = difference(value, &known);
        let place = match place {
            Place::Pending { since_ns } => match self.settle(key, since_ns, now_ns, name, split) {
                Some(place) => place,
                None => {
                    // Nothing is folded yet, so that the whole entry counts once it has a name.
                    let nothing = HalfEdge {
                        serial: value.serial,
                        changed_ns: value.changed_ns,
                        ..HalfEdge::default()
                    };
                    self.kernel.insert(*key, Tracked { last: nothing, place });
                    return;
                }
            },
            settled => settled,
        };
        match place {
            Place::Reported(id) => self.fold(id, &added),
            Place::Rejected(cause) => self.count_loss(cause, attempts(&added)),
            Place::Pending { .. } => {}
        }
        self.kernel.insert(*key, Tracked { last: *value, place });
    }

    /// The place of an entry that had none; `None` while it has to wait.
    fn settle(
        &mut self,
        key: &HalfEdgeKey,
        since_ns: u64,
        now_ns: u64,
        name: impl FnOnce(&HalfEdgeKey) -> Naming,
        split: impl FnOnce(&HalfEdgeKey) -> bool,
    ) -> Option<Place> {
        match name(key) {
            Naming::ForeignNetwork => Some(Place::Rejected(Cause::ForeignNetwork)),
            Naming::Unknown if elapsed(since_ns, now_ns) < PENDING => None,
            Naming::Unknown => Some(Place::Rejected(Cause::UnknownCgroup)),
            Naming::Subject(subject) => {
                let reported = ReportedKey {
                    subject,
                    remote: key.remote,
                    port: key.port,
                    role: key.role,
                    transport: key.transport,
                };
                Some(self.enter(reported, || split(key)))
            }
        }
    }

    /// Finds or makes the reported half-edge and adds one contributor to it.
    fn enter(&mut self, key: ReportedKey, split: impl FnOnce() -> bool) -> Place {
        if let Some(id) = self.ids.get(&key).copied()
            && let Some(entry) = self.reported.get_mut(&id)
        {
            entry.contributors += 1;
            return Place::Reported(id);
        }
        let Some(id) = self
            .last_id
            .checked_add(1)
            .filter(|_| self.reported.len() < self.capacity)
        else {
            return Place::Rejected(Cause::Full);
        };
        self.last_id = id;
        self.change += 1;
        self.by_change.insert(self.change, id);
        self.ids.insert(key.clone(), id);
        let totals = HalfEdge::default();
        self.reported.insert(
            id,
            Reported {
                key,
                split: split(),
                totals,
                change: self.change,
                contributors: 1,
            },
        );
        Place::Reported(id)
    }

    fn fold(&mut self, id: u32, added: &HalfEdge) {
        let Some(entry) = self.reported.get_mut(&id) else {
            return;
        };
        if !add(&mut entry.totals, added) {
            return;
        }
        self.opened = self.opened.saturating_add(added.opened);
        self.by_change.remove(&entry.change);
        self.change += 1;
        entry.change = self.change;
        self.by_change.insert(self.change, id);
    }

    fn count_loss(&mut self, cause: Cause, connections: u64) {
        let counter = match cause {
            Cause::ForeignNetwork => &mut self.loss.foreign_network,
            Cause::UnknownCgroup => &mut self.loss.unknown_cgroup,
            Cause::Full => &mut self.loss.full,
        };
        *counter = counter.saturating_add(connections);
    }

    fn release(&mut self, serial: u64, place: Place) {
        self.serials.remove(&serial);
        if let Place::Reported(id) = place
            && let Some(entry) = self.reported.get_mut(&id)
        {
            entry.contributors = entry.contributors.saturating_sub(1);
        }
    }

    /// Connections seen becoming established, over all half-edges that were ever reported.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// What became of the kernel entry that connection records call `serial`; `None` when it was never seen.
    #[must_use]
    pub fn fate(&self, serial: u64) -> Option<Fate> {
        let tracked = self.kernel.get(self.serials.get(&serial)?)?;
        Some(match tracked.place {
            Place::Reported(id) => Fate::Reported(id),
            Place::Pending { .. } => Fate::Pending,
            Place::Rejected(_) => Fate::Rejected,
        })
    }

    /// Kernel entries that may be removed: no live socket, and idle for as long as the room left demands. At most
    /// `limit`. The caller removes each from the kernel's map and says so by [`Self::removed`].
    #[must_use]
    pub fn removable(&self, now_ns: u64, limit: usize) -> Vec<HalfEdgeKey> {
        let idle = self.idle_limit(self.kernel.len());
        self.kernel
            .iter()
            .filter(|(_, tracked)| {
                let waits = matches!(tracked.place, Place::Pending { .. });
                !waits && active(&tracked.last) == 0 && elapsed(tracked.last.changed_ns, now_ns) >= idle
            })
            .map(|(key, _)| *key)
            .take(limit)
            .collect()
    }

    /// The kernel entry is gone; `last` is what it held then, if that could be read.
    pub fn removed(&mut self, key: &HalfEdgeKey, last: Option<&HalfEdge>) {
        let Some(tracked) = self.kernel.remove(key) else {
            return;
        };
        if let Some(last) = last.filter(|last| last.serial == tracked.last.serial) {
            let added = difference(last, &tracked.last);
            match tracked.place {
                Place::Reported(id) => self.fold(id, &added),
                Place::Rejected(cause) => self.count_loss(cause, attempts(&added)),
                Place::Pending { .. } => self.count_loss(Cause::UnknownCgroup, attempts(&added)),
            }
        }
        self.release(tracked.last.serial, tracked.place);
    }

    /// Ends reported half-edges that no kernel entry adds to any more and that have been idle long enough.
    pub fn end_idle(&mut self, now_ns: u64) {
        let idle = self.idle_limit(self.reported.len());
        let over: Vec<u32> = self
            .reported
            .iter()
            .filter(|(_, entry)| entry.contributors == 0 && elapsed(entry.totals.changed_ns, now_ns) >= idle)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(entry) = self.reported.remove(&id) {
                self.by_change.remove(&entry.change);
                self.ids.remove(&entry.key);
                self.ended += 1;
            }
        }
    }

    fn idle_limit(&self, used: usize) -> Duration {
        match used.saturating_mul(4) / self.capacity.max(1) {
            0 | 1 => IDLE,
            2 => IDLE_ABOVE_HALF,
            _ => IDLE_ABOVE_THREE_QUARTERS,
        }
    }

    /// Reported half-edges that changed after `cursor`, oldest change first, each with its place in that order.
    pub fn changed_since(&self, cursor: u64) -> impl Iterator<Item = (u64, u32, &Reported)> {
        self.by_change
            .range((Bound::Excluded(cursor), Bound::Unbounded))
            .filter_map(|(change, id)| Some((*change, *id, self.reported.get(id)?)))
    }

    /// Whether an id is still reported.
    #[must_use]
    pub fn holds(&self, id: u32) -> bool {
        self.reported.contains_key(&id)
    }

    /// Sockets open now in a reported half-edge.
    #[must_use]
    pub fn active(&self, id: u32) -> u64 {
        self.reported.get(&id).map_or(0, Reported::active)
    }

    /// How many reported half-edges were ended so far: unchanged means there is nothing to look for.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// Reported half-edges now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reported.len()
    }

    /// Whether nothing is reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reported.is_empty()
    }

    /// Kernel entries now.
    #[must_use]
    pub fn kernel_entries(&self) -> usize {
        self.kernel.len()
    }

    /// What was not counted so far.
    #[must_use]
    pub fn loss(&self) -> LedgerLoss {
        self.loss
    }
}

fn elapsed(since_ns: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(since_ns))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
