//! The state of one eBPF attachment.

use std::fmt;

/// Whether a probe runs, and if not, whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeState {
    /// Loaded and attached.
    Attached,
    /// This kernel or these rights cannot run it; the reason says what is missing.
    Unsupported,
    /// It should run here but did not load or attach; the reason carries the kernel's words.
    Failed,
}

impl fmt::Display for ProbeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attached => "Attached",
            Self::Unsupported => "Unsupported",
            Self::Failed => "Failed",
        })
    }
}

/// One probe with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Stable name, a closed set: see [`super::PROBES`].
    pub name: &'static str,
    /// See [`ProbeState`].
    pub state: ProbeState,
    /// Empty when attached.
    pub reason: String,
}

impl ProbeStatus {
    pub(super) fn attached(name: &'static str) -> Self {
        Self {
            name,
            state: ProbeState::Attached,
            reason: String::new(),
        }
    }

    pub(super) fn unsupported(name: &'static str, reason: impl Into<String>) -> Self {
        Self {
            name,
            state: ProbeState::Unsupported,
            reason: reason.into(),
        }
    }

    pub(super) fn failed(name: &'static str, reason: impl Into<String>) -> Self {
        Self {
            name,
            state: ProbeState::Failed,
            reason: reason.into(),
        }
    }
}
