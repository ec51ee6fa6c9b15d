//! What one message of an agent may hold. An honest agent stays far below; each number says why it is enough.

/// One message. Agents send chunks of at most 1 MiB.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// New half-edges in one report: more than the default size of an agent's table.
pub const DEFINITIONS: usize = 20_000;
/// Counters in one report, for the same reason.
pub const COUNTERS: usize = 20_000;
/// Connection records in one report: agents keep at most 20,000.
pub const CONNECTIONS: usize = 40_000;
/// Half-edges that ended, in one report.
pub const ENDED: usize = 40_000;
/// Addresses of one node. With kube-proxy in IPVS mode every Service address is one of them.
pub const NODE_ADDRESSES: usize = 16_384;
/// Probes of one agent.
pub const PROBES: usize = 64;
/// Why a probe is not attached, in bytes.
pub const PROBE_REASON: usize = 1_024;
/// A node name is a DNS subdomain.
pub const NODE_NAME: usize = 253;
/// A pod uid has 36 characters, a static pod's config hash 32.
pub const POD_UID: usize = 63;
/// Agents cut names of processes here.
pub const PROCESS_NAME: usize = 63;
/// Versions of agent and kernel.
pub const VERSION: usize = 128;
/// Largest counter: 2^56, so that sums of many half-edges stay inside of 64 bits.
pub const COUNT: u64 = 1 << 56;
/// Connections one record may stand for.
pub const WEIGHT: u32 = 1 << 20;
/// Ages are cut at ten years.
pub const AGE_MS: i64 = 10 * 366 * 24 * 3_600 * 1_000;
