//! CPU time as the kernel accounts it: of one process and its children, and of the whole machine.

use std::fs;

use anyhow::{Context as _, Result};

/// Seconds of CPU one process has used, user and system.
pub(super) fn of_process(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    process_ticks(&stat)
        .map(seconds)
        .with_context(|| format!("{path} has another form than expected"))
}

/// Seconds of CPU the machine has spent on anything but idling and waiting for disks.
pub(super) fn of_machine() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    machine_ticks(&stat)
        .map(seconds)
        .context("/proc/stat has another form than expected")
}

/// Resident memory of one process, in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .with_context(|| format!("{path} has no VmRSS"))?;
    Ok(kib * 1024)
}

/// Direct children of a process.
pub(super) fn children(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect())
}

fn process_ticks(stat: &str) -> Option<u64> {
    // The command in parentheses may hold anything, so fields are counted from the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn machine_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq (steal and guest are other machines' time)
    match ticks.as_slice() {
        [user, nice, system, _idle, _iowait, irq, softirq, ..] => Some(user + nice + system + irq + softirq),
        _ => None,
    }
}

fn seconds(ticks: u64) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, fixed in the kernel's interface
    #[expect(clippy::cast_precision_loss, reason = "2^53 ticks are three million years")]
    let ticks = ticks as f64;
    ticks / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 5 1 1";
        assert_eq!(process_ticks(stat), Some(42));
    }

    #[test]
    fn idle_and_waiting_do_not_count() {
        assert_eq!(
            machine_ticks("cpu  1 2 3 1000 500 4 5 99 0 0\ncpu0 1 2\n"),
            Some(15)
        );
    }
}
