//! The words for one end of an edge, and the key of an edge.

use std::fmt;

/// Milliseconds since 1970 on the operator's clock. The graph never reads a clock; every call brings the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// This moment and so many milliseconds.
    #[must_use]
    pub const fn plus(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to this moment; negative when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    /// `Deployment` … `Pod` or a custom kind, `NodeProcess`, `Service`, `External`, `Address`.
    pub kind: String,
    /// API group of `kind`; empty for the core group and for kinds that are not Kubernetes objects.
    pub api_group: String,
    /// Empty for ends that are in no namespace.
    pub namespace: String,
    /// Name of the workload, process, Service or external end.
    pub name: String,
}

/// IP protocol of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// What an edge is: client → server:port/transport, without any ephemeral port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// The side that called `connect()`.
    pub client: Entity,
    /// The other side.
    pub server: Entity,
    /// The port the server process listens on; 0 when it is dynamic.
    pub port: u16,
    /// IP protocol.
    pub transport: Transport,
}
