//! A token bucket that is told the time.

use leyline_graph::entity::Time;

use crate::config::Rate;

/// Thousandths of a token: at 1 token per second a millisecond brings one.
const TOKEN: i64 = 1_000;

/// Allows a burst and then a steady rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    level: i64,
    filled: Time,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Time) -> Self {
        Self {
            rate,
            level: i64::from(rate.burst) * TOKEN,
            filled: now,
        }
    }

    /// Takes one token if there is one. A clock that goes back fills nothing and breaks nothing.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let full = i64::from(self.rate.burst.max(1)) * TOKEN;
        let passed = now.0.saturating_sub(self.filled.0).max(0);
        self.level = passed
            .saturating_mul(i64::from(self.rate.per_second))
            .saturating_add(self.level)
            .min(full);
        self.filled = now;
        if self.level < TOKEN {
            return false;
        }
        self.level -= TOKEN;
        true
    }

    /// Gives back a token that was not used.
    pub(crate) fn give_back(&mut self) {
        self.level = self.level.saturating_add(TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(
            Rate {
                burst: 3,
                per_second: 2,
            },
            Time(0),
        );
        let taken = |bucket: &mut Bucket, now| (0..100).take_while(|_| bucket.take(Time(now))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 499), 0);
        assert_eq!(taken(&mut bucket, 500), 1);
        assert_eq!(taken(&mut bucket, 1_500), 2);
        assert_eq!(
            taken(&mut bucket, 1_000_000),
            3,
            "no more than the burst is saved up"
        );
        assert_eq!(taken(&mut bucket, 0), 0, "a clock that goes back");
    }
}
