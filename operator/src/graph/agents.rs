//! How the collector speaks to the graph.

use std::net::IpAddr;

use leyline_graph::ReportError;
use leyline_graph::input::Report;
use tokio::sync::oneshot;

use super::{Input, Inputs};

/// Sends what agents say. Waits while the graph is busy.
#[derive(Clone, Debug)]
pub struct Agents(Inputs);

/// Why something was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The report contradicts what the agent said before.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The graph has ended.
    #[error("the operator is stopping")]
    Stopped,
}

impl Agents {
    /// Feeds the graph behind `inputs`.
    #[must_use]
    pub const fn new(inputs: Inputs) -> Self {
        Self(inputs)
    }

    /// A stream started.
    ///
    /// # Errors
    /// [`TakeError::Stopped`].
    pub async fn hello(&self, node: &str, epoch: u64, addresses: Vec<IpAddr>) -> Result<(), TakeError> {
        let node = node.to_owned();
        self.0
            .send(Input::Hello {
                node,
                epoch,
                addresses,
            })
            .await
            .map_err(|_| TakeError::Stopped)
    }

    /// A report came; returns when the graph has taken it in.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn report(&self, node: &str, epoch: u64, report: Report) -> Result<(), TakeError> {
        let (taken_tx, taken_rx) = oneshot::channel();
        let input = Input::Report {
            node: node.to_owned(),
            epoch,
            report,
            taken_tx,
        };
        self.0.send(input).await.map_err(|_| TakeError::Stopped)?;
        Ok(taken_rx.await.map_err(|_| TakeError::Stopped)??)
    }

    /// A node has no stream any more.
    pub async fn gone(&self, node: &str) {
        // Without a graph there is nobody to tell.
        let _ = self
            .0
            .send(Input::Gone {
                node: node.to_owned(),
            })
            .await;
    }
}
