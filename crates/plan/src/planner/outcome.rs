//! How writes ended.

use leyline_graph::entity::Time;

use super::Planner;
use crate::{
    config::Config,
    events::EventReason,
    keys::EdgeId,
    planner::take::{InFlight, Intent},
    record::{Record, Stored, after},
    write::{Outcome, Ticket},
};

impl Planner {
    /// How a write ended. Outcomes that nobody waits for any more are ignored.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome, now: Time) {
        let Ticket { edge, number } = ticket;
        let Some(&InFlight {
            number: awaited,
            intent,
        }) = self.in_flight.get(&edge)
        else {
            return;
        };
        if awaited != number {
            return;
        }
        self.in_flight.remove(&edge);
        let Some(record) = self.records.get_mut(&edge) else {
            return;
        };
        record.in_flight = None;
        match outcome {
            Outcome::Done => self.succeeded(edge, intent, now),
            Outcome::NotFound => self.not_found(edge, intent, now),
            Outcome::NamespaceGone => self.missing_namespace(edge, now),
            Outcome::Refused => {
                record.hold = after(now, self.config.refused_wait);
                self.place(edge, now);
            }
            Outcome::Failed => {
                retry(record, &self.config, now);
                self.place(edge, now);
            }
        }
    }

    /// The outcomes of all writes handed out will not come: this replica stopped writing, or starts to. What was meant is
    /// planned again.
    pub fn abandon(&mut self, now: Time) {
        let edges: Vec<EdgeId> = self.in_flight.drain().map(|(edge, _)| edge).collect();
        for edge in edges {
            if let Some(record) = self.records.get_mut(&edge) {
                record.in_flight = None;
            }
            self.place(edge, now);
        }
    }

    fn succeeded(&mut self, edge: EdgeId, intent: Intent, now: Time) {
        match intent {
            Intent::Write {
                totals,
                written,
                first,
            } => {
                let Some(record) = self.records.get_mut(&edge) else {
                    return;
                };
                record.attempts = 0;
                record.wrote(totals, written);
                if std::mem::take(&mut record.gone_meanwhile) {
                    record.stored = Stored::Absent;
                }
                let first_seen = record.first_seen;
                if first {
                    self.tell(EventReason::NewDependency, edge, first_seen, now);
                }
                self.place(edge, now);
            }
            Intent::Delete => self.deleted(edge, now),
        }
    }

    fn not_found(&mut self, edge: EdgeId, intent: Intent, now: Time) {
        match intent {
            Intent::Delete => self.deleted(edge, now),
            Intent::Write { .. } => {
                if let Some(record) = self.records.get_mut(&edge) {
                    // The object went between two writes. It is made again, at most as often as a failed write.
                    record.stored = Stored::Absent;
                    retry(record, &self.config, now);
                }
                self.place(edge, now);
            }
        }
    }

    /// The object is gone. If the edge came back meanwhile, a new one is made.
    fn deleted(&mut self, edge: EdgeId, now: Time) {
        let Some(record) = self.records.get_mut(&edge) else {
            return;
        };
        record.attempts = 0;
        record.stored = Stored::Absent;
        if !record.vanished && record.expired(now, &self.config) {
            self.tell(EventReason::DependencyEnded, edge, now, now);
        }
        self.place(edge, now);
    }

    fn missing_namespace(&mut self, edge: EdgeId, now: Time) {
        let Some(client) = self.keys.entity(edge.client) else {
            return;
        };
        let namespace = self.home(&client.namespace).to_owned();
        let until = after(now, self.config.missing_namespace);
        self.end_namespace(&namespace, until, now);
    }
}

/// Later each time.
fn retry(record: &mut Record, config: &Config, now: Time) {
    let (first, longest) = config.retry;
    let wait = first.saturating_mul(1_i64.checked_shl(u32::from(record.attempts)).unwrap_or(i64::MAX));
    record.attempts = record.attempts.saturating_add(1).min(30);
    record.hold = after(now, wait.min(longest));
}
