//! Entities and subjects, each held once however many edges and half-edges name it.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::entity::Entity;

/// A shared value that is equal to another one exactly if it is the same one.
#[derive(Debug)]
pub(crate) struct Shared<T>(Arc<T>);

/// An interned entity.
pub(crate) type EntityRef = Shared<Entity>;

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl<T> Eq for Shared<T> {}
impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Holds every value once.
#[derive(Debug)]
pub(crate) struct Interner<T>(HashSet<Arc<T>>);

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Hash + Eq> Interner<T> {
    pub(crate) fn intern(&mut self, value: T) -> Shared<T> {
        if let Some(known) = self.0.get(&value) {
            return Shared(Arc::clone(known));
        }
        let value = Arc::new(value);
        self.0.insert(Arc::clone(&value));
        Shared(value)
    }

    pub(crate) fn get(&self, value: &T) -> Option<Shared<T>> {
        self.0.get(value).map(|known| Shared(Arc::clone(known)))
    }

    /// Lets go of what nobody names any more.
    pub(crate) fn sweep(&mut self) {
        self.0.retain(|value| Arc::strong_count(value) > 1);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
