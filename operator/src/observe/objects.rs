//! The watch on `ServiceDependency` objects.
//!
//! The first list seeds graph and plan; what comes later says which objects somebody deleted, changed or made by hand.
//! No store: only keys are kept. An object that cannot be understood is an input like any other.

use std::collections::HashSet;

use futures::Stream;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use leyline_api::ServiceDependency;
use tokio_util::sync::CancellationToken;

use super::watch::pass_on;
use crate::graph::{Input, Inputs, Kind, Object};
use crate::metrics::Metrics;

type Guarded = DeserializeGuard<ServiceDependency>;
type Key = (String, String);

/// Follows `events` until `shutdown` or until the graph is gone.
pub(super) async fn follow(
    events: impl Stream<Item = Result<Event<Guarded>, watcher::Error>>,
    inputs: Inputs,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut known = Known::default();
    pass_on(
        Kind::ServiceDependency,
        events,
        |event| known.take(event),
        inputs,
        metrics,
        shutdown,
    )
    .await;
}

#[derive(Default)]
struct Known {
    keys: HashSet<Key>,
    listing: HashSet<Key>,
    listed: bool,
}

impl Known {
    fn take(&mut self, event: Event<Guarded>) -> Vec<Input> {
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = key(&object);
                self.listing.insert(key.clone());
                self.keys.insert(key);
                vec![present(object)]
            }
            Event::InitDone => {
                let fresh = std::mem::take(&mut self.listing);
                let before = std::mem::replace(&mut self.keys, fresh);
                let gone: HashSet<Key> = before
                    .into_iter()
                    .filter(|key| !self.keys.contains(key))
                    .collect();
                let mut inputs = Vec::new();
                if !gone.is_empty() {
                    inputs.push(Input::Object(Object::Missing(gone)));
                }
                if !std::mem::replace(&mut self.listed, true) {
                    inputs.push(Input::Listed(Kind::ServiceDependency));
                }
                inputs
            }
            Event::Apply(object) => {
                self.keys.insert(key(&object));
                vec![present(object)]
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.keys.remove(&key);
                vec![Input::Object(match object.0 {
                    Ok(object) => Object::Gone(Box::new(object)),
                    Err(_) => Object::Missing(HashSet::from([key])),
                })]
            }
        }
    }
}

fn key(object: &Guarded) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn present(object: Guarded) -> Input {
    Input::Object(match object.0 {
        Ok(mut object) => {
            object.metadata.managed_fields = None;
            Object::Present(Box::new(object))
        }
        Err(invalid) => Object::Invalid {
            namespace: invalid.metadata.namespace.unwrap_or_default(),
            name: invalid.metadata.name.unwrap_or_default(),
            generated: leyline_api::labels::is_generated(invalid.metadata.labels.as_ref()),
            generation: invalid.metadata.generation,
            error: invalid.error,
        },
    })
}
