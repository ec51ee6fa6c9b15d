//! `/proc/<pid>/cgroup`: one line per hierarchy, `<number>:<controllers>:<path>`.

use crate::{CgroupIdentity, identify};

/// Hierarchies that a process can be in: 12 v1 controllers, named ones, and the unified one.
const MAX_LINES: usize = 64;

/// Tells whom a process belongs to by the text of its `/proc/<pid>/cgroup`. Any bytes are a valid argument.
///
/// The unified hierarchy is asked first, then systemd's own, then the others: on hybrid machines the unified one
/// may hold everything in its root. A pod anywhere beats a unit, because a container's processes may sit in the
/// runtime's unit in hierarchies that the kubelet does not use.
#[must_use]
pub fn identify_process(text: &[u8]) -> CgroupIdentity {
    let mut found: Option<(u8, CgroupIdentity)> = None;
    for line in text.split(|byte| *byte == b'\n').take(MAX_LINES) {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let rank = match (controllers, identify(path)) {
            (_, CgroupIdentity::Other) => continue,
            (_, pod @ CgroupIdentity::Pod { .. }) => return pod,
            (b"", unit) => (0, unit),
            (b"name=systemd", unit) => (1, unit),
            (_, unit) => (2, unit),
        };
        if found.as_ref().is_none_or(|best| rank.0 < best.0) {
            found = Some(rank);
        }
    }
    found.map_or(CgroupIdentity::Other, |(_, identity)| identity)
}
