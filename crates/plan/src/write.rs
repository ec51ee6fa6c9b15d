//! What the planner asks for, and what it is told afterwards.

use leyline_api::ServiceDependency;

use crate::keys::EdgeId;

/// Which lane a write belongs to: each has a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Objects that appear or go, and repairs.
    New,
    /// A state, condition, Service or evidence that changed.
    Conditions,
    /// Totals and figures alone.
    Figures,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 3] = [Self::New, Self::Conditions, Self::Figures];

    /// The word metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Conditions => "conditions",
            Self::Figures => "figures",
        }
    }
}

/// Names a write when its outcome is reported. Outcomes of writes the planner no longer waits for are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) edge: EdgeId,
    pub(crate) number: u64,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// For [`Planner::done`](crate::Planner::done).
    pub ticket: Ticket,
    /// For metrics.
    pub lane: Lane,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// What to do.
    pub action: Action,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Apply the object (metadata and spec), then its status to the status subresource, in the same work item.
    Apply(Box<ServiceDependency>),
    /// Apply the status only. An object that is not there must be reported as [`Outcome::NotFound`], not made.
    ApplyStatus(Box<ServiceDependency>),
    /// Delete the object. One that is not there is [`Outcome::NotFound`].
    Delete,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The API server has it.
    Done,
    /// The object is not there.
    NotFound,
    /// The namespace is terminating or missing: the edge ends, without a retry.
    NamespaceGone,
    /// The API server does not accept it, and would not the next time either.
    Refused,
    /// It failed for a reason that may pass; it is tried again, later each time.
    Failed,
}

/// Writes that wait, by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// In lane [`Lane::New`].
    pub new: usize,
    /// In lane [`Lane::Conditions`].
    pub conditions: usize,
    /// In lane [`Lane::Figures`].
    pub figures: usize,
    /// Handed out, outcome not known yet.
    pub in_flight: usize,
}

impl Waiting {
    /// The count of one lane.
    #[must_use]
    pub const fn of(&self, lane: Lane) -> usize {
        match lane {
            Lane::New => self.new,
            Lane::Conditions => self.conditions,
            Lane::Figures => self.figures,
        }
    }
}
