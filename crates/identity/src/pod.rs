//! Pod uids and container ids in one component of a cgroup path.

/// What one path component said.
pub(crate) struct PodComponent {
    pub(crate) uid: String,
    /// Set where pod and container share a component (`….slice:cri-containerd:<id>`).
    pub(crate) container: Option<String>,
}

const UUID_LEN: usize = 36;
const HASH_LEN: usize = 32;
/// Container ids are 64 hexadecimal digits in every runtime of today; shorter ones were cut by somebody.
const CONTAINER_LEN: std::ops::RangeInclusive<usize> = 12..=64;

/// Finds `pod<uid>` in a component, in the spelling of either cgroup driver.
///
/// `pod` must begin the component or follow a dash, and the uid must end it or be followed by `.slice`: so
/// `libpod-<id>.scope` and a directory that only contains such letters are no pods.
pub(crate) fn in_component(component: &[u8]) -> Option<PodComponent> {
    let (name, rest) = match component.iter().position(|byte| *byte == b':') {
        Some(at) => (component.get(..at)?, component.get(at + 1..)),
        None => (component, None),
    };
    let name = name.strip_suffix(b".slice").unwrap_or(name);
    let uid = [UUID_LEN, HASH_LEN].into_iter().find_map(|len| {
        let (head, uid) = name.split_at_checked(name.len().checked_sub(len)?)?;
        let head = head.strip_suffix(b"pod")?;
        (head.is_empty() || head.ends_with(b"-"))
            .then(|| parse_uid(uid))
            .flatten()
    })?;
    Some(PodComponent {
        uid,
        container: rest.and_then(container_of),
    })
}

/// The uid in its API spelling, lower case with dashes, or the config hash of a static pod.
fn parse_uid(uid: &[u8]) -> Option<String> {
    let shape_holds = match uid.len() {
        UUID_LEN => {
            let separator = *uid.get(8)?;
            matches!(separator, b'-' | b'_')
                && uid.iter().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => *byte == separator,
                    _ => byte.is_ascii_hexdigit(),
                })
        }
        HASH_LEN => uid.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    shape_holds.then(|| {
        uid.iter()
            .map(|byte| {
                if *byte == b'_' {
                    '-'
                } else {
                    char::from(byte.to_ascii_lowercase())
                }
            })
            .collect()
    })
}

/// The container id in the component below the pod: bare, or as `<runtime>-<id>.scope` or `<runtime>:<id>`.
pub(crate) fn container_of(component: &[u8]) -> Option<String> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    let (runtime, id) = match name.iter().rposition(|byte| matches!(byte, b'-' | b':')) {
        Some(at) => (name.get(..at)?, name.get(at + 1..)?),
        None => (&[][..], name),
    };
    // CRI-O's monitor lives beside the container, in a scope that carries the container's id.
    let is_monitor = runtime.ends_with(b"conmon");
    (!is_monitor && CONTAINER_LEN.contains(&id.len()) && id.iter().all(u8::is_ascii_hexdigit)).then(|| {
        id.iter()
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect()
    })
}
