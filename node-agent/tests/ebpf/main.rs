//! The kernel side on the real kernel: real sockets in network namespaces and cgroups of the tests' own.
//!
//! Needs root, a kernel with BTF, `ip` and `nft`. Run with
//! `cargo test -p leyline-node-agent --test ebpf -- --ignored --test-threads=1`: tests move the process between cgroups.
//! Everything a test makes is private to it and removed when it ends; other traffic of the machine is looked past.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test code; clippy recognises only the test functions themselves"
)]

mod adoption;
mod bytes;
mod cgroups;
mod failures;
mod half_edges;
mod load;
mod losses;
mod misses;
mod nat;
mod net;
mod owners;
mod records;
mod udp;
mod world;
