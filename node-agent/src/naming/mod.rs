//! Whose is a kernel entry? cgroup id → pod, thread group → unit or executable.
//!
//! Inputs: the cgroup directory tree, the kernel's cgroup events, `/proc`. Outputs: a [`Naming`] per entry. IO:
//! directory scans and small reads of `/proc`, all bounded; every read may fail because its subject is gone.
//!
//! Deliberately absent: the Kubernetes API, and network namespaces other than by number.

mod cgroups;
mod processes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leyline_abi::HalfEdgeKey;

pub use cgroups::{Cgroups, Known, unified_root};
pub use processes::{Processes, own_netns};

use crate::ledger::{Naming, Subject};

/// Network namespaces remembered for [`Naming`] without a unified hierarchy.
const MAX_NAMESPACES: usize = 4_096;
/// Between two scans that an unknown cgroup asks for.
const RESCAN: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Names {
    /// cgroup id → identity.
    pub cgroups: Cgroups,
    processes: Processes,
    own_netns: u32,
    pods_by_netns: HashMap<u32, Arc<str>>,
    rescanned_ns: Option<u64>,
}

impl Names {
    /// Puts both tables together; `own_netns` is the node's own network namespace.
    #[must_use]
    pub fn new(cgroups: Cgroups, processes: Processes, own_netns: u32) -> Self {
        Self {
            cgroups,
            processes,
            own_netns,
            pods_by_netns: HashMap::new(),
            rescanned_ns: None,
        }
    }

    /// Names one kernel entry. `comm` is what the kernel remembers of a thread group that is gone.
    pub fn name(
        &mut self,
        key: &HalfEdgeKey,
        now_ns: u64,
        comm: impl FnOnce(u32) -> Option<[u8; 16]>,
    ) -> Naming {
        let naming = self.named(key, now_ns, comm);
        if naming == Naming::Unknown {
            tracing::debug!(?key, "no name yet");
        }
        naming
    }

    fn named(
        &mut self,
        key: &HalfEdgeKey,
        now_ns: u64,
        comm: impl FnOnce(u32) -> Option<[u8; 16]>,
    ) -> Naming {
        match self.cgroup(key.cgroup, now_ns) {
            Some(Known::Pod(uid)) => Naming::Subject(Subject::Pod(uid)),
            Some(Known::Unit(name)) if key.netns == self.own_netns => Naming::Subject(Subject::Process(name)),
            // The socket's cgroup belongs to nobody in particular: the process does.
            Some(Known::Other | Known::Unit(_)) => self.by_process(key, now_ns, comm),
            None => Naming::Unknown,
        }
    }

    fn cgroup(&mut self, id: u64, now_ns: u64) -> Option<Known> {
        let known = self.cgroups.get(id);
        if known.is_some() {
            return known;
        }
        let waits = |since: u64| Duration::from_nanos(now_ns.saturating_sub(since)) < RESCAN;
        if self.rescanned_ns.is_some_and(waits) {
            return None;
        }
        self.rescanned_ns = Some(now_ns);
        self.cgroups.scan();
        self.cgroups.get(id)
    }

    fn by_process(
        &mut self,
        key: &HalfEdgeKey,
        now_ns: u64,
        comm: impl FnOnce(u32) -> Option<[u8; 16]>,
    ) -> Naming {
        let is_own = key.netns == self.own_netns;
        let pod = self.processes.pod(key.owner, now_ns);
        // Without a unified hierarchy every socket is in its root: pods are known by their processes, and by
        // their network namespace once one process has told.
        if let Some(uid) = pod {
            if !is_own && self.pods_by_netns.len() < MAX_NAMESPACES {
                self.pods_by_netns.insert(key.netns, Arc::clone(&uid));
            }
            return Naming::Subject(Subject::Pod(uid));
        }
        if !is_own {
            let remembered = self
                .pods_by_netns
                .get(&key.netns)
                .filter(|_| self.cgroups.root().is_none());
            return remembered.map_or(Naming::ForeignNetwork, |uid| {
                Naming::Subject(Subject::Pod(Arc::clone(uid)))
            });
        }
        match self.processes.name(key.owner, now_ns, comm) {
            Some(name) => Naming::Subject(Subject::Process(name)),
            None => Naming::Unknown,
        }
    }

    /// Forgets what is old.
    pub fn expire(&mut self, now_ns: u64) {
        self.cgroups.expire(now_ns);
        self.processes.expire(now_ns);
    }
}
