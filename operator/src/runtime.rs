//! One process: starts everything, stops everything.
//!
//! Order of the start: admin port (so that probes answer), client, certificates, watches, graph, lease, collector. On
//! SIGTERM or SIGINT the streams are told to go elsewhere, the lease is given back and writes under way end; a second
//! signal aborts.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::args::Args;
use crate::graph::driver::{self, Driver};
use crate::graph::{Agents, INPUTS};
use crate::ingest::auth::Authenticator;
use crate::ingest::server;
use crate::ingest::service::Collector;
use crate::metrics::Metrics;
use crate::{apply, lease, net, observe, tls};

/// config/operator gives 20 s between SIGTERM and SIGKILL.
const DRAIN: Duration = Duration::from_secs(15);
/// For agents to read why their stream ends.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between attempts to reach the API server while starting.
const RETRY: Duration = Duration::from_secs(2);

/// Sets up logging to standard error.
///
/// # Errors
/// The filter cannot be understood.
pub fn log(filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("--log: not a log filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}

/// rustls must be told which cryptography to use, once per process.
pub fn install_tls_provider() {
    // An error says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Runs until a signal.
///
/// # Errors
/// What makes the operator useless: ports taken, no usable configuration, a part that failed.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(on_signal(shutdown.clone()));
    let client = Client::try_default()
        .await
        .context("neither a service account nor a kubeconfig was found")?;
    let agents_listener = server::bind(args.listen).await?;
    let admin_listener = net::listen(args.admin)
        .await
        .with_context(|| format!("cannot listen on {} for the admin port", args.admin))?;
    Operator {
        args,
        client,
        agents_listener,
        admin_listener,
    }
    .run(shutdown)
    .await
}

/// An operator that has its ports and a client.
pub struct Operator {
    /// How it should behave.
    pub args: Args,
    /// API server.
    pub client: Client,
    /// For node agents.
    pub agents_listener: TcpListener,
    /// For probes and scrapes.
    pub admin_listener: TcpListener,
}

impl Operator {
    /// Runs until `shutdown` is cancelled and everything under way has ended, or a part fails.
    ///
    /// # Errors
    /// Inconsistent arguments, unusable certificates, a failed server.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            args,
            client,
            agents_listener,
            admin_listener,
        } = self;
        args.check().map_err(anyhow::Error::msg)?;
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let readiness = Readiness::default();
        let admin = admin::serve(admin_listener, readiness.clone(), registry, shutdown.clone());
        let admin = tokio::spawn(admin);

        let Some(material) = certificates(&client, &args.namespace, &shutdown).await else {
            return Ok(());
        };
        let mut tasks = JoinSet::new();
        let (inputs_tx, inputs_rx) = mpsc::channel(INPUTS);
        let authority = material.authority.clone();
        tasks.spawn(tls::publish(
            client.clone(),
            args.namespace.clone(),
            authority,
            shutdown.clone(),
        ));
        observe::start(&client, &inputs_tx, &metrics, &shutdown, &mut tasks);
        let lease = lease::Config {
            identity: args.replica(),
            duration: args.lease_duration,
            renew: args.lease_renew,
        };
        let (leadership, tending) = lease::tend(
            client.clone(),
            &args.namespace,
            lease,
            metrics.clone(),
            shutdown.clone(),
        );
        tasks.spawn(tending);
        let (work_tx, work_rx) = mpsc::channel(apply::QUEUE);
        let writer = apply::Writer::new(client.clone(), leadership.clone(), metrics.clone());
        tasks.spawn(apply::run(writer, work_rx, inputs_tx.clone()));
        let driver = Driver::new(
            driver::Config::from(&args),
            leadership,
            metrics.clone(),
            readiness.clone(),
        );
        tasks.spawn(driver.run(inputs_rx, work_tx, shutdown.clone()));

        let authenticator = Authenticator::new(client, &args.namespace);
        let collector = Collector::new(authenticator, Agents::new(inputs_tx), metrics, shutdown.clone());
        tracing::info!(
            identity = args.replica(),
            namespace = args.namespace,
            "the operator runs"
        );
        let serving = server::serve(agents_listener, &material, collector, shutdown.clone());
        let served = unless_stuck(serving, &shutdown).await;
        readiness.set(false);
        shutdown.cancel();
        drain(tasks, admin).await;
        served.context("the collector failed")
    }
}

/// Agents are given a moment to hear that the operator stops; one that does not listen is left.
async fn unless_stuck<E>(
    serving: impl Future<Output = Result<(), E>>,
    shutdown: &CancellationToken,
) -> Result<(), E> {
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        served = serving => served,
        () = patience => Ok(()),
    }
}

/// An API server that does not answer yet is waited for: the operator may start before it.
async fn certificates(
    client: &Client,
    namespace: &str,
    shutdown: &CancellationToken,
) -> Option<tls::Material> {
    loop {
        match tls::load_or_create(client.clone(), namespace).await {
            Ok(material) => return Some(material),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(cause, "no certificates yet, trying again: {error}");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn drain(mut tasks: JoinSet<()>, admin: tokio::task::JoinHandle<std::io::Result<()>>) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the operator failed");
            }
        }
    };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    admin.abort();
}

async fn on_signal(shutdown: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received");
        return;
    };
    let mut next = async || {
        tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
    };
    next().await;
    tracing::info!("stopping; a second signal aborts");
    shutdown.cancel();
    next().await;
    tracing::warn!("aborted by a second signal");
    std::process::exit(130);
}
