//! The maps, and the state kept with each socket. Sizes here are defaults; the loader sets them.

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use leyline_abi::{
    CgroupEvent, Connection, Copies, Flow, FlowKey, HalfEdge, HalfEdgeKey, Owner, loss, setting,
};

use crate::kernel::Socket;

/// `Slot::phase`: what we know of this socket.
pub(crate) mod phase {
    /// Nothing, or it is not ours to watch.
    pub(crate) const NONE: u64 = 0;
    /// It listens; its children start as a copy of its slot.
    pub(crate) const LISTENING: u64 = 1;
    /// `connect()` was called.
    pub(crate) const CONNECTING: u64 = 2;
    /// Established and counted in its half-edge.
    pub(crate) const OPEN: u64 = 3;
    /// Established, but its half-edge found no place; its bytes are loss.
    pub(crate) const LOST: u64 = 4;
    /// Being counted late, by a sweep or its own close.
    pub(crate) const STARTING: u64 = 5;
}

/// What is kept with a socket, in socket storage: freed with the socket, copied from a listener to its children.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// See [`phase`]. Changed atomically where two CPUs may meet.
    pub(crate) phase: u64,
    pub(crate) key: HalfEdgeKey,
    /// When `connect()` was called; 0 when that was not seen.
    pub(crate) started_ns: u64,
    /// [`HalfEdge::serial`] of the half-edge it was counted in.
    pub(crate) half_edge: u64,
    /// Payload the connection had carried when it was adopted.
    pub(crate) base_sent: u64,
    pub(crate) base_received: u64,
    /// Payload and retransmits already folded.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) retransmits: u64,
    /// `bytes_received` as the last sweep saw it.
    pub(crate) swept_received: u64,
    pub(crate) client_isn: u32,
    pub(crate) server_isn: u32,
    /// Kept here because a closing socket has given its port back already.
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// 0: no records; else 1 + log2 of how many connections each record stands for.
    pub(crate) recorded: u16,
    /// See [`leyline_abi::flags`].
    pub(crate) flags: u16,
}

/// Socket storage that listeners hand on to their children. (`aya_ebpf`'s own type has no BPF_F_CLONE.)
#[repr(C)]
pub(crate) struct ClonedSocketStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: a definition that the loader reads; nothing dereferences its pointers.
unsafe impl<T> Sync for ClonedSocketStorage<T> {}

impl<T> ClonedSocketStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// For helpers that take the map.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// Per-socket state.
#[btf_map]
pub(crate) static SLOTS: ClonedSocketStorage<Slot> = ClonedSocketStorage::new();

/// Totals per half-edge.
#[btf_map]
pub(crate) static HALF_EDGES: HashMap<HalfEdgeKey, HalfEdge, 16384> = HashMap::new();

/// Last serial handed out.
#[btf_map]
pub(crate) static SERIAL: Array<u64, 1> = Array::new();

/// Cgroups that user space knows to be a pod's.
#[btf_map]
pub(crate) static PODS: HashMap<u64, u32, 4096> = HashMap::new();

/// What thread groups were called when they made their sockets.
#[btf_map]
pub(crate) static OWNERS: LruHashMap<u32, Owner, 4096> = LruHashMap::new();

/// Ports somebody listened on when the programs were loaded, by network namespace, with the thread group that holds the
/// listener (0: a pod's): the second vote on an adopted socket's role, and the owner of children whose listener could
/// not be prepared.
#[btf_map]
pub(crate) static LISTENERS: LruHashMap<Listener, u32, 4096> = LruHashMap::new();

/// Key of [`LISTENERS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Listener {
    pub(crate) netns: u32,
    pub(crate) port: u32,
}

impl Listener {
    /// Where `socket` listens, or where the listener it came from does.
    #[inline(always)]
    pub(crate) fn of(socket: Socket) -> Self {
        Self {
            netns: socket.netns(),
            port: u32::from(socket.local_port()),
        }
    }
}

/// Remote addresses whose connections are recorded one by one.
#[btf_map]
pub(crate) static SPLIT: LpmTrie<[u8; 16], u32, 1024> = LpmTrie::new();

/// See [`leyline_abi::setting`].
#[btf_map]
pub(crate) static SETTINGS: Array<u32, { setting::COUNT as usize }> = Array::new();

/// See [`leyline_abi::loss`].
#[btf_map]
pub(crate) static LOSS: Array<u64, { loss::COUNT as usize }> = Array::new();

/// UDP flows; the one that was quiet for longest makes room.
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow, 16384> = LruHashMap::new();

/// How many flows were put into [`FLOWS`].
#[btf_map]
pub(crate) static FLOWS_MADE: Array<u64, 1> = Array::new();

/// The address that a thread's current UDP call names, by thread.
#[btf_map]
pub(crate) static NAMED: LruHashMap<u64, Named, 4096> = LruHashMap::new();

/// Value of [`NAMED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) remote: [u8; 16],
    pub(crate) remote_port: u32,
    /// 0 once it is used.
    pub(crate) way: u32,
}

/// See [`leyline_abi::Copies`].
#[btf_map]
pub(crate) static COPIES: PerCpuArray<Copies, 1> = PerCpuArray::new();

/// Records of split half-edges.
#[btf_map]
pub(crate) static CONNECTIONS: RingBuf<Connection, { 1 << 20 }> = RingBuf::new();

/// Cgroups that came and went.
#[btf_map]
pub(crate) static CGROUPS: RingBuf<CgroupEvent, { 1 << 17 }> = RingBuf::new();

/// Counts what was not recorded.
#[inline(always)]
pub(crate) fn lose(cause: u32, amount: u64) {
    if let Some(cell) = LOSS.get_ptr_mut(cause) {
        // SAFETY: a map value.
        unsafe { crate::atomic::add(cell, amount) };
    }
}

/// A setting, 0 if user space wrote none.
#[inline(always)]
pub(crate) fn setting(index: u32) -> u32 {
    // SAFETY: user space writes whole aligned words.
    SETTINGS
        .get_ptr(index)
        .map_or(0, |cell| unsafe { cell.read_volatile() })
}
