//! What can go wrong between the agent and the kernel.

use std::io;

/// Nothing works: no program could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A capability is missing.
    #[error("needs {0}: run as root, or add it to the container's securityContext.capabilities")]
    Capability(&'static str),
    /// The kernel carries no type information.
    #[error(
        "no /sys/kernel/btf/vmlinux: build the kernel with CONFIG_DEBUG_INFO_BTF, or mount /sys/kernel/btf ({0})"
    )]
    NoBtf(#[source] io::Error),
    /// The type information cannot be read.
    #[error("cannot parse /sys/kernel/btf/vmlinux: {0}")]
    BadBtf(String),
    /// The object was built without the programs (`LEYLINE_EBPF_SKIP`).
    #[error(
        "this binary was built without its eBPF programs (LEYLINE_EBPF_SKIP was set): build it again without"
    )]
    NoPrograms,
    /// The object was built for other structs.
    #[error("the embedded eBPF programs do not speak ABI {expected}: build both from one source tree")]
    Abi {
        /// What this crate was built with.
        expected: u32,
    },
    /// Maps or the object itself were refused.
    #[error("cannot create the eBPF maps: {0}")]
    Maps(String),
    /// Every single probe is unsupported or failed.
    #[error("no probe could be attached: {0}")]
    NoProbe(String),
}

/// A loaded kernel side failed to answer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Reading or writing a map.
    #[error("cannot {operation} map {map}: {source}")]
    Map {
        /// What was attempted.
        operation: &'static str,
        /// Which map.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Asking about a program.
    #[error("cannot ask the kernel about program {name}: {source}")]
    Program {
        /// Which probe.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Running an iterator.
    #[error("cannot run iterator {name}: {source}")]
    Iterator {
        /// Which probe.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}
