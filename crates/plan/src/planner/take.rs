//! Handing out writes.

use leyline_api::names;
use leyline_graph::{
    EdgeView,
    entity::{EdgeKey, Time},
};

use super::Planner;
use crate::{
    build::{self, Parts},
    keys::EdgeId,
    lanes::Place,
    record::{Next, Record, Stored, Written, passed},
    totals::Totals,
    write::{Action, Lane, Ticket, Write},
};

/// What holds once the write is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) number: u64,
    pub(super) intent: Intent,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Intent {
    Write {
        totals: Totals,
        written: Written,
        first: bool,
    },
    Delete,
}

impl Planner {
    /// At most `max` writes, most urgent first, as far as the rates allow. `edge` gives the graph's view of a key.
    /// Every write must be followed by [`Planner::done`] (or [`Planner::abandon`]).
    pub fn take(&mut self, max: usize, now: Time, edge: impl Fn(&EdgeKey) -> Option<EdgeView>) -> Vec<Write> {
        let mut writes = Vec::new();
        if !self.settled {
            return writes;
        }
        self.tick(now);
        for lane in Lane::ALL {
            while writes.len() < max {
                let Some(id) = self.lanes.first(lane) else { break };
                if !self.refresh(id, lane, now, &edge) {
                    continue;
                }
                if !self.lanes.take_token(lane, now) {
                    break;
                }
                match self.write(id, lane, now, &edge) {
                    Some(write) => writes.push(write),
                    None => self.lanes.give_back_token(lane),
                }
            }
        }
        writes
    }

    /// Looks at the first of a lane again: whether it still belongs there. Otherwise it has moved.
    fn refresh(
        &mut self,
        id: EdgeId,
        lane: Lane,
        now: Time,
        edge: &impl Fn(&EdgeKey) -> Option<EdgeView>,
    ) -> bool {
        let key = self.keys.key(id);
        let Some((record, key)) = self.records.get_mut(&id).zip(key) else {
            // A lane never holds an edge without record; if it did, it must not be met for ever.
            self.lanes.discard_first(lane);
            return false;
        };
        match edge(&key) {
            Some(view) => record.observe(&view, now),
            None => record.unknown = !record.vanished,
        }
        if matches!(record.next(now, &self.config), Next::Wait(Place::Lane(next, _)) if next == lane) {
            return true;
        }
        self.place(id, now);
        false
    }

    fn write(
        &mut self,
        id: EdgeId,
        lane: Lane,
        now: Time,
        edge: &impl Fn(&EdgeKey) -> Option<EdgeView>,
    ) -> Option<Write> {
        let key = self.keys.key(id)?;
        let record = self.records.get_mut(&id)?;
        let (intent, action) = if record.ends(now, &self.config) {
            (Intent::Delete, Action::Delete)
        } else {
            let Some(view) = edge(&key) else {
                // Neither known nor ended: nothing to write, and nothing to wait for but its end.
                self.remove(id);
                return None;
            };
            let before = written(record);
            let parts = parts(record, &view, before, now, &self.config);
            let mut object = build::object(&key, &self.config);
            object.status = Some(build::status(&view, &parts, &self.config));
            let written = Written {
                at: now,
                own: true,
                said: Some(parts.said),
                last_seen: parts.last_seen,
                transitions: parts.transitions,
            };
            let first = !record.told;
            let action = match before {
                Some(_) => Action::ApplyStatus(Box::new(object)),
                None => Action::Apply(Box::new(object)),
            };
            (
                Intent::Write {
                    totals: parts.totals,
                    written,
                    first,
                },
                action,
            )
        };
        self.tickets = self.tickets.wrapping_add(1);
        let number = self.tickets;
        record.in_flight = Some(number);
        self.in_flight.insert(id, InFlight { number, intent });
        self.place(id, now);
        let spec = build::spec(&key);
        Some(Write {
            ticket: Ticket { edge: id, number },
            lane,
            namespace: names::namespace(&spec, &self.config.system_namespace).to_owned(),
            name: names::service_dependency(&spec),
            action,
        })
    }
}

fn written(record: &Record) -> Option<Written> {
    match record.stored {
        Stored::Whole(written) => Some(written),
        Stored::Absent | Stored::Foreign | Stored::Bare(_) => None,
    }
}

fn parts(
    record: &Record,
    view: &EdgeView,
    before: Option<Written>,
    now: Time,
    config: &crate::Config,
) -> Parts {
    let said = record.said(now, config);
    let keep_last_seen = before.filter(|written| {
        written.said.is_some_and(|before| before.state == said.state)
            && passed(written.last_seen, record.last_seen) < config.last_seen_every
    });
    Parts {
        said,
        totals: record.totals_of(view),
        first_seen: record.first_seen,
        last_seen: keep_last_seen.map_or(record.last_seen, |written| written.last_seen),
        counted_since: record.counted_since,
        transitions: build::transitions(&said, before.as_ref(), now),
    }
}
