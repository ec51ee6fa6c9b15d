//! Loading and detaching.

use std::collections::BTreeSet;

use leyline_node_agent::kernel::{Kernel, KernelOptions, PROBES, ProbeState};

fn program_ids() -> BTreeSet<u32> {
    aya::programs::loaded_programs()
        .filter_map(|program| Some(program.ok()?.id()))
        .collect()
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn every_probe_attaches_and_says_so() {
    let options = KernelOptions::default().with_udp(Some(crate::world::cgroup_root()));
    let kernel = Kernel::load(&options).unwrap();
    let names: Vec<&str> = kernel.probes().iter().map(|probe| probe.name).collect();
    assert_eq!(names, PROBES);
    for probe in kernel.probes() {
        assert_eq!(
            (probe.state, probe.reason.as_str()),
            (ProbeState::Attached, ""),
            "{}",
            probe.name
        );
    }
    let bytes = kernel.map_bytes();
    assert!((1 << 20..16 << 20).contains(&bytes), "{bytes} bytes of maps");
    assert_eq!(kernel.loss().unwrap(), [0; leyline_abi::loss::COUNT as usize]);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn dropping_the_kernel_side_leaves_no_program_behind() {
    let before = program_ids();
    let kernel = Kernel::load(&KernelOptions::default().with_udp(Some(crate::world::cgroup_root()))).unwrap();
    let mine: BTreeSet<u32> = program_ids().difference(&before).copied().collect();
    assert!(mine.len() >= PROBES.len(), "{mine:?}");
    drop(kernel);
    // The kernel frees programs after a grace period.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !program_ids().is_disjoint(&mine) {
        assert!(
            std::time::Instant::now() < deadline,
            "still loaded: {:?}",
            program_ids().intersection(&mine)
        );
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn two_agents_on_one_kernel_do_not_disturb_each_other() {
    let mut first = crate::world::World::new();
    let second = Kernel::load(&KernelOptions::default()).unwrap();
    let listener = first.listen(crate::world::SERVER);
    let port = listener.local_addr().unwrap().port();
    drop(first.pair(&listener, crate::world::SERVER));
    first.until("both halves closed", |w| {
        w.client_half(crate::world::SERVER, port).closed == 1
            && w.server_half(crate::world::CLIENT, port).closed == 1
    });
    let seen = crate::world::entries_of(&second, &[first.client.1.id, first.server.1.id]);
    assert_eq!(
        seen.iter()
            .map(|(_, value)| (value.opened, value.closed))
            .collect::<Vec<_>>(),
        [(1, 1), (1, 1)]
    );
}
