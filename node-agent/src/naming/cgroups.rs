//! cgroup id → pod, unit or neither.
//!
//! The id of a cgroup is the inode number of its directory in the unified hierarchy. The tree is scanned at start and
//! when an id turns up that no event announced; from then on the kernel's events keep the table. An entry
//! outlives its directory by ten minutes, because sockets and reports do.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leyline_abi::{CGROUP_PATH_LEN, CgroupEvent, cgroup_event};
use leyline_identity::{CgroupIdentity, identify};

/// How long an entry outlives its directory.
const KEPT: Duration = Duration::from_secs(600);
/// Most entries; a node of 500 pods has some thousand cgroups.
const CAPACITY: usize = 65_536;
/// Deepest directory that is scanned.
const MAX_DEPTH: usize = 32;

/// Whom a cgroup belongs to, cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A pod's uid.
    Pod(Arc<str>),
    /// A systemd service.
    Unit(Arc<str>),
    /// Neither.
    Other,
}

/// See the module's documentation.
pub struct Cgroups {
    root: Option<PathBuf>,
    known: HashMap<u64, Known>,
    gone: VecDeque<(u64, u64)>,
    /// Pod cgroups the kernel has not been told of.
    unmarked: Vec<u64>,
    dropped: u64,
}

impl Cgroups {
    /// Scans the hierarchy whose root directory is `root`. `None`: there is no unified hierarchy on this machine,
    /// and every socket is in its root.
    #[must_use]
    pub fn new(root: Option<PathBuf>) -> Self {
        let mut cgroups = Self {
            root,
            known: HashMap::new(),
            gone: VecDeque::new(),
            unmarked: Vec::new(),
            dropped: 0,
        };
        cgroups.scan();
        cgroups
    }

    /// The hierarchy's root directory.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Whom a cgroup belongs to; `None` when it was never seen.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Known> {
        if self.root.is_none() {
            return Some(Known::Other);
        }
        self.known.get(&id).cloned()
    }

    /// Cgroups known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Cgroups that found no place.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Pod cgroups found since the last call, for the kernel's table of pods.
    pub fn take_unmarked(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unmarked)
    }

    /// Reads the whole tree. Directories that vanish meanwhile, or cannot be read, are passed over.
    pub fn scan(&mut self) {
        let Some(root) = self.root.clone() else { return };
        if let Ok(metadata) = fs::metadata(&root) {
            self.insert(metadata.ino(), Known::Other);
        }
        let mut waiting = vec![(root.clone(), 0_usize)];
        while let Some((directory, depth)) = waiting.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = entry.path();
                let relative = path.strip_prefix(&root).unwrap_or(&path);
                self.insert(entry.ino(), known(relative.as_os_str().as_bytes()));
                if depth < MAX_DEPTH && waiting.len() < CAPACITY {
                    waiting.push((path, depth + 1));
                }
            }
        }
    }

    /// Takes in one event. Returns the id of a pod's cgroup that is gone, to be taken out of the kernel's table.
    pub fn apply(&mut self, event: &CgroupEvent, now_ns: u64) -> Option<u64> {
        match event.kind {
            cgroup_event::CREATED => {
                let used = usize::try_from(event.path_len)
                    .unwrap_or(CGROUP_PATH_LEN)
                    .min(CGROUP_PATH_LEN);
                // A path that was cut lacks its front, where the outermost pod is; it is looked up when asked for.
                if used < CGROUP_PATH_LEN {
                    self.insert(event.id, known(event.path.get(..used).unwrap_or_default()));
                }
                None
            }
            cgroup_event::REMOVED => {
                self.gone.push_back((now_ns, event.id));
                matches!(self.known.get(&event.id), Some(Known::Pod(_))).then_some(event.id)
            }
            _ => None,
        }
    }

    fn insert(&mut self, id: u64, identity: Known) {
        if self.known.len() >= CAPACITY && !self.known.contains_key(&id) {
            // The longest gone makes room; a tree with more living cgroups than this is not expected.
            match self.gone.pop_front() {
                Some((_, oldest)) => drop(self.known.remove(&oldest)),
                None => {
                    self.dropped += 1;
                    return;
                }
            }
        }
        let is_pod = matches!(identity, Known::Pod(_));
        if self.known.insert(id, identity).is_none() && is_pod {
            self.unmarked.push(id);
        }
    }

    /// Forgets cgroups that were removed long enough ago.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some((since, id)) = self.gone.front().copied() {
            let is_young = Duration::from_nanos(now_ns.saturating_sub(since)) < KEPT;
            if is_young && self.gone.len() <= CAPACITY {
                break;
            }
            self.gone.pop_front();
            self.known.remove(&id);
        }
    }
}

fn known(path: &[u8]) -> Known {
    match identify(path) {
        CgroupIdentity::Pod { uid, container: _ } => Known::Pod(uid.into()),
        CgroupIdentity::Unit(name) => Known::Unit(name.into()),
        CgroupIdentity::Other => Known::Other,
    }
}

/// Finds the unified hierarchy in the text of `/proc/self/mounts`: at `/sys/fs/cgroup` on pure v2, at
/// `/sys/fs/cgroup/unified` on hybrid machines, anywhere else where neither is.
#[must_use]
pub fn unified_root(mounts: &str) -> Option<PathBuf> {
    let mut found: Option<&str> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (_, Some(directory), Some("cgroup2")) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let is_usual = matches!(directory, "/sys/fs/cgroup" | "/sys/fs/cgroup/unified");
        if found.is_none() || is_usual {
            found = Some(directory);
        }
    }
    found.map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a4f9c1e-1d2b-4c3d-8e5f-6a7b8c9d0e1f";
    const SECOND: u64 = 1_000_000_000;

    fn event(id: u64, kind: u32, path: &str) -> CgroupEvent {
        let mut bytes = [0; CGROUP_PATH_LEN];
        let used = path.len().min(CGROUP_PATH_LEN);
        bytes[..used].copy_from_slice(&path.as_bytes()[path.len() - used..]);
        CgroupEvent {
            id,
            kind,
            path_len: used as u32,
            path: bytes,
        }
    }

    fn tree() -> (tempfile::TempDir, Cgroups) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(
            folder
                .path()
                .join(format!("kubepods/besteffort/pod{UID}/container")),
        )
        .unwrap();
        fs::create_dir_all(folder.path().join("system.slice/nginx.service")).unwrap();
        let cgroups = Cgroups::new(Some(folder.path().to_owned()));
        (folder, cgroups)
    }

    fn id_of(folder: &tempfile::TempDir, path: &str) -> u64 {
        fs::metadata(folder.path().join(path)).unwrap().ino()
    }

    #[test]
    fn a_scan_names_what_is_there_and_lists_pods_for_marking() {
        let (folder, mut cgroups) = tree();
        let pod = format!("kubepods/besteffort/pod{UID}");
        let container = id_of(&folder, &format!("{pod}/container"));
        assert_eq!(cgroups.get(container), Some(Known::Pod(UID.into())));
        let unit = id_of(&folder, "system.slice/nginx.service");
        assert_eq!(cgroups.get(unit), Some(Known::Unit("nginx.service".into())));
        assert_eq!(cgroups.get(id_of(&folder, "")), Some(Known::Other));
        assert_eq!(cgroups.get(u64::MAX), None);
        let mut marked = cgroups.take_unmarked();
        marked.sort_unstable();
        let mut expected = vec![id_of(&folder, &pod), container];
        expected.sort_unstable();
        assert_eq!(marked, expected);
        cgroups.scan();
        assert!(cgroups.take_unmarked().is_empty());
    }

    #[test]
    fn an_event_names_a_cgroup_that_no_scan_saw_and_it_outlives_its_directory() {
        let mut cgroups = tree().1;
        cgroups.take_unmarked();
        let path = format!("/kubepods/pod{UID}/short");
        assert_eq!(
            cgroups.apply(&event(7_777_777, cgroup_event::CREATED, &path), SECOND),
            None
        );
        assert_eq!(cgroups.take_unmarked(), vec![7_777_777]);
        assert_eq!(
            cgroups.apply(&event(7_777_777, cgroup_event::REMOVED, &path), 2 * SECOND),
            Some(7_777_777)
        );
        cgroups.expire(601 * SECOND);
        assert_eq!(cgroups.get(7_777_777), Some(Known::Pod(UID.into())));
        cgroups.expire(602 * SECOND);
        assert_eq!(cgroups.get(7_777_777), None);
    }

    #[test]
    fn a_path_that_was_cut_is_not_believed() {
        let mut cgroups = tree().1;
        let path = format!(
            "/kubepods/pod{UID}/{}/podffffffff-ffff-4fff-8fff-ffffffffffff/x",
            "d/".repeat(120)
        );
        cgroups.apply(&event(7_777_777, cgroup_event::CREATED, &path), SECOND);
        assert_eq!(cgroups.get(7_777_777), None);
    }

    #[test]
    fn a_flood_of_cgroups_is_bounded_and_counted() {
        let mut cgroups = tree().1;
        for id in 0..(CAPACITY as u64 + 500) {
            cgroups.apply(&event((1 << 40) + id, cgroup_event::CREATED, "/x"), SECOND);
        }
        assert_eq!(cgroups.len(), CAPACITY);
        assert!(cgroups.dropped() >= 500);
    }

    #[test]
    fn the_unified_hierarchy_is_found_in_pure_and_hybrid_mounts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(unified_root(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "cgroup2 /elsewhere cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\ncgroup2 /third cgroup2 rw 0 0\n";
        assert_eq!(unified_root(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(
            unified_root("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nnonsense\n"),
            None
        );
    }
}
