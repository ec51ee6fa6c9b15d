//! The TLS listener of the collector.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::service::Collector;
use crate::tls::Material;

/// A handshake that takes longer is not an agent's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead connection is noticed after interval plus timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// An agent uses one; two overlap when it reconnects.
const STREAMS_PER_CONNECTION: u32 = 4;
/// A projected token and a few names.
const HEADER_BYTES: u32 = 32 * 1024;

/// Why the collector does not listen (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The port is taken or not allowed.
    #[error("cannot listen for node agents on {address}")]
    Bind {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate or key is unusable.
    #[error("the serving certificate in the Secret cannot be used; delete the Secret to have a new one made")]
    Tls(#[source] tonic::transport::Error),
    /// The server failed.
    #[error("the server for node agents failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Opens the port.
///
/// # Errors
/// [`ServerError::Bind`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    crate::net::listen(address)
        .await
        .map_err(|source| ServerError::Bind { address, source })
}

/// Serves until `shutdown` is cancelled and the streams have ended.
///
/// # Errors
/// [`ServerError::Tls`], [`ServerError::Serve`].
pub async fn serve(
    listener: TcpListener,
    material: &Material,
    collector: Collector,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let identity = Identity::from_pem(&material.certificate, &material.key);
    Server::builder()
        .tls_config(
            ServerTlsConfig::new()
                .identity(identity)
                .timeout(HANDSHAKE_TIMEOUT),
        )
        .map_err(ServerError::Tls)?
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(collector)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await
        .map_err(ServerError::Serve)
}
