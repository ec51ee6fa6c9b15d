//! Who is next: three lanes and one timer per edge, each ordered by time.

use leyline_graph::entity::Time;
use std::collections::BTreeSet;

use crate::{
    bucket::Bucket,
    config::Config,
    keys::EdgeId,
    write::{Lane, Waiting},
};

/// Where an edge waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: nothing to do until something happens.
    #[default]
    Nowhere,
    /// To be looked at again at this time.
    Timer(Time),
    /// In a lane; the smaller time goes first.
    Lane(Lane, Time),
}

#[derive(Debug)]
pub(crate) struct Lanes {
    queues: [BTreeSet<(Time, EdgeId)>; 3],
    timers: BTreeSet<(Time, EdgeId)>,
    new: Bucket,
    /// Conditions first; figures take what they leave.
    changes: Bucket,
}

impl Lanes {
    pub(crate) fn new(config: &Config, now: Time) -> Self {
        Self {
            queues: Default::default(),
            timers: BTreeSet::new(),
            new: Bucket::new(config.new, now),
            changes: Bucket::new(config.changes, now),
        }
    }

    fn set(&mut self, place: Place) -> Option<(&mut BTreeSet<(Time, EdgeId)>, Time)> {
        match place {
            Place::Nowhere => None,
            Place::Timer(at) => Some((&mut self.timers, at)),
            Place::Lane(lane, at) => self.queues.get_mut(lane as usize).map(|queue| (queue, at)),
        }
    }

    pub(crate) fn leave(&mut self, edge: EdgeId, place: Place) {
        if let Some((set, at)) = self.set(place) {
            set.remove(&(at, edge));
        }
    }

    pub(crate) fn enter(&mut self, edge: EdgeId, place: Place) {
        if let Some((set, at)) = self.set(place) {
            set.insert((at, edge));
        }
    }

    /// The next edge whose timer is over; it still waits there.
    pub(crate) fn due(&self, now: Time) -> Option<EdgeId> {
        self.timers
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, edge)| *edge)
    }

    /// The first edge of a lane; it still waits there.
    pub(crate) fn first(&self, lane: Lane) -> Option<EdgeId> {
        self.queues.get(lane as usize)?.first().map(|(_, edge)| *edge)
    }

    /// Removes the first edge of a lane, whatever it is.
    pub(crate) fn discard_first(&mut self, lane: Lane) {
        if let Some(queue) = self.queues.get_mut(lane as usize) {
            queue.pop_first();
        }
    }

    fn bucket(&mut self, lane: Lane) -> &mut Bucket {
        match lane {
            Lane::New => &mut self.new,
            Lane::Conditions | Lane::Figures => &mut self.changes,
        }
    }

    pub(crate) fn take_token(&mut self, lane: Lane, now: Time) -> bool {
        self.bucket(lane).take(now)
    }

    pub(crate) fn give_back_token(&mut self, lane: Lane) {
        self.bucket(lane).give_back();
    }

    pub(crate) fn waiting(&self, in_flight: usize) -> Waiting {
        let [new, conditions, figures] = &self.queues;
        Waiting {
            new: new.len(),
            conditions: conditions.len(),
            figures: figures.len(),
            in_flight,
        }
    }
}
