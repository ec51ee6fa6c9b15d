//! Loading: check what the kernel offers, create the maps, then load and attach each program on its own.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use aya::maps::Map;
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, Iter, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use leyline_abi::{ABI_VERSION, LAYOUT_SYMBOL, Plain as _, setting};

use super::closes::Closes;
use super::error::LoadError;
use super::flows::Flows;
use super::maps::Maps;
use super::misses::Misses;
use super::offsets::{self, Needs, Offsets};
use super::probe::{ProbeState, ProbeStatus};
use super::split::SplitSet;
use super::{ADOPTION, Kernel, KernelOptions, capabilities, sys};

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// Atomic compare-exchange, which folding needs.
const MINIMUM_KERNEL: (u32, u32) = (5, 12);

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leyline"));

pub(super) fn load(options: &KernelOptions) -> Result<Kernel, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoPrograms);
    }
    capabilities::check()?;
    let (offsets, types) = read_types()?;
    let mut ebpf = create_maps(options, &offsets)?;

    let mut loader = Loader {
        ebpf: &mut ebpf,
        types: &types,
        offsets: &offsets,
        leave_out: options.leave_out,
        probes: Vec::new(),
    };
    // Listeners are prepared before the first connection can be born from one of them.
    let sockets = loader.iterator("sockets", "task_file", Needs::Sockets, None);
    if let Some(sockets) = &sockets {
        // SOCKETS_MODE starts as LISTENERS. A failure here shows again, with its reason, in the first sweep.
        let _ = sockets.run();
    }
    loader.tracepoint("tcp_state", "inet_sock_set_state", Needs::Tcp);
    loader.tracepoint("tcp_state_nested", "inet_sock_set_state", Needs::Tcp);
    let totals = loader.iterator("totals", "bpf_sk_storage_map", Needs::Tcp, Some("SLOTS"));
    udp(&mut loader, options);
    loader.tracepoint("cgroup_mkdir", "cgroup_mkdir", Needs::Cgroups);
    loader.tracepoint("cgroup_rmdir", "cgroup_rmdir", Needs::Cgroups);
    let mut probes = loader.probes;
    probes.sort_by_key(|probe| super::PROBES.iter().position(|name| *name == probe.name));
    if probes.iter().all(|probe| probe.state != ProbeState::Attached) {
        let reasons: Vec<_> = probes
            .iter()
            .map(|probe| format!("{}: {}", probe.name, probe.reason))
            .collect();
        return Err(LoadError::NoProbe(reasons.join("; ")));
    }

    let misses = Misses::new(&ebpf, |name| is_attached(&probes, name))
        .map_err(|error| LoadError::Maps(error.to_string()))?;
    let maps = Maps::take(&mut ebpf)?;
    misses
        .start(&maps)
        .map_err(|error| LoadError::Maps(error.to_string()))?;
    let adopt_until = Instant::now() + ADOPTION;
    let mut kernel = Kernel {
        _ebpf: ebpf,
        probes,
        sockets,
        totals,
        maps,
        misses,
        closes: Closes::default(),
        flows: Flows::default(),
        flow_idle: options.flow_idle,
        split: SplitSet::default(),
        adopt_until,
    };
    kernel
        .maps
        .set(setting::FLOWS_MAY_BE_OLDER, 1)
        .map_err(|error| LoadError::Maps(error.to_string()))?;
    kernel
        .set_split(SplitSet::new(&[]))
        .map_err(|error| LoadError::Maps(error.to_string()))?;
    Ok(kernel)
}

/// Addresses first: a length that finds none is loss.
fn udp(loader: &mut Loader<'_>, options: &KernelOptions) {
    let refusal = if !loader.offsets.has_datagram_lengths {
        Some("needs the tracepoints sock_send_length and sock_recv_length (Linux 6.3)")
    } else if !capabilities::net_admin() {
        Some("needs CAP_NET_ADMIN")
    } else if options.cgroup_root.is_none() {
        Some("no unified cgroup hierarchy is mounted")
    } else {
        None
    };
    for name in ["udp_sendmsg4", "udp_sendmsg6", "udp_recvmsg4", "udp_recvmsg6"] {
        loader.attempt(name, Needs::Udp, |ebpf| {
            if let Some(refusal) = refusal {
                return Err(Refusal::Unsupported(refusal.to_owned()));
            }
            let root = options.cgroup_root.as_deref().unwrap_or(Path::new("/"));
            let root = fs::File::open(root)
                .map_err(|error| Refusal::Failed(format!("cannot open {}: {error}", root.display())))?;
            let program: &mut CgroupSockAddr = program(ebpf, name)?;
            program
                .load()
                .and_then(|()| program.attach(root, CgroupAttachMode::Single))
                .map(drop)
                .map_err(|error| Refusal::program(&error, "cgroup hook of datagrams"))
        });
    }
    loader.tracepoint("udp_sent", "sock_send_length", Needs::Udp);
    loader.tracepoint("udp_received", "sock_recv_length", Needs::Udp);
}

fn is_attached(probes: &[ProbeStatus], name: &str) -> bool {
    probes
        .iter()
        .any(|probe| probe.name == name && probe.state == ProbeState::Attached)
}

/// One read of the kernel's type information, for our offsets and for aya's attach ids.
fn read_types() -> Result<(Offsets, Btf), LoadError> {
    let bytes = fs::read(BTF_PATH).map_err(LoadError::NoBtf)?;
    let offsets = offsets::resolve(&bytes).map_err(|error| LoadError::BadBtf(error.to_string()))?;
    let types =
        Btf::parse(&bytes, object_endianness()).map_err(|error| LoadError::BadBtf(error.to_string()))?;
    Ok((offsets, types))
}

fn object_endianness() -> aya::Endianness {
    if cfg!(target_endian = "little") {
        aya::Endianness::Little
    } else {
        aya::Endianness::Big
    }
}

fn create_maps(options: &KernelOptions, offsets: &Offsets) -> Result<Ebpf, LoadError> {
    let ring = |bytes: u32| bytes.clamp(1 << 12, 1 << 30).next_power_of_two();
    EbpfLoader::new()
        .override_global(LAYOUT_SYMBOL, offsets.layout.as_bytes(), true)
        .map_max_entries("HALF_EDGES", options.max_half_edges.max(1))
        .map_max_entries("PODS", options.max_pods.max(1))
        .map_max_entries("FLOWS", options.max_flows())
        .map_max_entries("OWNERS", options.max_owners.max(1))
        .map_max_entries("CONNECTIONS", ring(options.connection_ring_bytes))
        .map_max_entries("CGROUPS", ring(options.cgroup_ring_bytes))
        .allow_unsupported_maps()
        .load(OBJECT)
        .map_err(|error| match error {
            EbpfError::ParseError(aya_parse) if aya_parse.to_string().contains(LAYOUT_SYMBOL) => {
                LoadError::Abi {
                    expected: ABI_VERSION,
                }
            }
            other => LoadError::Maps(with_causes(&other)),
        })
}

/// An error with everything it says about why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

struct Loader<'a> {
    ebpf: &'a mut Ebpf,
    types: &'a Btf,
    offsets: &'a Offsets,
    leave_out: &'static [&'static str],
    probes: Vec<ProbeStatus>,
}

impl Loader<'_> {
    fn tracepoint(&mut self, name: &'static str, tracepoint: &str, needs: Needs) {
        let types = self.types;
        self.attempt(name, needs, |ebpf| {
            let program: &mut BtfTracePoint = program(ebpf, name)?;
            program
                .load(tracepoint, types)
                .map_err(|error| Refusal::program(&error, &format!("tracepoint {tracepoint}")))?;
            program
                .attach()
                .map_err(|error| Refusal::program(&error, &format!("tracepoint {tracepoint}")))?;
            Ok(())
        });
    }

    fn iterator(
        &mut self,
        name: &'static str,
        walks: &str,
        needs: Needs,
        map: Option<&str>,
    ) -> Option<sys::Iterator> {
        let types = self.types;
        self.attempt(name, needs, |ebpf| {
            let loaded: &mut Iter = program(ebpf, name)?;
            loaded
                .load(walks, types)
                .map_err(|error| Refusal::program(&error, &format!("iterator {walks}")))?;
            let loaded: &Iter = match ebpf.program(name) {
                Some(Program::Iter(iter)) => iter,
                _ => return Err(Refusal::Failed(format!("the object has no program {name}"))),
            };
            let fd = loaded.fd().map_err(|error| Refusal::program(&error, walks))?;
            let map = map.and_then(|map| storage(ebpf, map));
            sys::Iterator::attach(fd.as_fd(), map)
                .map_err(|error| Refusal::Failed(format!("cannot attach: {error}")))
        })
    }

    fn attempt<T>(
        &mut self,
        name: &'static str,
        needs: Needs,
        attach: impl FnOnce(&mut Ebpf) -> Result<T, Refusal>,
    ) -> Option<T> {
        if self.leave_out.contains(&name) {
            return None;
        }
        let missing: Vec<&str> = self
            .offsets
            .missing
            .iter()
            .filter(|(who, _)| who.includes(needs))
            .map(|(_, field)| field.as_str())
            .collect();
        if !missing.is_empty() {
            self.probes.push(ProbeStatus::unsupported(
                name,
                format!("this kernel has no {}", missing.join(", ")),
            ));
            return None;
        }
        match attach(self.ebpf) {
            Ok(attached) => {
                self.probes.push(ProbeStatus::attached(name));
                Some(attached)
            }
            Err(Refusal::Unsupported(reason)) => {
                self.probes.push(ProbeStatus::unsupported(name, reason));
                None
            }
            Err(Refusal::Failed(reason)) => {
                self.probes.push(ProbeStatus::failed(name, reason));
                None
            }
        }
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Refusal>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let found = ebpf
        .program_mut(name)
        .ok_or_else(|| Refusal::Failed(format!("the object has no program {name}")))?;
    found
        .try_into()
        .map_err(|error: ProgramError| Refusal::Failed(error.to_string()))
}

fn storage<'a>(ebpf: &'a Ebpf, name: &str) -> Option<BorrowedFd<'a>> {
    match ebpf.map(name)? {
        Map::SkStorage(data) | Map::Unsupported(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

/// Why a probe does not run.
enum Refusal {
    Unsupported(String),
    Failed(String),
}

impl Refusal {
    fn program(error: &ProgramError, what: &str) -> Self {
        if let Some(kernel) = older_than(MINIMUM_KERNEL) {
            let (major, minor) = MINIMUM_KERNEL;
            return Self::Unsupported(format!("needs Linux {major}.{minor}, this is {kernel}"));
        }
        match error {
            ProgramError::Btf(_) => Self::Unsupported(format!("this kernel has no {what}")),
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => Self::Failed(format!("{io_error}: {}", last_words(&verifier_log.to_string()))),
            other => Self::Failed(with_causes(other)),
        }
    }
}

/// The kernel's release if it is older than wanted and can be read.
fn older_than((major, minor): (u32, u32)) -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .ok()?
        .trim()
        .to_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let found = (numbers.next()?, numbers.next()?);
    (found < (major, minor)).then_some(release)
}

/// The verifier says why at the end, before its statistics. All of it with `LEYLINE_VERIFIER_LOG=1`.
fn last_words(log: &str) -> String {
    if std::env::var_os("LEYLINE_VERIFIER_LOG").is_some() {
        return log.to_owned();
    }
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| !line.starts_with("processed ") && !line.trim().is_empty())
        .collect();
    lines
        .get(lines.len().saturating_sub(3)..)
        .unwrap_or_default()
        .join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_end_of_the_verifiers_log_without_its_statistics() {
        let log = "0: (b7) r0 = 0\n1: (79) r1 = *(u64 *)(r1 +0)\nR1 invalid mem access 'scalar'\nprocessed 2 insns\n\n";
        assert_eq!(
            last_words(log),
            "0: (b7) r0 = 0 | 1: (79) r1 = *(u64 *)(r1 +0) | R1 invalid mem access 'scalar'"
        );
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn this_kernel_is_old_only_for_the_far_future() {
        assert_eq!(older_than((2, 6)), None);
        assert!(older_than((999, 0)).is_some());
    }
}
