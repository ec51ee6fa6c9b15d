//! The operator's end of the report stream without an operator: real protocol, real TLS, every report acknowledged,
//! nothing kept. Benchmarks of the agent alone report to it.
//!
//!     leyline-e2e-sink ADDRESS FOLDER
//!
//! writes `ca.crt` into FOLDER, listens on ADDRESS, and then writes a `token` file, which says that it is ready.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _, stream};
use leyline_wire::agent_message::Body;
use leyline_wire::collector_server::{Collector, CollectorServer};
use leyline_wire::{Acknowledged, AgentMessage, OperatorMessage, operator_message};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const SERVER_NAME: &str = "leyline-operator.leyline-system.svc";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments
        .next()
        .context("usage: leyline-e2e-sink ADDRESS FOLDER")?
        .parse()?;
    let folder = PathBuf::from(
        arguments
            .next()
            .context("usage: leyline-e2e-sink ADDRESS FOLDER")?,
    );
    let (ca, identity) = certificates()?;
    std::fs::write(folder.join("ca.crt"), ca).context("write ca.crt")?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    std::fs::write(folder.join("token"), "any").context("write token")?;
    Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))?
        .add_service(CollectorServer::new(Sink))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
        .await
        .context("serve")
}

fn certificates() -> Result<(String, Identity)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([SERVER_NAME.to_owned()])?.signed_by(&key, &ca)?;
    Ok((ca.pem(), Identity::from_pem(leaf.pem(), key.serialize_pem())))
}

struct Sink;

#[tonic::async_trait]
impl Collector for Sink {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<OperatorMessage, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let answers = stream::unfold(request.into_inner(), |mut messages| async move {
            loop {
                match messages.next().await? {
                    Ok(AgentMessage {
                        body: Some(Body::Report(report)),
                    }) => {
                        let acknowledged = Acknowledged {
                            sequence: report.sequence,
                        };
                        let body = Some(operator_message::Body::Acknowledged(acknowledged));
                        return Some((Ok(OperatorMessage { body }), messages));
                    }
                    Ok(_) => {}
                    Err(status) => return Some((Err(status), messages)),
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
