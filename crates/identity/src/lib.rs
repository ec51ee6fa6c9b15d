//! From a cgroup path to the pod, container or systemd unit it belongs to.
//!
//! Inputs: a cgroup path of any hierarchy, or the text of `/proc/<pid>/cgroup`, as bytes that nobody has checked.
//! Outputs: a [`CgroupIdentity`], and names made safe by [`sanitise`]. No IO, no clock, no allocation larger than a
//! name.
//!
//! The pod uid may stand anywhere in the path, because kubelets are started below a root of their own by kind, k3s,
//! `--cgroup-root` and nested container engines. The *outermost* pod wins: a container that may write its own
//! cgroup subtree can name a directory like another pod, and must not become it by that.
//!
//! Deliberately absent: knowledge of the Kubernetes API (a uid is not checked against anything), and names from
//! scopes, which are made per run (`docker-<id>.scope`, `run-r<hex>.scope`) and would never repeat.

mod pod;
mod process;
mod unit;

pub use process::identify_process;

/// Longest name [`sanitise`] returns.
pub const NAME_LEN: usize = 63;

/// Bytes of a path that are looked at. What is beyond lies below any pod and service, and is nobody's proof.
pub const PATH_LEN: usize = 4096;

/// Whom a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CgroupIdentity {
    /// A pod, or something inside one of its containers.
    Pod {
        /// The pod's uid with dashes; the 32 hexadecimal digits of the config hash for a static pod.
        uid: String,
        /// The container's id; absent for the pod's own cgroup and for helpers of the runtime.
        container: Option<String>,
    },
    /// A systemd service of the system, by its sanitised name (`nginx.service`).
    Unit(String),
    /// The root, a scope, a user's session or something unknown.
    Other,
}

/// Tells whom a cgroup path belongs to. Any bytes are a valid argument.
#[must_use]
pub fn identify(path: &[u8]) -> CgroupIdentity {
    let path = path.get(..PATH_LEN).unwrap_or(path);
    let mut components = path
        .split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty());
    while let Some(component) = components.next() {
        if let Some(found) = pod::in_component(component) {
            let container = found
                .container
                .or_else(|| components.next().and_then(pod::container_of));
            return CgroupIdentity::Pod {
                uid: found.uid,
                container,
            };
        }
    }
    unit::in_path(path).map_or(CgroupIdentity::Other, CgroupIdentity::Unit)
}

/// Makes a name of bytes that anybody may have chosen: every byte outside of `[A-Za-z0-9._@:-]` becomes `-`, and
/// the result is cut at [`NAME_LEN`] bytes. Nothing when no letter or digit is left.
#[must_use]
pub fn sanitise(name: &[u8]) -> Option<String> {
    let safe: String = name
        .iter()
        .take(NAME_LEN)
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'@' | b':' => char::from(*byte),
            _ => '-',
        })
        .collect();
    safe.bytes()
        .any(|byte| byte.is_ascii_alphanumeric())
        .then_some(safe)
}
