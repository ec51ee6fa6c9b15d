//! The printed tables: minimum, median and maximum of every figure, without and with the agent.

use std::fmt;

use super::agent::Usage;
use super::load::{Load, Sample};

/// The runs of one load.
pub(super) struct Table {
    load: Load,
    pub(super) without: Vec<Sample>,
    pub(super) with: Vec<Sample>,
}

/// A figure of a sample, and what it is allowed to change.
struct Row {
    name: String,
    goal: &'static str,
    read: fn(&Sample) -> f64,
}

/// The figures of a load: what one piece of work is called, and what each figure may change.
fn rows(load: Load) -> [Row; 5] {
    let (unit, p99, server, machine) = match load {
        Load::KeepAlive => ("request", "", "at most +1 %", "at most +2 %"),
        Load::PerConnection => ("connection", "", "", "at most +6 %"),
        Load::FixedRate => ("request", "within the spread", "", ""),
    };
    let row = |name: String, goal, read| Row { name, goal, read };
    [
        row(format!("throughput, {unit}s/s"), "", |s| s.rate),
        row("latency p50, us".to_owned(), "", |s| s.p50),
        row("latency p99, us".to_owned(), p99, |s| s.p99),
        row(format!("server CPU per {unit}, us"), server, |s| s.server_cpu),
        row(format!("machine CPU per {unit}, us"), machine, |s| s.machine_cpu),
    ]
}

impl Table {
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            without: Vec::new(),
            with: Vec::new(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} (min / median / max)\n", self.load.title())?;
        writeln!(
            f,
            "{:<32} {:>30} {:>30} {:>9}  goal",
            "", "without", "with the agent", "change"
        )?;
        for row in rows(self.load) {
            let without = spread(self.without.iter().map(row.read));
            let with = spread(self.with.iter().map(row.read));
            let change = (with.median / without.median - 1.0) * 100.0;
            writeln!(
                f,
                "{:<32} {:>30} {:>30} {:>+8.1}%  {}",
                row.name,
                without.to_string(),
                with.to_string(),
                change,
                row.goal
            )?;
        }
        let agent = |read: fn(&Usage, &Sample) -> Option<f64>| {
            spread(
                self.with
                    .iter()
                    .filter_map(|sample| read(sample.agent.as_ref()?, sample)),
            )
        };
        let mut own = |name: &str, read: fn(&Usage, &Sample) -> Option<f64>| {
            writeln!(f, "{name:<32} {:>30} {:>30}", "", agent(read).to_string())
        };
        own("agent CPU, millicores", |u, _| Some(u.millicores()))?;
        own("agent resident memory, MiB", |u, _| Some(mib(u.resident)))?;
        own("agent map memory, MiB", |u, _| Some(mib(u.map_bytes)))?;
        own("connections lost", |u, _| Some(count(u.lost)))?;
        own("connection records lost", |u, _| Some(count(u.records_lost)))?;
        if self.load == Load::PerConnection {
            // Both ends are on this kernel, so every connection is seen twice.
            own("connections seen, %", |u, s| {
                Some(count(u.opened) / 2.0 / s.connections? * 100.0)
            })?;
        }
        Ok(())
    }
}

/// The agent's memory with few and with many half-edges.
pub(super) fn memory(idle: &Usage, full: &Usage) -> String {
    let line = |usage: &Usage| {
        format!(
            "{:>10} {:>14.1} {:>12.1} {:>12.1}",
            usage.half_edges,
            mib(usage.resident),
            mib(usage.map_bytes),
            mib(usage.resident + usage.map_bytes)
        )
    };
    format!(
        "half-edges  resident, MiB    maps, MiB  together, MiB\n{}\n{}",
        line(idle),
        line(full)
    )
}

/// Minimum, median and maximum.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    Spread {
        min: at(0),
        median: at(values.len() / 2),
        max: at(values.len().saturating_sub(1)),
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median.abs() < 1_000.0 { 2 } else { 0 };
        write!(
            f,
            "{:.digits$} / {:.digits$} / {:.digits$}",
            self.min, self.median, self.max
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "only printed")]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_sorted() {
        let spread = spread([3.0, 1.0, 2.0].into_iter());
        assert_eq!(spread.to_string(), "1.00 / 2.00 / 3.00");
    }
}
