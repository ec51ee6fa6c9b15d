//! Figures of the last five minutes, in five buckets of one.

use crate::entity::Time;
use crate::input::Counters;
use crate::view::Figures;

const BUCKET: i64 = 60_000;
const BUCKETS: usize = 5;

/// What the figures cover, milliseconds.
pub(crate) const LENGTH: i64 = BUCKET * BUCKETS as i64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    connect_us: u64,
    connects: u64,
    rtt_us: u64,
    rtt_samples: u64,
    retransmits: u64,
}

/// A ring of buckets; the newest is `minute`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    minute: i64,
    buckets: [Bucket; BUCKETS],
}

impl Window {
    /// Adds a difference measured about `now`. `connects`: whether the side knows connect times.
    pub(crate) fn add(&mut self, delta: &Counters, connects: bool, now: Time) {
        self.rotate(now);
        let Some(bucket) = self.buckets.first_mut() else {
            return;
        };
        if connects {
            bucket.connect_us = bucket.connect_us.wrapping_add(delta.connect_us);
            bucket.connects = bucket.connects.wrapping_add(delta.opened);
        }
        bucket.rtt_us = bucket.rtt_us.wrapping_add(delta.rtt_us);
        bucket.rtt_samples = bucket.rtt_samples.wrapping_add(delta.rtt_samples);
        bucket.retransmits = bucket.retransmits.wrapping_add(delta.retransmits);
    }

    /// Lets go of what is older; says whether something was.
    pub(crate) fn rotate(&mut self, now: Time) -> bool {
        let minute = now.0.div_euclid(BUCKET);
        let steps = usize::try_from(minute.saturating_sub(self.minute))
            .unwrap_or(0)
            .min(BUCKETS);
        if steps == 0 {
            return false;
        }
        self.minute = minute;
        self.buckets.rotate_right(steps % BUCKETS);
        let mut changed = false;
        for bucket in self.buckets.iter_mut().take(steps) {
            changed |= *bucket != Bucket::default();
            *bucket = Bucket::default();
        }
        changed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| *bucket == Bucket::default())
    }

    pub(crate) fn figures(&self) -> Figures {
        let sum = |figure: fn(&Bucket) -> u64| {
            self.buckets
                .iter()
                .fold(0u64, |sum, bucket| sum.wrapping_add(figure(bucket)))
        };
        Figures {
            length: LENGTH,
            connect_us: sum(|bucket| bucket.connect_us).checked_div(sum(|bucket| bucket.connects)),
            rtt_us: sum(|bucket| bucket.rtt_us).checked_div(sum(|bucket| bucket.rtt_samples)),
            retransmits: sum(|bucket| bucket.retransmits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKET, Window};
    use crate::entity::Time;
    use crate::input::Counters;

    #[test]
    fn figures_leave_the_window_after_five_minutes() {
        let mut window = Window::default();
        let delta = Counters {
            opened: 2,
            connect_us: 300,
            rtt_us: 50,
            rtt_samples: 5,
            retransmits: 1,
            ..Counters::default()
        };
        window.add(&delta, true, Time(BUCKET * 100));
        let figures = window.figures();
        assert_eq!(
            (figures.connect_us, figures.rtt_us, figures.retransmits),
            (Some(150), Some(10), 1)
        );
        assert!(!window.rotate(Time(BUCKET * 104)));
        assert_eq!(window.figures(), figures);
        assert!(window.rotate(Time(BUCKET * 105)));
        assert!(window.is_empty());
        assert_eq!(window.figures().connect_us, None);
    }
}
