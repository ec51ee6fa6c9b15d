//! The systemd service a cgroup path belongs to.

use crate::sanitise;

const SERVICE: &[u8] = b".service";

/// The outermost service of the system in a path; nothing for sessions of users and for names made per run.
pub(crate) fn in_path(path: &[u8]) -> Option<String> {
    for component in path.split(|byte| *byte == b'/') {
        if component == b"user.slice" {
            return None;
        }
        if let Some(stem) = component.strip_suffix(SERVICE) {
            return service_name(stem);
        }
    }
    None
}

fn service_name(stem: &[u8]) -> Option<String> {
    if stem.is_empty() || is_transient(stem) {
        return None;
    }
    let mut name = match stem.iter().position(|byte| *byte == b'@') {
        // `sshd@3-10.0.0.1:22-10.0.0.9:50312.service`: one instance per connection, one name for all.
        Some(at) if is_per_connection(stem.get(at + 1..)?) => stem.get(..=at)?.to_vec(),
        _ => stem.to_vec(),
    };
    name.extend_from_slice(SERVICE);
    sanitise(&name)
}

/// `systemd-run` names its units `run-u12`, `run-r<hex>` or `run-p12-i34`: new ones on every run.
fn is_transient(stem: &[u8]) -> bool {
    stem.strip_prefix(b"run-").is_some_and(|rest| {
        rest.split_first().is_some_and(|(kind, number)| {
            matches!(kind, b'u' | b'r' | b'p')
                && !number.is_empty()
                && number
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'i'))
        })
    })
}

/// Instances of socket units with `Accept=yes` begin with a counter and hold addresses or process ids.
fn is_per_connection(instance: &[u8]) -> bool {
    let digits = instance.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = instance.get(digits..).unwrap_or_default();
    let of_processes = rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
        && rest.iter().filter(|byte| **byte == b'-').count() == 2;
    digits > 0 && rest.first() == Some(&b'-') && (rest.contains(&b':') || of_processes)
}
