//! One watch: Kubernetes events in, trimmed changes out.
//!
//! No store: of every object only its key and a hash of what was trimmed are kept, to notice what is gone after a
//! restart of the watch and to say nothing when nothing the graph needs has changed.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hasher};

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use tokio_util::sync::CancellationToken;

use super::trim::Trim;
use crate::graph::{Input, Inputs, Inventory, Kind};
use crate::metrics::{KindLabels, Metrics};

/// Follows `events` until `shutdown` or until the graph is gone. `events` must back off by itself after errors.
pub async fn follow<T: Trim>(
    events: impl Stream<Item = Result<Event<T>, watcher::Error>>,
    inputs: Inputs,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut tracker = Tracker::default();
    pass_on(
        T::KIND,
        events,
        |event| tracker.take(event),
        inputs,
        metrics,
        shutdown,
    )
    .await;
}

/// Hands what `take` makes of every event to the graph.
pub(super) async fn pass_on<T>(
    kind: Kind,
    events: impl Stream<Item = Result<Event<T>, watcher::Error>>,
    mut take: impl FnMut(Event<T>) -> Vec<Input>,
    inputs: Inputs,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Ok(event)) => {
                for input in take(event) {
                    if inputs.send(input).await.is_err() {
                        return;
                    }
                }
            }
            Some(Err(error)) => complain(kind.as_str(), &error, &metrics),
        }
    }
}

/// Logs and counts an error of a watch.
fn complain(kind: &'static str, error: &watcher::Error, metrics: &Metrics) {
    metrics.watch_errors.get_or_create(&KindLabels { kind }).inc();
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let hint = if kind_is_missing(error) {
        "; is its CRD installed? (kubectl apply -k config/crds)"
    } else {
        ""
    };
    tracing::warn!(kind, cause, "a watch failed and starts again: {error}{hint}");
}

fn kind_is_missing(error: &watcher::Error) -> bool {
    let cause = match error {
        watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) => cause,
        _ => return false,
    };
    matches!(cause, kube::Error::Api(status) if status.code == 404)
}

/// What is known of the objects of one kind.
#[derive(Default)]
struct Tracker {
    known: HashMap<String, u64>,
    /// While a list is coming in.
    listing: HashMap<String, u64>,
    listed: bool,
}

impl Tracker {
    fn take<T: Trim>(&mut self, event: Event<T>) -> Vec<Input> {
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = object.key();
                let (hash, change) = trimmed(object);
                self.listing.insert(key.clone(), hash);
                if self.known.insert(key, hash) == Some(hash) {
                    Vec::new()
                } else {
                    vec![change]
                }
            }
            Event::InitDone => {
                let fresh = std::mem::take(&mut self.listing);
                let before = std::mem::replace(&mut self.known, fresh);
                let gone = before.into_keys().filter(|key| !self.known.contains_key(key));
                let mut inputs: Vec<Input> = gone.map(|key| Input::Inventory(T::gone(key))).collect();
                if !std::mem::replace(&mut self.listed, true) {
                    inputs.push(Input::Listed(T::KIND));
                }
                inputs
            }
            Event::Apply(object) => {
                let key = object.key();
                let (hash, change) = trimmed(object);
                if self.known.insert(key, hash) == Some(hash) {
                    Vec::new()
                } else {
                    vec![change]
                }
            }
            Event::Delete(object) => {
                let key = object.key();
                self.known.remove(&key);
                vec![Input::Inventory(T::gone(key))]
            }
        }
    }
}

fn trimmed(object: impl Trim) -> (u64, Input) {
    let inventory = object.trim();
    (fingerprint(&inventory), Input::Inventory(inventory))
}

/// A hash over the debug text, without making the text.
fn fingerprint(inventory: &Inventory) -> u64 {
    struct Into(DefaultHasher);
    impl Write for Into {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    fn hash(value: &impl Debug) -> u64 {
        let mut into = Into(DefaultHasher::new());
        // Writing into a hasher cannot fail.
        let _ = write!(into, "{value:?}");
        into.0.finish()
    }
    hash(inventory)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::core::{ObjectMeta, PartialObjectMeta};

    use super::*;

    fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    fn applied(name: &str) -> Input {
        Input::Inventory(Inventory::Namespace {
            name: name.into(),
            terminating: false,
        })
    }

    fn gone(name: &str) -> Input {
        Input::Inventory(Inventory::NamespaceGone { name: name.into() })
    }

    fn take(tracker: &mut Tracker, events: Vec<Event<PartialObjectMeta<Namespace>>>) -> Vec<String> {
        let inputs = events.into_iter().flat_map(|event| tracker.take(event));
        inputs.map(|input| format!("{input:?}")).collect()
    }

    fn texts(inputs: &[Input]) -> Vec<String> {
        inputs.iter().map(|input| format!("{input:?}")).collect()
    }

    #[test]
    fn the_first_list_ends_with_listed_and_later_ones_do_not() {
        let mut tracker = Tracker::default();
        let events = || vec![Event::Init, Event::InitApply(namespace("a")), Event::InitDone];
        assert_eq!(
            take(&mut tracker, events()),
            texts(&[applied("a"), Input::Listed(Kind::Namespace)])
        );
        assert!(take(&mut tracker, events()).is_empty(), "nothing has changed");
    }

    #[test]
    fn what_is_missing_in_a_later_list_is_gone() {
        let mut tracker = Tracker::default();
        take(
            &mut tracker,
            vec![Event::Init, Event::InitApply(namespace("a")), Event::InitDone],
        );
        take(&mut tracker, vec![Event::Apply(namespace("b"))]);
        let again = take(
            &mut tracker,
            vec![Event::Init, Event::InitApply(namespace("b")), Event::InitDone],
        );
        assert_eq!(again, texts(&[gone("a")]));
    }

    #[test]
    fn an_aborted_list_removes_nothing() {
        let mut tracker = Tracker::default();
        take(
            &mut tracker,
            vec![
                Event::Init,
                Event::InitApply(namespace("a")),
                Event::InitApply(namespace("b")),
                Event::InitDone,
            ],
        );
        let aborted = vec![Event::Init, Event::InitApply(namespace("a")), Event::Init];
        assert!(take(&mut tracker, aborted).is_empty());
        let whole = vec![Event::InitApply(namespace("b")), Event::InitDone];
        assert_eq!(take(&mut tracker, whole), texts(&[gone("a")]));
    }

    #[test]
    fn an_unchanged_object_is_said_once_and_again_after_its_deletion() {
        let mut tracker = Tracker::default();
        let events = vec![
            Event::Apply(namespace("a")),
            Event::Apply(namespace("a")),
            Event::Delete(namespace("a")),
            Event::Apply(namespace("a")),
        ];
        assert_eq!(
            take(&mut tracker, events),
            texts(&[applied("a"), gone("a"), applied("a")])
        );
    }
}
