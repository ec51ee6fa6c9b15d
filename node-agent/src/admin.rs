//! The admin port: `/livez`, `/readyz`, `/metrics`.
//!
//! Live: the kernel was read within [`LIVE_WITHIN`]. Ready: at least one probe is attached.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use leyline_wire::probe;
use tokio::net::TcpListener;

use crate::clock;
use crate::metrics::Metrics;
use crate::streams::Shared;

/// A report loop that has not read the kernel for so long is stuck.
pub const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// The port cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {address}: {source}; choose another with --admin")]
pub struct AdminError {
    address: SocketAddr,
    source: io::Error,
}

/// Binds the port, and returns the server to be run.
///
/// # Errors
/// The address is taken or not this machine's.
pub async fn listen(
    address: SocketAddr,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
) -> Result<impl Future<Output = ()> + Send + 'static, AdminError> {
    let failed = |source| AdminError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state((shared, metrics));
    Ok(async move {
        // axum's server retries failed accepts by itself and does not return.
        let _ = axum::serve(listener, router).await;
    })
}

type Context = Extract<(Arc<Shared>, Arc<Metrics>)>;

async fn live(Extract((shared, _)): Context) -> impl IntoResponse {
    let age = shared.state().taken_at.age_until(clock::monotonic_ns());
    if age < LIVE_WITHIN {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the kernel was last read {age:?} ago\n"),
        )
    }
}

async fn ready(Extract((shared, _)): Context) -> impl IntoResponse {
    let state = shared.state();
    let probes = state.probes.get();
    let is_ready = probes.iter().any(|probe| probe.state() == probe::State::Attached);
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let lines = probes
        .iter()
        .map(|probe| format!("{} {:?} {}\n", probe.name, probe.state(), probe.reason));
    (status, lines.collect::<String>())
}

async fn text(Extract((_, metrics)): Context) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}
