//! The few `bpf()` commands that aya has no call for.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;
/// The kernel's own "not supported", unknown to libc.
const ENOTSUPP: i32 = 524;

/// One command. `attributes` must be the struct that `command` takes.
///
/// # Safety
///
/// Pointers inside `attributes` must be valid for what the command does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the size tells the kernel how much of the struct there is; the caller vouches for the pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attributes,
            size_of_val(attributes),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// An attached iterator program; detached when dropped.
#[derive(Debug)]
pub(super) struct Iterator(OwnedFd);

impl Iterator {
    /// Attaches `program`; `map` for iterators that walk one map.
    pub(super) fn attach(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        #[repr(C)]
        struct LinkCreate {
            program: u32,
            target: u32,
            attach_type: u32,
            flags: u32,
            info: u64,
            info_len: u32,
            padding: u32,
        }
        let info = map.map_or(0, |map| map.as_raw_fd());
        let mut attributes = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            target: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            info: if map.is_some() {
                (&raw const info).expose_provenance() as u64
            } else {
                0
            },
            info_len: if map.is_some() {
                size_of_val(&info) as u32
            } else {
                0
            },
            padding: 0,
        };
        // SAFETY: `info` outlives the call.
        let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Runs it once over everything.
    pub(super) fn run(&self) -> io::Result<()> {
        #[repr(C)]
        struct IterCreate {
            link: u32,
            flags: u32,
        }
        let mut attributes = IterCreate {
            link: self.0.as_raw_fd().cast_unsigned(),
            flags: 0,
        };
        // SAFETY: no pointers.
        let fd = unsafe { bpf(BPF_ITER_CREATE, &mut attributes) }?;
        // SAFETY: a new descriptor that nobody else owns.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        // The programs write nothing; a read walks as far as the kernel lets it, until it says end of file.
        let mut nothing = [0; 64];
        loop {
            match file.read(&mut nothing) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How often the kernel skipped a program because it was busy on the same CPU.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// The kernel's `struct bpf_prog_info` up to `recursion_misses` (Linux 5.12), in words of 8 bytes.
    const WORDS: usize = 27;
    #[repr(C)]
    struct GetInfo {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = [0_u64; WORDS];
    let mut attributes = GetInfo {
        fd: program.as_raw_fd().cast_unsigned(),
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: `info` outlives the call and has the length that is given; its zeros ask for no further buffers.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let [.., misses] = info;
    Ok(misses)
}

/// Removes an entry and returns its last value; `None` if there was none. Before Linux 5.14 hash maps cannot do both in
/// one step.
pub(super) fn take<const N: usize>(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<Option<[u8; N]>> {
    let mut value = [0; N];
    let mut element = |command| {
        let mut attributes = Element {
            map: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: key.as_ptr().expose_provenance() as u64,
            value: value.as_mut_ptr().expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: key and value outlive the call and have the sizes the map was made with.
        unsafe { bpf(command, &mut attributes) }
    };
    let result = match element(BPF_MAP_LOOKUP_AND_DELETE_ELEM) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
            ) =>
        {
            element(BPF_MAP_LOOKUP_ELEM).and_then(|_| element(BPF_MAP_DELETE_ELEM))
        }
        result => result,
    };
    match result {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads a hash map in batches of `BATCH` entries.
pub(super) fn for_each<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    const BATCH: usize = 256;
    #[repr(C)]
    struct Batch {
        from: u64,
        to: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    // Where the kernel goes on; for a hash map a bucket number of 4 bytes, but a key's size is always enough.
    let mut position = vec![0u8; K.max(8)];
    let mut started = false;
    let mut room = BATCH;
    let (mut keys, mut values) = (vec![[0u8; K]; room], vec![[0u8; V]; room]);
    loop {
        let mut attributes = Batch {
            from: if started {
                position.as_ptr().expose_provenance() as u64
            } else {
                0
            },
            to: position.as_mut_ptr().expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: room as u32,
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: all buffers outlive the call and have room for `count` elements of the map's sizes.
        let end = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One bucket holds more than a batch: more room.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 20 => {
                room *= 4;
                keys.resize(room, [0; K]);
                values.resize(room, [0; V]);
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, value) in keys.iter().zip(&values).take(attributes.count as usize) {
            visit(key, value);
        }
        if end {
            return Ok(());
        }
        started = true;
    }
}
