//! What people are told who make `ServiceDependency` objects by hand.
//!
//! Their spec is never touched and they are never deleted; their status says that Leyline tells nothing about them.
//! Answers wait here until this replica leads, at most 1,000; what is beyond gets its answer after a restart.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ObjectTime;
use leyline_api::conditions::{self, Condition, ObservedReason};
use leyline_api::{ConditionType, ServiceDependency};
use leyline_graph::entity::Time;

/// Answers that wait.
const LIMIT: usize = 1_000;
const MESSAGE: &str =
    "not written by Leyline, which tells nothing about it; dependencies are observed, not declared";

/// One answer: the conditions of an object's status.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Its conditions from now on.
    pub conditions: Vec<Condition>,
}

/// Answers that wait.
#[derive(Debug, Default)]
pub struct Answers(BTreeMap<(String, String), Vec<Condition>>);

impl Answers {
    /// Somebody's own object was seen; it is answered unless it says so already.
    pub fn wanted(&mut self, object: &ServiceDependency, now: Time) {
        let Some(key) = key(object) else { return };
        let old = object
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let answer = conditions(MESSAGE, old, object.metadata.generation, now);
        let said = |new: &Condition| old.iter().any(|old| old.says_the_same(new));
        if answer.iter().all(said) {
            self.0.remove(&key);
        } else {
            self.insert(key, answer);
        }
    }

    /// An object that cannot be understood was seen.
    pub fn invalid(
        &mut self,
        namespace: String,
        name: String,
        generation: Option<i64>,
        error: &str,
        now: Time,
    ) {
        let message = format!("cannot be understood: {error}");
        // Its own conditions cannot be read, so this is said every time the object changes, and not more often.
        self.insert((namespace, name), conditions(&message, &[], generation, now));
    }

    /// The object is gone, or is Leyline's now.
    pub fn forget(&mut self, object: &ServiceDependency) {
        if let Some(key) = key(object) {
            self.0.remove(&key);
        }
    }

    /// At most `count` answers to give now.
    pub fn take(&mut self, count: usize) -> impl Iterator<Item = Answer> {
        (0..count).map_while(|_| {
            let ((namespace, name), conditions) = self.0.pop_first()?;
            Some(Answer {
                namespace,
                name,
                conditions,
            })
        })
    }

    /// An answer that could not be given.
    pub fn put_back(&mut self, answer: Answer) {
        let Answer {
            namespace,
            name,
            conditions,
        } = answer;
        self.0.entry((namespace, name)).or_insert(conditions);
    }

    fn insert(&mut self, key: (String, String), conditions: Vec<Condition>) {
        if self.0.len() < LIMIT || self.0.contains_key(&key) {
            self.0.insert(key, conditions);
        }
    }
}

fn key(object: &ServiceDependency) -> Option<(String, String)> {
    object
        .metadata
        .namespace
        .clone()
        .zip(object.metadata.name.clone())
}

fn conditions(message: &str, old: &[Condition], generation: Option<i64>, now: Time) -> Vec<Condition> {
    let now = ObjectTime(Timestamp::from_millisecond(now.0).unwrap_or(Timestamp::UNIX_EPOCH));
    let new = vec![Condition::observed(ObservedReason::NotGenerated, message, &now)];
    debug_assert!(
        new.iter()
            .all(|condition| condition.type_ == ConditionType::Observed)
    );
    conditions::replace(old, new, generation.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use leyline_api::{EntityRef, ServiceDependencySpec, ServiceDependencyStatus, Transport};

    use super::*;

    const NOW: Time = Time(1_700_000_000_000);

    fn object(name: &str) -> ServiceDependency {
        let end = |name| EntityRef::new("Deployment", "apps", "shop", name);
        let spec = ServiceDependencySpec {
            client: end("a"),
            server: end("b"),
            port: 80,
            transport: Transport::Tcp,
        };
        let mut object = ServiceDependency::new(name, spec);
        object.metadata.namespace = Some("shop".into());
        object.metadata.generation = Some(3);
        object
    }

    #[test]
    fn an_answer_is_given_once_per_generation() {
        let mut answers = Answers::default();
        let mut mine = object("mine");
        answers.wanted(&mine, NOW);
        answers.wanted(&mine, NOW);
        let answer: Vec<Answer> = answers.take(10).collect();
        let [answer] = answer.as_slice() else {
            panic!("{answer:?}")
        };
        assert_eq!(answer.conditions[0].observed_generation, 3);
        let conditions = answer.conditions.clone();
        mine.status = Some(ServiceDependencyStatus {
            conditions,
            ..ServiceDependencyStatus::default()
        });
        answers.wanted(&mine, Time(NOW.0 + 99_000));
        assert_eq!(answers.take(10).count(), 0);
        mine.metadata.generation = Some(4);
        answers.wanted(&mine, NOW);
        assert_eq!(answers.take(10).count(), 1);
    }

    #[test]
    fn what_waits_is_bounded_and_forgotten_with_its_object() {
        let mut answers = Answers::default();
        for number in 0..2 * LIMIT {
            answers.wanted(&object(&format!("o{number}")), NOW);
        }
        answers.forget(&object("o0"));
        assert_eq!(answers.take(usize::MAX).count(), LIMIT - 1);
        answers.invalid("shop".into(), "x".into(), None, &"long ".repeat(1_000), NOW);
        let answer = answers.take(1).next().expect("one");
        assert!(answer.conditions[0].message.len() <= 256);
        answers.put_back(answer);
        assert_eq!(answers.take(9).count(), 1);
    }
}
