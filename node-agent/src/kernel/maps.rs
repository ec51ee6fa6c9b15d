//! The maps user space reads and writes, taken out of the loaded object.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf};
use leyline_abi::{Copies, Flow, FlowKey, Owner, Plain as _, setting, sockets_mode};

use super::error::{KernelError, LoadError};
use super::split::{Prefix, SplitSet};
use super::sys;

type OwnerBytes = [u8; size_of::<Owner>()];

pub(super) struct Maps {
    pub(super) half_edges: MapData,
    pub(super) pods: HashMap<MapData, u64, u32>,
    pub(super) owners: HashMap<MapData, u32, OwnerBytes>,
    pub(super) loss: Array<MapData, u64>,
    pub(super) connections: RingBuf<MapData>,
    pub(super) cgroups: RingBuf<MapData>,
    flows: MapData,
    flows_made: Array<MapData, u64>,
    copies: PerCpuArray<MapData, [u8; size_of::<Copies>()]>,
    split: LpmTrie<MapData, [u8; 16], u32>,
    settings: Array<MapData, u32>,
    descriptors: Vec<RawFd>,
}

/// An aya error as ours; what the kernel answered is kept where there was an answer.
pub(super) fn map_error(operation: &'static str, map: &'static str, error: MapError) -> KernelError {
    let source = match error {
        MapError::SyscallError(call) => call.io_error,
        MapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    };
    KernelError::Map {
        operation,
        map,
        source,
    }
}

/// Whether an error only says that the key was not there.
pub(super) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(call) => call.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

impl Maps {
    /// Takes the maps out; programs that are loaded later no longer find them.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let descriptors = ebpf
            .maps()
            .filter_map(|(_, map)| Some(data(map)?.fd().as_fd().as_raw_fd()))
            .collect();
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .ok_or_else(|| LoadError::Maps(format!("the object has no map {name}")))
        };
        let shape = |error: MapError| LoadError::Maps(error.to_string());
        let half_edges = match take("HALF_EDGES")? {
            Map::HashMap(data) => data,
            _ => return Err(LoadError::Maps("HALF_EDGES is not a hash map".to_owned())),
        };
        let flows = match take("FLOWS")? {
            Map::LruHashMap(data) => data,
            _ => return Err(LoadError::Maps("FLOWS is not an LRU hash map".to_owned())),
        };
        Ok(Self {
            half_edges,
            pods: take("PODS")?.try_into().map_err(shape)?,
            owners: take("OWNERS")?.try_into().map_err(shape)?,
            loss: take("LOSS")?.try_into().map_err(shape)?,
            connections: take("CONNECTIONS")?.try_into().map_err(shape)?,
            cgroups: take("CGROUPS")?.try_into().map_err(shape)?,
            flows,
            flows_made: take("FLOWS_MADE")?.try_into().map_err(shape)?,
            copies: take("COPIES")?.try_into().map_err(shape)?,
            split: take("SPLIT")?.try_into().map_err(shape)?,
            settings: take("SETTINGS")?.try_into().map_err(shape)?,
            descriptors,
        })
    }

    pub(super) fn set(&mut self, index: u32, value: u32) -> Result<(), KernelError> {
        self.settings
            .set(index, &value, 0)
            .map_err(|error| map_error("write", "SETTINGS", error))
    }

    pub(super) fn read_flows(&self) -> Result<Vec<(FlowKey, Flow)>, KernelError> {
        let mut flows = Vec::new();
        sys::for_each::<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>(
            self.flows.fd().as_fd(),
            |key, value| flows.extend(FlowKey::from_bytes(key).zip(Flow::from_bytes(value))),
        )
        .map_err(|source| KernelError::Map {
            operation: "read",
            map: "FLOWS",
            source,
        })?;
        Ok(flows)
    }

    /// Whether it was there.
    pub(super) fn remove_flow(&self, key: &FlowKey) -> Result<bool, KernelError> {
        sys::take::<{ size_of::<Flow>() }>(self.flows.fd().as_fd(), key.as_bytes())
            .map(|flow| flow.is_some())
            .map_err(|source| KernelError::Map {
                operation: "remove from",
                map: "FLOWS",
                source,
            })
    }

    /// UDP flows since the start.
    pub(super) fn flows_made(&self) -> Result<u64, KernelError> {
        self.flows_made
            .get(&0, 0)
            .map_err(|error| map_error("read", "FLOWS_MADE", error))
    }

    /// State changes that the second copy of the state program alone saw.
    pub(super) fn caught(&self) -> Result<u64, KernelError> {
        let values = self
            .copies
            .get(&0, 0)
            .map_err(|error| map_error("read", "COPIES", error))?;
        Ok(values
            .iter()
            .filter_map(|bytes| Copies::from_bytes(bytes))
            .map(|copies| copies.caught)
            .sum())
    }

    /// Listeners first, so that their ports can vote on the roles of what is adopted.
    pub(super) fn run_sockets(&mut self, sockets: &sys::Iterator) -> Result<(), KernelError> {
        for mode in [sockets_mode::LISTENERS, sockets_mode::ADOPT] {
            self.set(setting::SOCKETS_MODE, mode)?;
            sockets.run().map_err(|source| KernelError::Iterator {
                name: "sockets",
                source,
            })?;
        }
        Ok(())
    }

    /// New prefixes first: an address in both sets is never missing.
    pub(super) fn replace_split(&mut self, old: &SplitSet, new: &SplitSet) -> Result<(), KernelError> {
        let key = |prefix: &Prefix| Key::new(u32::from(prefix.length), prefix.address.octets());
        for prefix in new.prefixes().difference(old.prefixes()) {
            self.split
                .insert(&key(prefix), &1, 0)
                .map_err(|error| map_error("insert into", "SPLIT", error))?;
        }
        for prefix in old.prefixes().difference(new.prefixes()) {
            match self.split.remove(&key(prefix)) {
                Err(error) if !is_absent(&error) => return Err(map_error("remove from", "SPLIT", error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What `/proc` says each map takes.
    pub(super) fn bytes(&self) -> u64 {
        self.descriptors
            .iter()
            .filter_map(|fd| memlock(&fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?))
            .sum()
    }
}

fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?
        .trim()
        .parse()
        .ok()
}

/// The descriptor behind each kind of map the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}
