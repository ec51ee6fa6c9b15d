//! Which rights this process has, to name the missing one instead of passing EPERM on.

use std::fs;

use super::error::LoadError;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Fails with the first capability that loading needs and this process lacks. If `/proc` cannot be read the kernel
/// itself will tell.
pub(super) fn check() -> Result<(), LoadError> {
    let Some(effective) = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status))
    else {
        return Ok(());
    };
    missing(effective).map_or(Ok(()), |name| Err(LoadError::Capability(name)))
}

/// Whether cgroup programs may be loaded. If `/proc` cannot be read the kernel itself will tell.
pub(super) fn net_admin() -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status))
        .is_none_or(|effective| effective >> CAP_NET_ADMIN & 1 == 1)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// CAP_SYS_ADMIN includes both, as the kernel checks them.
fn missing(effective: u64) -> Option<&'static str> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    match (has(CAP_SYS_ADMIN), has(CAP_BPF), has(CAP_PERFMON)) {
        (true, ..) | (_, true, true) => None,
        (_, false, false) => Some("CAP_BPF and CAP_PERFMON"),
        (_, false, true) => Some("CAP_BPF"),
        (_, true, false) => Some("CAP_PERFMON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capability_is_named() {
        for (status, expected) in [
            ("CapEff:\t000001ffffffffff\n", None),
            ("CapEff:\t0000000000200000\n", None),
            ("CapEff:\t000000c000000000\n", None),
            ("CapEff:\t0000008000000000\n", Some("CAP_PERFMON")),
            ("CapEff:\t0000004000000000\n", Some("CAP_BPF")),
            (
                "Name:\tx\nCapEff:\t0000000000000000\n",
                Some("CAP_BPF and CAP_PERFMON"),
            ),
        ] {
            assert_eq!(missing(effective(status).unwrap()), expected, "{status}");
        }
        assert_eq!(effective("CapInh:\t0\n"), None);
    }
}
