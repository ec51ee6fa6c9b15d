//! An operator as the agent meets it: real TLS, real gRPC, and a record of everything that arrived.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leyline_wire as wire;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const SERVER_NAME: &str = "leyline-operator.leyline-system.svc";
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

/// What arrived.
#[derive(Debug)]
pub(crate) enum Seen {
    Opened { bearer: String },
    Hello(wire::Hello),
    Report(wire::Report),
    Closed,
}

pub(crate) struct Operator {
    pub(crate) address: SocketAddr,
    seen_rx: mpsc::UnboundedReceiver<Seen>,
    stop: CancellationToken,
    pub(crate) refuses: Arc<AtomicBool>,
    pub(crate) reads: Arc<AtomicBool>,
}

impl Operator {
    pub(crate) async fn start(authority: &Authority) -> Self {
        Self::start_as(authority, SERVER_NAME, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_as(authority: &Authority, name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen_tx, seen_rx) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let (refuses, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let service = Service {
            seen_tx,
            stop: stop.clone(),
            refuses: refuses.clone(),
            reads: reads.clone(),
        };
        let tls = ServerTlsConfig::new().identity(authority.identity(name));
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(wire::collector_server::CollectorServer::new(service))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Self {
            address,
            seen_rx,
            stop,
            refuses,
            reads,
        }
    }

    /// The next thing that arrives.
    pub(crate) async fn next(&mut self) -> Seen {
        tokio::time::timeout(DEADLINE, self.seen_rx.recv())
            .await
            .expect("nothing arrived in time")
            .expect("the operator is gone")
    }

    pub(crate) async fn opened(&mut self) -> String {
        loop {
            if let Seen::Opened { bearer } = self.next().await {
                return bearer;
            }
        }
    }

    pub(crate) async fn hello(&mut self) -> wire::Hello {
        match self.next().await {
            Seen::Hello(hello) => hello,
            other => panic!("hello expected, got {other:?}"),
        }
    }

    pub(crate) async fn report(&mut self) -> wire::Report {
        match self.next().await {
            Seen::Report(report) => report,
            other => panic!("report expected, got {other:?}"),
        }
    }

    /// All chunks of a full report as one.
    pub(crate) async fn full_report(&mut self) -> wire::Report {
        let mut whole = self.report().await;
        assert_eq!(whole.sequence, 1);
        while !whole.complete {
            let chunk = self.report().await;
            assert_eq!(chunk.sequence, whole.sequence + 1);
            whole.sequence = chunk.sequence;
            whole.complete = chunk.complete;
            whole.definitions.extend(chunk.definitions);
            whole.counters.extend(chunk.counters);
            whole.connections.extend(chunk.connections);
        }
        whole
    }

    /// Ends every stream and the server, as a crash does.
    pub(crate) fn stop(self) -> SocketAddr {
        self.stop.cancel();
        self.address
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Service {
    seen_tx: mpsc::UnboundedSender<Seen>,
    stop: CancellationToken,
    refuses: Arc<AtomicBool>,
    reads: Arc<AtomicBool>,
}

type Answers = ReceiverStream<Result<wire::OperatorMessage, Status>>;

#[tonic::async_trait]
impl wire::collector_server::Collector for Service {
    type ObserveStream = Answers;

    async fn observe(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let bearer = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        let _ = self.seen_tx.send(Seen::Opened {
            bearer: bearer.unwrap_or_default(),
        });
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Status::unauthenticated("token has expired"));
        }
        let (answers_tx, answers_rx) = mpsc::channel(8);
        let (seen_tx, stop) = (self.seen_tx.clone(), self.stop.clone());
        let reads = self.reads.load(Ordering::SeqCst);
        tokio::spawn(async move {
            let mut messages = request.into_inner();
            if !reads {
                // Holds the stream open and takes nothing from it.
                stop.cancelled().await;
                return;
            }
            loop {
                let message = tokio::select! {
                    message = messages.message() => message,
                    () = stop.cancelled() => break,
                };
                let Ok(Some(wire::AgentMessage { body: Some(body) })) = message else {
                    break;
                };
                let seen = match body {
                    wire::agent_message::Body::Hello(hello) => Seen::Hello(hello),
                    wire::agent_message::Body::Report(report) => {
                        let acknowledged = wire::Acknowledged {
                            sequence: report.sequence,
                        };
                        let body = Some(wire::operator_message::Body::Acknowledged(acknowledged));
                        let _ = answers_tx.send(Ok(wire::OperatorMessage { body })).await;
                        Seen::Report(report)
                    }
                };
                let _ = seen_tx.send(seen);
            }
            let _ = seen_tx.send(Seen::Closed);
        });
        Ok(Response::new(ReceiverStream::new(answers_rx)))
    }
}

/// The two files an agent reads, in a folder of their own.
pub(crate) struct Files {
    _folder: tempfile::TempDir,
    pub(crate) ca: PathBuf,
    pub(crate) token: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, token) = (folder.path().join("ca.crt"), folder.path().join("token"));
        Self {
            _folder: folder,
            ca,
            token,
        }
    }

    /// As the kubelet does it: whole or not at all.
    pub(crate) fn write(path: &Path, text: &str) {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, path).unwrap();
    }
}

/// Waits until `condition` holds; fails with `dump` after the deadline.
pub(crate) async fn until(condition: impl Fn() -> bool, dump: impl Fn() -> String) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {}", dump());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
