//! The collector: one stream per agent, in as hostile input, out as inputs of the graph.
//!
//! A stream is: token → Hello → reports, each acknowledged once the graph has taken it in. Whatever is wrong ends
//! this stream with a gRPC status and a counted reason, and concerns nobody else. One report of a stream is under way
//! at a time, so a slow graph slows the agents down instead of filling memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use leyline_wire::agent_message::Body;
use leyline_wire::{Acknowledged, AgentMessage, OperatorMessage, collector_server, operator_message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::{Body as HttpBody, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::Service;

use super::auth::Authenticator;
use super::codec::BoundedCodec;
use super::limits;
use super::streams::{Streams, Ticket};
use super::validate::{self, Hello, Probe, Violation};
use crate::clock;
use crate::graph::{Agents, TakeError};
use crate::metrics::{Metrics, Rejection};

/// Hello must come within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Agents send at least an empty report every 10 s; six missed ones are a dead agent.
const SILENCE: Duration = Duration::from_secs(60);
/// Streams at once: a thousand agents, each with an old and a new one, and room for strangers being turned away.
const STREAMS: usize = 4_096;
/// Acknowledgements are small and optional; a full channel drops one.
const ACKNOWLEDGEMENTS: usize = 8;
const PATH: &str = "/leyline.v1.Collector/Observe";

type Answers = ReceiverStream<Result<OperatorMessage, Status>>;

/// What every stream needs. Cloning shares it.
#[derive(Clone)]
pub struct Collector {
    authenticator: Authenticator,
    agents: Agents,
    streams: Streams,
    metrics: Metrics,
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Why a stream ended, with what the agent is told.
struct End {
    status: Status,
    /// Absent when nobody did wrong: the agent went away, a newer stream came, the operator stops.
    rejection: Option<Rejection>,
}

impl Collector {
    /// A collector that feeds `agents`; its streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        authenticator: Authenticator,
        agents: Agents,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        let streams = Streams::new(metrics.clone());
        Self {
            authenticator,
            agents,
            streams,
            metrics,
            slots: Arc::new(Semaphore::new(STREAMS)),
            shutdown,
        }
    }

    async fn accept(self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Answers>, Status> {
        let peer = request.remote_addr();
        let (metadata, _, messages) = request.into_parts();
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.metrics.rejected(Rejection::TooManyStreams);
            return Err(Status::resource_exhausted("too many streams"));
        };
        let node = self.authenticator.node(&metadata).await.map_err(|error| {
            self.metrics.rejected(error.rejection());
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(?peer, cause, "refused a stream: {error}");
            error.status()
        })?;
        let (answers_tx, answers_rx) = mpsc::channel(ACKNOWLEDGEMENTS);
        tokio::spawn(self.run(node, messages, answers_tx, slot));
        Ok(Response::new(ReceiverStream::new(answers_rx)))
    }

    async fn run(
        self,
        node: String,
        messages: Streaming<AgentMessage>,
        answers_tx: mpsc::Sender<Result<OperatorMessage, Status>>,
        _slot: OwnedSemaphorePermit,
    ) {
        let end = self.converse(&node, messages, &answers_tx).await;
        if let Some(rejection) = end.rejection {
            self.metrics.rejected(rejection);
            tracing::warn!(node, ?rejection, "ended a stream: {}", end.status.message());
        } else {
            tracing::info!(node, "a stream ended: {}", end.status.message());
        }
        if end.status.code() == Code::Ok {
            return;
        }
        // The agent may have stopped reading; its status is then lost with the connection.
        let _ = tokio::time::timeout(HELLO_TIMEOUT, answers_tx.send(Err(end.status))).await;
    }

    async fn converse(
        &self,
        node: &str,
        mut messages: Streaming<AgentMessage>,
        answers_tx: &mpsc::Sender<Result<OperatorMessage, Status>>,
    ) -> End {
        let hello = match self.hello(node, &mut messages).await {
            Ok(hello) => hello,
            Err(end) => return end,
        };
        log_probes(node, &hello.probes);
        let ticket = self.streams.open(node, hello.epoch);
        self.streams.probes(&ticket, &hello.probes);
        tracing::info!(
            node,
            epoch = hello.epoch,
            version = hello.version,
            "a node agent speaks"
        );
        let epoch = hello.epoch;
        let end = match self.agents.hello(node, epoch, hello.node_addresses).await {
            Ok(()) => {
                self.reports(node, epoch, &ticket, &mut messages, answers_tx)
                    .await
            }
            Err(error) => taken(&error),
        };
        if self.streams.close(&ticket) {
            self.agents.gone(node).await;
        }
        end
    }

    async fn hello(&self, node: &str, messages: &mut Streaming<AgentMessage>) -> Result<Hello, End> {
        let first = tokio::select! {
            () = self.shutdown.cancelled() => return Err(stopping()),
            first = tokio::time::timeout(HELLO_TIMEOUT, messages.message()) => first,
        };
        let first = first.map_err(|_| End {
            status: Status::deadline_exceeded("Hello must come within 10 s"),
            rejection: Some(Rejection::NoHello),
        })?;
        let hello = match first.map_err(broken)? {
            None => return Err(left()),
            Some(AgentMessage {
                body: Some(Body::Hello(hello)),
            }) => validate::hello(hello).map_err(violated)?,
            Some(_) => return Err(violated(Violation::HelloMissing)),
        };
        if hello.node != node {
            let message = format!("the token was issued on node {node}, the stream speaks for another one");
            return Err(End {
                status: Status::permission_denied(message),
                rejection: Some(Rejection::WrongNode),
            });
        }
        Ok(hello)
    }

    async fn reports(
        &self,
        node: &str,
        epoch: u64,
        ticket: &Ticket,
        messages: &mut Streaming<AgentMessage>,
        answers_tx: &mpsc::Sender<Result<OperatorMessage, Status>>,
    ) -> End {
        let mut due = 1;
        loop {
            let message = tokio::select! {
                // What a replaced stream still has in its buffer must not be taken for the new one's.
                biased;
                () = self.shutdown.cancelled() => return stopping(),
                () = ticket.replaced.cancelled() => return replaced(),
                message = tokio::time::timeout(SILENCE, messages.message()) => message,
            };
            let report = match message {
                Err(_) => {
                    let status = Status::deadline_exceeded("no report for 60 s");
                    return End {
                        status,
                        rejection: Some(Rejection::Silent),
                    };
                }
                Ok(Err(status)) => return broken(status),
                Ok(Ok(None)) => return left(),
                Ok(Ok(Some(AgentMessage {
                    body: Some(Body::Report(report)),
                }))) => report,
                Ok(Ok(Some(AgentMessage {
                    body: Some(Body::Hello(_)),
                }))) => return violated(Violation::HelloTwice),
                Ok(Ok(Some(AgentMessage { body: None }))) => return violated(Violation::Empty),
            };
            let mut checked = match validate::report(report, due, clock::now()) {
                Ok(checked) => checked,
                Err(violation) => return violated(violation),
            };
            due += 1;
            let loss = self.streams.lost(ticket, checked.loss);
            checked.report.lost = validate::lost_events(&loss);
            checked.report.sampled = loss.connections_sampled;
            if !checked.probes.is_empty() {
                log_probes(node, &checked.probes);
                self.streams.probes(ticket, &checked.probes);
            }
            self.metrics.reports.inc();
            self.metrics
                .report_half_edges
                .inc_by(checked.report.measurements.len() as u64);
            self.metrics
                .report_connections
                .inc_by(checked.report.connections.len() as u64);
            if let Err(error) = self.agents.report(node, epoch, checked.report).await {
                return taken(&error);
            }
            let acknowledged = Acknowledged {
                sequence: checked.sequence,
            };
            let body = Some(operator_message::Body::Acknowledged(acknowledged));
            // Full: the agent does not read. The next acknowledgement says the same and more.
            let _ = answers_tx.try_send(Ok(OperatorMessage { body }));
        }
    }
}

fn log_probes(node: &str, probes: &[Probe]) {
    use leyline_wire::probe::State;
    for Probe { name, state, reason } in probes {
        if *state != State::Attached {
            tracing::warn!(
                node,
                probe = name,
                ?state,
                reason = reason.escape_default().to_string(),
                "a probe is not attached"
            );
        }
    }
}

fn violated(violation: Violation) -> End {
    let rejection = match violation {
        Violation::Sequence { .. } => Rejection::OutOfOrder,
        Violation::TooMany { .. } => Rejection::TooLarge,
        Violation::HelloMissing => Rejection::NoHello,
        _ => Rejection::Malformed,
    };
    End {
        status: violation.status(),
        rejection: Some(rejection),
    }
}

/// The stream of messages failed: by our decoder, by tonic's size limit, or because the connection broke.
fn broken(status: Status) -> End {
    match status.code() {
        Code::InvalidArgument => End {
            status,
            rejection: Some(Rejection::Malformed),
        },
        Code::ResourceExhausted => End {
            status,
            rejection: Some(Rejection::TooLarge),
        },
        Code::OutOfRange => {
            let message = format!("a message has more than {} bytes", limits::MESSAGE_BYTES);
            End {
                status: Status::resource_exhausted(message),
                rejection: Some(Rejection::TooLarge),
            }
        }
        _ => End {
            status,
            rejection: None,
        },
    }
}

fn taken(error: &TakeError) -> End {
    match error {
        TakeError::Report(_) => End {
            status: Status::invalid_argument(error.to_string()),
            rejection: Some(Rejection::Inconsistent),
        },
        TakeError::Stopped => stopping(),
    }
}

fn left() -> End {
    End {
        status: Status::ok("the agent ended it"),
        rejection: None,
    }
}

fn replaced() -> End {
    End {
        status: Status::aborted("a newer stream of this node took over"),
        rejection: None,
    }
}

fn stopping() -> End {
    End {
        status: Status::unavailable("the operator is stopping"),
        rejection: None,
    }
}

impl NamedService for Collector {
    const NAME: &'static str = collector_server::SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for Collector
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("there is only Observe").into_http());
            }
            let mut grpc =
                Grpc::new(BoundedCodec).apply_max_message_size_config(Some(limits::MESSAGE_BYTES), None);
            Ok(grpc.streaming(Method(collector), request).await)
        })
    }
}

struct Method(Collector);

impl StreamingService<AgentMessage> for Method {
    type Response = OperatorMessage;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<AgentMessage>>) -> Self::Future {
        Box::pin(self.0.clone().accept(request))
    }
}
