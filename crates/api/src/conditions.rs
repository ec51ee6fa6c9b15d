//! Conditions: their types, their closed lists of reasons, and how a new one replaces an old one.
//!
//! A reason is what scripts and alerts match on, so each type has an enum of its own; the message is for people.

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives private copies of the public structs"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest message, in characters, all of them ASCII.
pub const MESSAGE_LENGTH: usize = 256;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// The dependency is being seen.
    Observed,
    /// Both ends have a name that is proven.
    Resolved,
    /// The figures miss nothing.
    Complete,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

/// Why `Observed` has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObservedReason {
    /// True: connections were seen within the idle window.
    ConnectionsSeen,
    /// True: attempts fail, and none has succeeded for minutes.
    OnlyFailures,
    /// False: nothing was seen within the idle window.
    Idle,
    /// False: Leyline did not write this object and tells nothing about it.
    NotGenerated,
}

/// Why `Resolved` has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolvedReason {
    /// True: both ends are named by proof.
    BothEndsKnown,
    /// False: a node's own address, without the other half of the connection.
    NodeAddress,
    /// False: an address that nothing is known about.
    NoName,
    /// False: several candidates and no proof which of them it was.
    Ambiguous,
    /// False: a Service was addressed that has nothing behind it.
    NoEndpoints,
}

/// Why `Complete` has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompleteReason {
    /// True: nothing is known to be missing.
    NothingMissing,
    /// False: events of this dependency were lost.
    Loss,
    /// False: attribution rests on a sample of the connections.
    Sampled,
    /// False: several ends or ports are shown as one.
    Folded,
}

impl ConditionType {
    /// As the object spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "Observed",
            Self::Resolved => "Resolved",
            Self::Complete => "Complete",
        }
    }
}

impl ObservedReason {
    /// As the object spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsSeen => "ConnectionsSeen",
            Self::OnlyFailures => "OnlyFailures",
            Self::Idle => "Idle",
            Self::NotGenerated => "NotGenerated",
        }
    }

    const fn status(self) -> ConditionStatus {
        match self {
            Self::ConnectionsSeen | Self::OnlyFailures => ConditionStatus::True,
            Self::Idle | Self::NotGenerated => ConditionStatus::False,
        }
    }
}

impl ResolvedReason {
    /// As the object spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BothEndsKnown => "BothEndsKnown",
            Self::NodeAddress => "NodeAddress",
            Self::NoName => "NoName",
            Self::Ambiguous => "Ambiguous",
            Self::NoEndpoints => "NoEndpoints",
        }
    }

    const fn status(self) -> ConditionStatus {
        match self {
            Self::BothEndsKnown => ConditionStatus::True,
            Self::NodeAddress | Self::NoName | Self::Ambiguous | Self::NoEndpoints => ConditionStatus::False,
        }
    }
}

impl CompleteReason {
    /// As the object spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NothingMissing => "NothingMissing",
            Self::Loss => "Loss",
            Self::Sampled => "Sampled",
            Self::Folded => "Folded",
        }
    }

    const fn status(self) -> ConditionStatus {
        match self {
            Self::NothingMissing => ConditionStatus::True,
            Self::Loss | Self::Sampled | Self::Folded => ConditionStatus::False,
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One statement about an object, in the form all Kubernetes tools read (`kubectl wait --for=condition=…`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Condition {
    /// What the statement is about. Observed: the dependency is being seen. Resolved: both ends have a proven name.
    /// Complete: the figures are known to miss nothing.
    #[serde(rename = "type")]
    pub type_: ConditionType,

    /// Whether the statement is true.
    pub status: ConditionStatus,

    /// The metadata.generation this statement was made about.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: i64,

    /// When status last changed.
    #[schemars(schema_with = "crate::crd::time_schema")]
    pub last_transition_time: Time,

    /// Why, in one word from a closed list. Observed: ConnectionsSeen, OnlyFailures, Idle, NotGenerated.
    /// Resolved: BothEndsKnown, NodeAddress, NoName, Ambiguous, NoEndpoints.
    /// Complete: NothingMissing, Loss, Sampled, Folded.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z][A-Za-z0-9]*$"))]
    pub reason: String,

    /// The same for people.
    #[schemars(length(max = 256), regex(pattern = r"^[ -~]*$"))]
    pub message: String,
}

impl Condition {
    /// `Observed` with this reason.
    #[must_use]
    pub fn observed(reason: ObservedReason, message: &str, now: &Time) -> Self {
        Self::new(
            ConditionType::Observed,
            reason.status(),
            reason.as_str(),
            message,
            now,
        )
    }

    /// `Resolved` with this reason.
    #[must_use]
    pub fn resolved(reason: ResolvedReason, message: &str, now: &Time) -> Self {
        Self::new(
            ConditionType::Resolved,
            reason.status(),
            reason.as_str(),
            message,
            now,
        )
    }

    /// `Complete` with this reason.
    #[must_use]
    pub fn complete(reason: CompleteReason, message: &str, now: &Time) -> Self {
        Self::new(
            ConditionType::Complete,
            reason.status(),
            reason.as_str(),
            message,
            now,
        )
    }

    fn new(type_: ConditionType, status: ConditionStatus, reason: &str, message: &str, now: &Time) -> Self {
        Self {
            type_,
            status,
            observed_generation: 0,
            last_transition_time: now.clone(),
            reason: reason.to_owned(),
            message: bounded(message),
        }
    }

    /// Whether both say the same, whenever they were made.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            type_,
            status,
            observed_generation,
            last_transition_time: _,
            reason,
            message,
        } = self;
        *type_ == other.type_
            && *status == other.status
            && *observed_generation == other.observed_generation
            && *reason == other.reason
            && *message == other.message
    }
}

/// `new` about generation `generation`, with the transition times of `old` where the status did not change.
#[must_use]
pub fn replace(old: &[Condition], mut new: Vec<Condition>, generation: i64) -> Vec<Condition> {
    for condition in &mut new {
        condition.observed_generation = generation;
        let before = old
            .iter()
            .find(|o| o.type_ == condition.type_ && o.status == condition.status);
        if let Some(before) = before {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }
    new
}

/// Printable ASCII of at most [`MESSAGE_LENGTH`] characters; what was cut ends with three dots.
fn bounded(message: &str) -> String {
    let clean = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    if message.chars().count() <= MESSAGE_LENGTH {
        return message.chars().map(clean).collect();
    }
    let mut cut: String = message.chars().map(clean).take(MESSAGE_LENGTH - 3).collect();
    cut.push_str("...");
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let old = vec![Condition::observed(ObservedReason::ConnectionsSeen, "", &at(10))];
        let same = replace(
            &old,
            vec![Condition::observed(ObservedReason::OnlyFailures, "", &at(20))],
            3,
        );
        assert_eq!(same[0].last_transition_time, at(10));
        assert_eq!(same[0].observed_generation, 3);
        let other = replace(
            &old,
            vec![Condition::observed(ObservedReason::Idle, "", &at(20))],
            3,
        );
        assert_eq!(other[0].last_transition_time, at(20));
    }

    #[test]
    fn messages_are_bounded_and_printable() {
        let long = Condition::complete(CompleteReason::Loss, &"ü".repeat(10_000), &at(0));
        assert_eq!(long.message.len(), MESSAGE_LENGTH);
        assert!(long.message.ends_with("..."));
        let hostile = Condition::complete(CompleteReason::Loss, "a\nb\u{1b}[31m", &at(0));
        assert_eq!(hostile.message, "a?b?[31m");
    }

    #[test]
    fn times_do_not_count_when_comparing() {
        let a = Condition::resolved(ResolvedReason::BothEndsKnown, "", &at(1));
        let b = Condition::resolved(ResolvedReason::BothEndsKnown, "", &at(2));
        assert!(a.says_the_same(&b) && a != b);
        assert!(!a.says_the_same(&Condition::resolved(ResolvedReason::NoName, "", &at(1))));
    }
}
