//! What the planner keeps of one edge, and what that asks for.

use leyline_api::State;
use leyline_graph::{EdgeView, Evidence, Incomplete, ServiceRef, Unresolved, entity::Time};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{config::Config, lanes::Place, totals::Totals, write::Lane};

/// What a status says besides figures. A difference is a reason to write soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) state: State,
    pub(crate) unresolved: Option<Unresolved>,
    pub(crate) incomplete: Incomplete,
    /// Hash of Service and evidence.
    pub(crate) facts: u64,
}

/// What the API server holds of an object's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) at: Time,
    /// Written by this planner, not read.
    pub(crate) own: bool,
    pub(crate) said: Option<Said>,
    pub(crate) last_seen: Time,
    /// Of Observed, Resolved, Complete.
    pub(crate) transitions: [Time; 3],
}

/// What the API server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// No object.
    Absent,
    /// An object of that name that somebody else made: it is theirs.
    Foreign,
    /// An object without status, first noticed at this time.
    Bare(Time),
    /// An object with status.
    Whole(Written),
}

/// What an object says of its beginnings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    pub(crate) first_seen: Option<Time>,
    /// Of the totals; none when it has no totals that can be read.
    pub(crate) counted: Option<Time>,
}

/// One edge.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) stored: Stored,
    pub(crate) first_seen: Time,
    pub(crate) last_seen: Time,
    pub(crate) last_success: Option<Time>,
    pub(crate) last_failure: Option<Time>,
    pub(crate) counted_since: Time,
    pub(crate) unresolved: Option<Unresolved>,
    pub(crate) incomplete: Incomplete,
    pub(crate) facts: u64,
    /// As last written: the object's totals never go below.
    pub(crate) totals: Totals,
    /// Hash of the totals last heard of.
    heard: u64,
    /// When they last moved.
    changed: Time,
    /// They are not what the object says.
    dirty: bool,
    open: bool,
    /// Ever had a connection.
    connected: bool,
    /// Proof took the edge away.
    pub(crate) vanished: bool,
    /// The graph does not know the edge, though nobody said that it vanished.
    pub(crate) unknown: bool,
    /// The object said Failing when it was read.
    pub(crate) was_failing: bool,
    /// The object went while a write was on its way: which of them came first is not known.
    pub(crate) gone_meanwhile: bool,
    /// There was an object once: the edge is no news.
    pub(crate) told: bool,
    /// Number of the write whose outcome is awaited.
    pub(crate) in_flight: Option<u64>,
    pub(crate) attempts: u8,
    /// No write before this time.
    pub(crate) hold: Time,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Wait(Place),
    /// There is nothing left to say or to remove.
    Drop,
}

/// Hash of what [`Said::facts`] covers.
pub(crate) fn facts(service: Option<&ServiceRef>, evidence: Evidence) -> u64 {
    hash(&(service, evidence.client_socket, evidence.server_socket))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Record {
    /// An edge seen from `first_seen` to `last_seen` of which there is no object.
    pub(crate) fn new(first_seen: Time, last_seen: Time) -> Self {
        Self {
            place: Place::Nowhere,
            stored: Stored::Absent,
            first_seen,
            last_seen,
            last_success: None,
            last_failure: None,
            counted_since: first_seen,
            unresolved: None,
            incomplete: Incomplete::default(),
            facts: facts(None, Evidence::default()),
            totals: Totals::default(),
            heard: 0,
            changed: last_seen,
            dirty: false,
            open: false,
            connected: false,
            vanished: false,
            unknown: false,
            was_failing: false,
            gone_meanwhile: false,
            told: false,
            in_flight: None,
            attempts: 0,
            hold: Time::default(),
        }
    }

    /// What the graph says now.
    pub(crate) fn observe(&mut self, view: &EdgeView, now: Time) {
        self.vanished = false;
        self.unknown = false;
        // What an object has said once stands: another replica's clock, or the same connection reported again, may put
        // the beginning a moment earlier.
        if !self.told {
            self.first_seen = self.first_seen.min(view.first_seen);
            self.counted_since = self.first_seen;
        }
        self.last_seen = self.last_seen.max(view.last_seen);
        self.last_success = self.last_success.max(view.last_success);
        self.last_failure = self.last_failure.max(view.last_failure);
        self.unresolved = view.unresolved;
        self.incomplete = view.incomplete;
        self.facts = facts(view.service.as_ref(), view.evidence);
        self.open = view.totals.active > 0;
        self.connected |= view.totals.opened > 0 || view.totals.adopted > 0 || self.open;
        let totals = self.totals_of(view);
        let heard = hash(&totals);
        if heard != self.heard {
            self.heard = heard;
            self.changed = now;
        }
        self.dirty = totals != self.totals;
    }

    /// The totals to write for this view.
    pub(crate) fn totals_of(&self, view: &EdgeView) -> Totals {
        Totals::of(view).at_least(self.totals)
    }

    /// The object was read: its totals and what it says of the past hold here too.
    pub(crate) fn read(&mut self, totals: Totals, since: Since, stored: Stored) {
        self.told = true;
        self.first_seen = since.first_seen.unwrap_or(self.first_seen);
        self.counted_since = since.counted.unwrap_or(self.counted_since);
        self.stored = stored;
        self.totals = totals.at_least(self.totals);
        self.dirty = self.heard != 0 && hash(&self.totals) != self.heard;
        self.connected |= totals.opened > 0 || totals.active > 0;
    }

    /// These totals are written.
    pub(crate) fn wrote(&mut self, totals: Totals, written: Written) {
        self.told = true;
        self.totals = totals;
        self.stored = Stored::Whole(written);
        self.dirty = hash(&totals) != self.heard;
    }

    /// Active, Failing or Idle.
    pub(crate) fn state(&self, now: Time, config: &Config) -> State {
        if self.open {
            return State::Active;
        }
        if passed(self.last_seen, now) >= config.idle_after {
            return State::Idle;
        }
        match (self.last_success, self.last_failure) {
            (Some(success), Some(failure))
                if failure > success && passed(success, now) >= config.failing_after =>
            {
                State::Failing
            }
            (None, Some(_)) => State::Failing,
            (None, None) if self.was_failing || !self.connected => State::Failing,
            _ => State::Active,
        }
    }

    /// What a status written now would say.
    pub(crate) fn said(&self, now: Time, config: &Config) -> Said {
        Said {
            state: self.state(now, config),
            unresolved: self.unresolved,
            incomplete: self.incomplete,
            facts: self.facts,
        }
    }

    /// Whether the retention time is over.
    pub(crate) fn expired(&self, now: Time, config: &Config) -> bool {
        !self.open && passed(self.last_seen, now) >= config.delete_after
    }

    /// Whether an object should be removed rather than written.
    pub(crate) fn ends(&self, now: Time, config: &Config) -> bool {
        self.vanished || self.expired(now, config)
    }

    /// What this record waits for.
    pub(crate) fn next(&self, now: Time, config: &Config) -> Next {
        if self.in_flight.is_some() {
            return Next::Wait(Place::Nowhere);
        }
        let absent = self.stored == Stored::Absent;
        if self.ends(now, config) && (absent || self.stored == Stored::Foreign) {
            return Next::Drop;
        }
        if now < self.hold {
            return Next::Wait(Place::Timer(self.hold));
        }
        if self.ends(now, config) {
            return Next::Wait(Place::Lane(Lane::New, now));
        }
        let expiry = if self.open {
            Time(i64::MAX)
        } else {
            after(self.last_seen, config.delete_after)
        };
        Next::Wait(match self.stored {
            Stored::Foreign => Place::Timer(expiry),
            Stored::Absent => Place::Lane(Lane::New, now),
            _ if self.unknown => Place::Timer(expiry),
            Stored::Bare(since) => {
                let repair = after(since, config.repair_after);
                if now >= repair {
                    Place::Lane(Lane::New, now)
                } else {
                    Place::Timer(repair.min(expiry))
                }
            }
            Stored::Whole(written) => self.next_change(&written, expiry, now, config),
        })
    }

    fn next_change(&self, written: &Written, expiry: Time, now: Time, config: &Config) -> Place {
        if written.said != Some(self.said(now, config)) {
            return Place::Lane(Lane::Conditions, now);
        }
        let mut look = expiry.min(self.next_state(now, config));
        if self.dirty {
            let quiet = if self.open {
                config.quiet_after_open
            } else {
                config.quiet_after
            };
            let due = after(self.changed, quiet).min(after(written.at, config.totals_every));
            if now >= due {
                return Place::Lane(Lane::Figures, written.at);
            }
            look = look.min(due);
        }
        Place::Timer(look)
    }

    /// When the state may change although nothing is heard.
    fn next_state(&self, now: Time, config: &Config) -> Time {
        let never = Time(i64::MAX);
        if self.open {
            return never;
        }
        let idle = after(self.last_seen, config.idle_after);
        let failing = match (self.last_success, self.last_failure) {
            (Some(success), Some(failure)) if failure > success => after(success, config.failing_after),
            _ => never,
        };
        let to_come = |at: Time| if at > now { at } else { never };
        to_come(idle).min(to_come(failing))
    }
}

/// Milliseconds from `from` to `to`, 0 when `to` is before.
pub(crate) fn passed(from: Time, to: Time) -> i64 {
    to.0.saturating_sub(from.0).max(0)
}

/// `time` and so many milliseconds.
pub(crate) fn after(time: Time, milliseconds: i64) -> Time {
    Time(time.0.saturating_add(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million edges have to fit beside the graph.
    #[test]
    fn a_record_stays_small() {
        let size = size_of::<Record>();
        assert!(size <= 352, "{size} bytes");
    }
}
