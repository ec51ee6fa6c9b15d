//! Why a report is refused.

use thiserror::Error;

/// A report that contradicts the protocol. The stream it came on must end; nothing of the report was taken in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReportError {
    /// No hello came before.
    #[error("report of node {node} before its hello")]
    NoHello {
        /// The node.
        node: String,
    },
    /// The epoch is not the one of the last hello.
    #[error("report of epoch {got} after a hello of epoch {expected}")]
    Epoch {
        /// The hello's.
        expected: u64,
        /// The report's.
        got: u64,
    },
    /// An id was defined before as something else.
    #[error("half-edge {id} is defined again as something else")]
    Redefined {
        /// The id.
        id: u32,
    },
    /// Counters, a connection or an end for an id without definition.
    #[error("half-edge {id} is used before its definition")]
    Undefined {
        /// The id.
        id: u32,
    },
    /// A cumulative counter shrank within the epoch.
    #[error("counter {counter} of half-edge {id} went backwards")]
    Backwards {
        /// The id.
        id: u32,
        /// Which counter.
        counter: &'static str,
    },
    /// The node's loss counter shrank within the epoch.
    #[error("the loss counter went backwards")]
    LossBackwards,
    /// A connection that stands for none.
    #[error("connection of half-edge {id} with weight 0")]
    Weightless {
        /// The id.
        id: u32,
    },
}
