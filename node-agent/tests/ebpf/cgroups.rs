//! Cgroups that come and go.

use std::fs;
use std::time::{Duration, Instant};

use leyline_abi::{CGROUP_PATH_LEN, CgroupEvent, cgroup_event};
use leyline_node_agent::kernel::{Kernel, KernelOptions};

use crate::world::{Cgroup, cgroup_root};

/// Events of one cgroup id, waited for until there are `count`.
fn events(kernel: &mut Kernel, id: u64, count: usize) -> Vec<CgroupEvent> {
    let mut found = vec![];
    let deadline = Instant::now() + Duration::from_secs(10);
    while found.len() < count {
        kernel.drain_cgroups(usize::MAX, |event| {
            if event.id == id {
                found.push(*event);
            }
        });
        assert!(
            Instant::now() < deadline,
            "{} of {count} events of cgroup {id}",
            found.len()
        );
    }
    found
}

fn path(event: &CgroupEvent) -> String {
    String::from_utf8(event.path[..event.path_len as usize].to_vec()).unwrap()
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_cgroup_that_lived_for_a_moment_is_reported_with_id_and_path() {
    let mut kernel = Kernel::load(&KernelOptions::default()).unwrap();
    let cgroup = Cgroup::new();
    let (id, expected) = (
        cgroup.id,
        format!("/{}", cgroup.path.strip_prefix(cgroup_root()).unwrap().display()),
    );
    drop(cgroup);
    let events = events(&mut kernel, id, 2);
    assert_eq!(
        events.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [cgroup_event::CREATED, cgroup_event::REMOVED]
    );
    assert_eq!(
        events.iter().map(path).collect::<Vec<_>>(),
        [expected.clone(), expected]
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_long_path_keeps_its_end() {
    let outer = Cgroup::new();
    let mut kernel = Kernel::load(&KernelOptions::default()).unwrap();
    // From just below the record's room to several times of it.
    for length in [200, 225, 239, 240, 241, 300, 478, 479, 480, 700] {
        let mut folder = outer.path.clone();
        let mut made = vec![];
        let used =
            |folder: &std::path::Path| folder.strip_prefix(cgroup_root()).unwrap().as_os_str().len() + 1;
        while used(&folder) < length {
            let name = "x".repeat((length - used(&folder) - 1).clamp(1, 100));
            folder.push(name);
            fs::create_dir(&folder).unwrap();
            made.push(folder.clone());
        }
        let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&folder).unwrap());
        let event = events(&mut kernel, id, 1)[0];
        for folder in made.iter().rev() {
            fs::remove_dir(folder).unwrap();
        }
        let whole = format!("/{}", folder.strip_prefix(cgroup_root()).unwrap().display());
        let kept = path(&event);
        assert!(
            whole.ends_with(&kept),
            "{length}: {kept} is not the end of {whole}"
        );
        assert_eq!(kept.len(), whole.len().min(CGROUP_PATH_LEN - 1), "{length}");
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn events_that_find_no_place_are_counted() {
    const MANY: usize = 200;
    let options = KernelOptions {
        cgroup_ring_bytes: 4_096,
        ..KernelOptions::default()
    };
    let mut kernel = Kernel::load(&options).unwrap();
    let cgroups: Vec<Cgroup> = (0..MANY / 2).map(|_| Cgroup::new()).collect();
    drop(cgroups);
    let taken = kernel.drain_cgroups(usize::MAX, |_| {});
    let lost = kernel.loss().unwrap()[leyline_abi::loss::CGROUP_RING as usize] as usize;
    assert!(
        lost > 0 && taken > 0 && taken + lost >= MANY,
        "{taken} taken, {lost} lost"
    );
}
