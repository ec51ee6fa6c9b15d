//! How many connection records a node keeps: one in 2^n, raised and lowered with their rate. Pure.
//!
//! Records below the rate that is always kept save up room for a burst: a small one is kept whole, because an edge of few
//! connections suffers most when one of them stands for others. Raised as soon as that room is used up and a second's worth
//! of records has come, so that a burst is met before it fills anything; lowered only after a whole quiet second.

use std::time::Duration;

/// Records per second above which fewer connections are recorded.
const RAISE_ABOVE: u64 = 2_000;
/// Records per second below which more are. Less than half of the other, so that one step does not call for its
/// opposite.
const LOWER_BELOW: u64 = 800;
/// Records that may come at once after some quiet seconds. Half of what the agent holds for its streams.
const BURST: u64 = 10_000;
/// One in 65,536: enough for any rate a kernel can reach.
const MAX_LOG2: u8 = 16;
/// What a rate is measured over.
const WINDOW: Duration = Duration::from_secs(1);
/// A burst is taken to go on for at least this long: its peak says little about the next second.
const SHORTEST: Duration = Duration::from_millis(250);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Sampling {
    log2: u8,
    records: u64,
    since_ns: Option<u64>,
    /// How much of the room for a burst is used up, and when that was true.
    used: u64,
    used_at_ns: u64,
}

impl Sampling {
    /// So many connections opened or closed with a record since the last call; the new exponent when it changes.
    pub fn adapt(&mut self, records: usize, now_ns: u64) -> Option<u8> {
        let Some(since_ns) = self.since_ns else {
            // What the first round brings are the connections older than the agent: no rate.
            self.since_ns = Some(now_ns);
            self.used_at_ns = now_ns;
            return None;
        };
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        self.records = self.records.saturating_add(records);
        self.use_room(records, now_ns);
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(since_ns));
        if self.records <= RAISE_ABOVE && elapsed < WINDOW {
            return None;
        }
        let measured = elapsed.max(SHORTEST).as_millis();
        let rate = self.records.saturating_mul(1_000) / u64::try_from(measured).unwrap_or(u64::MAX).max(1);
        self.records = 0;
        self.since_ns = Some(now_ns);
        let log2 = match rate {
            _ if rate > RAISE_ABOVE && self.used < BURST => self.log2,
            _ if rate > RAISE_ABOVE => {
                let halvings = u64::BITS - (rate / RAISE_ABOVE).leading_zeros();
                let raised = self
                    .log2
                    .saturating_add(u8::try_from(halvings).unwrap_or(MAX_LOG2));
                raised.min(MAX_LOG2)
            }
            _ if rate < LOWER_BELOW => self.log2.saturating_sub(1),
            _ => self.log2,
        };
        let is_new = log2 != self.log2;
        self.log2 = log2;
        is_new.then_some(log2)
    }

    fn use_room(&mut self, records: u64, now_ns: u64) {
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(self.used_at_ns));
        let regained = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_mul(RAISE_ABOVE)
            / 1_000_000;
        self.used = self
            .used
            .saturating_add(records)
            .min(BURST.saturating_add(regained))
            .saturating_sub(regained);
        self.used_at_ns = now_ns;
    }

    /// The exponent in force.
    #[must_use]
    pub fn log2(&self) -> u8 {
        self.log2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of 100 ms in which so many connections per second happen; the exponent after each second.
    fn run(load: &[u64]) -> (Vec<u8>, u64) {
        let mut sampling = Sampling::default();
        sampling.adapt(50_000, 0);
        assert_eq!(sampling.log2(), 0, "adopted connections are no rate");
        let (mut after, mut most) = (Vec::new(), 0);
        for (second, connections) in (0..).zip(load) {
            let mut kept = 0;
            for round in 1..=10 {
                let records = (connections / 10) >> sampling.log2();
                kept += records;
                sampling.adapt(
                    usize::try_from(records).unwrap(),
                    second * 1_000_000_000 + round * 100_000_000,
                );
            }
            after.push(sampling.log2());
            most = most.max(kept);
        }
        (after, most)
    }

    #[test]
    fn a_rate_below_the_bound_is_recorded_whole() {
        assert_eq!(run(&[100, 1_900, 2_000, 1_500]).0, vec![0, 0, 0, 0]);
    }

    #[test]
    fn a_small_burst_is_recorded_whole_but_not_one_after_the_other() {
        let (after, most) = run(&[100, 9_000, 100, 100, 100, 100]);
        assert_eq!((after.as_slice(), most), ([0; 6].as_slice(), 9_000));
        let (after, _) = run(&[9_000; 4]);
        assert!(after[3] > 0, "{after:?}");
    }

    #[test]
    fn a_burst_is_met_within_the_second_and_forgotten_step_by_step() {
        let (after, most) = run(&[100, 64_000, 64_000, 64_000, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(after[1] >= 5, "{after:?}");
        assert!(most < 20_000, "{most}");
        assert_eq!(
            after[3..].iter().rev().take(3).collect::<Vec<_>>(),
            vec![&0, &0, &0],
            "{after:?}"
        );
    }

    #[test]
    fn a_steady_high_rate_settles_between_the_bounds() {
        let (after, _) = run(&[16_000; 12]);
        let settled = &after[6..];
        assert!(
            settled.iter().all(|log2| matches!(16_000 >> log2, 400..=2_000)),
            "{after:?}"
        );
    }
}
