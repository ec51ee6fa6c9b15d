//! State changes that the programs did not see.
//!
//! The kernel skips a program that is busy on the same CPU and counts that, per program (`recursion_misses`). Both copies
//! of the state program have such counts, but neither count is loss: what one copy skipped the other handles. The second
//! copy notes the changes it saw alone ([`leyline_abi::Copies::caught`]); what the first one skipped beyond those, nobody saw.
//! That is a lower bound: a change that interrupts the second copy in its first few instructions is noted once too often.
//!
//! Inputs: the two programs and the map `COPIES`. Output: [`Skipped`]. IO: `bpf()` system calls.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aya::Ebpf;

use super::error::KernelError;
use super::maps::Maps;
use super::sys;

/// A change the second copy is just about to see looks unseen. It is long done after this time.
const CONFIRM: Duration = Duration::from_millis(2);

/// State changes that a copy of the state program did not see because it was busy, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Those of `tcp_state`.
    pub first: u64,
    /// Those of `tcp_state_nested`.
    pub second: u64,
    /// Those of both: nobody saw them. Never falls.
    pub both: u64,
}

pub(super) struct Misses {
    first: Option<OwnedFd>,
    second: Option<OwnedFd>,
    last: Mutex<Reading>,
}

/// What one look at the counters gave.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    skipped: Skipped,
    caught: u64,
}

impl Misses {
    /// `attached` says which of the probes run. What is skipped before [`Self::start`] does not count: connections of that
    /// time are found by adoption.
    pub(super) fn new(ebpf: &Ebpf, attached: impl Fn(&str) -> bool) -> io::Result<Self> {
        let program = |name: &str| {
            let program = ebpf.program(name).filter(|_| attached(name));
            program
                .and_then(|program| program.fd().ok())
                .map(|fd| fd.as_fd().try_clone_to_owned())
                .transpose()
        };
        Ok(Self {
            first: program("tcp_state")?,
            second: program("tcp_state_nested")?,
            last: Mutex::default(),
        })
    }

    pub(super) fn start(&self, maps: &Maps) -> Result<(), KernelError> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = self.read(maps)?;
        Ok(())
    }

    pub(super) fn skipped(&self, maps: &Maps) -> Result<Skipped, KernelError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = self.read(maps)?;
        if self.unseen(&last, &now) > 0 {
            std::thread::sleep(CONFIRM);
            now = Reading {
                caught: self.read(maps)?.caught,
                ..now
            };
        }
        now.skipped.both = last.skipped.both.saturating_add(self.unseen(&last, &now));
        *last = now;
        Ok(now.skipped)
    }

    fn read(&self, maps: &Maps) -> Result<Reading, KernelError> {
        // Skipped first, caught second: a change between the two must not look unseen.
        let of = |program: &Option<OwnedFd>| program.as_ref().map_or(Ok(0), skipped);
        Ok(Reading {
            skipped: Skipped {
                first: of(&self.first)?,
                second: of(&self.second)?,
                both: 0,
            },
            caught: maps.caught()?,
        })
    }

    /// What nobody saw between two looks.
    fn unseen(&self, last: &Reading, now: &Reading) -> u64 {
        let first = now.skipped.first.saturating_sub(last.skipped.first);
        match (&self.first, &self.second) {
            (Some(_), Some(_)) => first.saturating_sub(now.caught.saturating_sub(last.caught)),
            // The only copy.
            _ => first.saturating_add(now.skipped.second.saturating_sub(last.skipped.second)),
        }
    }
}

fn skipped(program: &OwnedFd) -> Result<u64, KernelError> {
    sys::recursion_misses(program.as_fd()).map_err(|source| KernelError::Program {
        name: "tcp_state",
        source,
    })
}
