//! Half-edges that wait for a better name, by what may give it to them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::half::Half;
use crate::input::Subject;
use crate::slab::Key;

/// The waiting half-edges, and under which pod and address each is listed.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_subject: HashMap<String, HashSet<Key<Half>>>,
    by_remote: HashMap<IpAddr, HashSet<Key<Half>>>,
    all: HashMap<Key<Half>, (Option<String>, IpAddr)>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn insert(&mut self, key: Key<Half>, subject: &Subject, remote: IpAddr, most: usize) -> bool {
        if self.all.len() >= most {
            return self.all.contains_key(&key);
        }
        let pod = match subject {
            Subject::Pod(pod) => Some(pod.clone()),
            Subject::Process(_) => None,
        };
        if let Some(pod) = &pod {
            self.by_subject.entry(pod.clone()).or_default().insert(key);
        }
        self.by_remote.entry(remote).or_default().insert(key);
        self.all.insert(key, (pod, remote));
        true
    }

    pub(crate) fn remove(&mut self, key: Key<Half>) {
        let Some((pod, remote)) = self.all.remove(&key) else {
            return;
        };
        if let Some(pod) = pod
            && let Some(keys) = self.by_subject.get_mut(&pod)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_subject.remove(&pod);
            }
        }
        if let Some(keys) = self.by_remote.get_mut(&remote) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_remote.remove(&remote);
            }
        }
    }

    pub(crate) fn of_subject(&self, subject: &str) -> impl Iterator<Item = Key<Half>> {
        self.by_subject.get(subject).into_iter().flatten().copied()
    }

    pub(crate) fn of_remote(&self, remote: IpAddr) -> impl Iterator<Item = Key<Half>> {
        self.by_remote.get(&remote).into_iter().flatten().copied()
    }

    pub(crate) fn all(&self) -> Vec<Key<Half>> {
        self.all.keys().copied().collect()
    }
}
