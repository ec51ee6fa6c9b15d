//! Figures as objects show them: bounded integers, and durations as short text.

/// Largest integer that every JSON reader holds exactly (2^53 - 1); larger counts stay there.
pub const MAX_COUNT: i64 = 9_007_199_254_740_991;

/// A count as a bounded integer.
#[must_use]
pub fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(MAX_COUNT).min(MAX_COUNT)
}

/// A measured duration in two significant digits: `7us`, `1.2ms`, `180ms`, `3.4s`, `12m`. Small changes do not show, so
/// that an object is not written again because of noise.
#[must_use]
pub fn duration(microseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ];
    let rounded = two_digits(microseconds);
    for (size, unit) in UNITS {
        if rounded >= size {
            let (whole, tenth) = (rounded / size, rounded % size * 10 / size);
            return if whole < 10 && tenth > 0 {
                format!("{whole}.{tenth}{unit}")
            } else {
                format!("{whole}{unit}")
            };
        }
    }
    format!("{rounded}us")
}

/// A configured duration, exact to the second: `5m`, `90s`, `2h`.
#[must_use]
pub fn period(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// The nearest number with at most two digits that are not zero.
#[must_use]
pub fn two_digits(value: u64) -> u64 {
    let mut step = 1;
    while value / step >= 100 {
        step *= 10;
    }
    value.saturating_add(step / 2) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_digits_and_a_unit() {
        let table = [
            (0, "0us"),
            (7, "7us"),
            (412, "410us"),
            (999, "1ms"),
            (1_000, "1ms"),
            (1_234, "1.2ms"),
            (12_345, "12ms"),
            (184_000, "180ms"),
            (999_999, "1s"),
            (1_500_000, "1.5s"),
            (59_900_000, "1m"),
            (90_000_000, "1.5m"),
            (7_200_000_000, "2h"),
        ];
        for (microseconds, text) in table {
            assert_eq!(duration(microseconds), text, "{microseconds}");
        }
        assert!(duration(u64::MAX).len() <= 16);
    }

    #[test]
    fn counts_stop_at_what_json_can_hold() {
        assert_eq!(count(5), 5);
        assert_eq!(count(u64::MAX), MAX_COUNT);
    }

    #[test]
    fn periods_are_exact() {
        assert_eq!(period(300), "5m");
        assert_eq!(period(90), "90s");
        assert_eq!(period(7200), "2h");
    }
}
