//! One replica: connect, say hello, send the full report, then what changes; again after a pause when it breaks.
//!
//! A report is built only when the connection has room for it, so a slow operator costs no memory: what changes
//! meanwhile is folded in the state and sent once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leyline_wire as wire;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};
use tracing::{info, warn};

use super::credentials::{self, CredentialError};
use super::{Settings, Shared};
use crate::delta::Cursor;
use crate::metrics::{Metrics, StreamFailure};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A report is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// An operator that has not acknowledged a report for this long is not taking in anything.
const STALLED: Duration = Duration::from_secs(60);
/// A stream that lived this long ended for a new reason: the pause starts small again.
const SETTLED: Duration = Duration::from_secs(30);
/// Messages between this task and the connection.
const QUEUE: usize = 1;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error("cannot connect: {}", chain(.0))]
    Connect(#[source] tonic::transport::Error),
    #[error("no answer to the first message within {CONNECT_TIMEOUT:?}")]
    NoAnswer,
    #[error("ended by the operator: {:?}: {}", .0.code(), .0.message())]
    Status(#[source] Box<Status>),
    #[error("closed by the operator")]
    Closed,
    #[error("the operator has not acknowledged anything for {STALLED:?}")]
    Stalled,
}

impl StreamError {
    fn cause(&self) -> StreamFailure {
        match self {
            Self::Credentials(_) => StreamFailure::Credentials,
            Self::Connect(_) | Self::NoAnswer => StreamFailure::Connect,
            Self::Status(status) => match status.code() {
                tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => StreamFailure::Refused,
                tonic::Code::InvalidArgument | tonic::Code::ResourceExhausted => StreamFailure::Rejected,
                _ => StreamFailure::Broken,
            },
            Self::Closed => StreamFailure::Broken,
            Self::Stalled => StreamFailure::Stalled,
        }
    }
}

/// The transport's own message is "transport error"; what happened is in its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Holds a stream to one replica until `stop`.
pub(super) async fn keep_streaming(
    replica: SocketAddr,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let (shortest, longest) = settings.backoff;
    let mut pause = shortest;
    let mut last_failure = String::new();
    while !stop.is_cancelled() {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = stream(replica, &settings, &shared, &metrics) => ended,
            () = stop.cancelled() => Ok(()),
        };
        shared.leave(replica);
        if began.elapsed() >= SETTLED || ended.is_ok() {
            pause = shortest;
            last_failure.clear();
        }
        if let Err(error) = ended {
            metrics.stream_failed(error.cause());
            let failure = error.to_string();
            if failure != last_failure {
                warn!(%replica, error = failure, "stream ended; trying again");
                last_failure = failure;
            }
        }
        // Half to one and a half of the pause, so that a thousand agents do not come back as one.
        let jittered = pause.mul_f64(0.5 + fastrand::f64());
        tokio::select! {
            () = sleep(jittered) => {}
            () = stop.cancelled() => {}
        }
        pause = (pause * 2).min(longest);
    }
}

/// One connection from beginning to end; `Ok` when it ended itself because its time was over.
async fn stream(
    replica: SocketAddr,
    settings: &Settings,
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
) -> Result<(), StreamError> {
    let tls = credentials::tls(settings).await?;
    let bearer = credentials::bearer(settings).await?;
    let endpoint = Endpoint::from_shared(format!("https://{replica}"))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(StreamError::Connect)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let channel = timeout(CONNECT_TIMEOUT * 2, endpoint.connect())
        .await
        .map_err(|_| StreamError::NoAnswer)?
        .map_err(StreamError::Connect)?;

    let (messages_tx, messages_rx) = mpsc::channel(QUEUE);
    let mut cursor = Cursor::default();
    let hello = cursor.hello(&shared.state(), &settings.agent);
    // The queue is empty: this cannot fail.
    let _ = messages_tx.try_send(wire::AgentMessage {
        body: Some(wire::agent_message::Body::Hello(hello)),
    });
    let mut request = Request::new(ReceiverStream::new(messages_rx));
    request.metadata_mut().insert("authorization", bearer);
    let mut client = wire::collector_client::CollectorClient::new(channel);
    let answers = timeout(CONNECT_TIMEOUT, client.observe(request))
        .await
        .map_err(|_| StreamError::NoAnswer)?
        .map_err(|status| StreamError::Status(Box::new(status)))?
        .into_inner();
    info!(%replica, "stream open");
    let _connected = metrics.stream_connected();
    shared.acknowledge(replica, 0);
    let lifetime = settings.lifetime.mul_f64(2.0 / 3.0 + fastrand::f64() / 3.0);
    Sender {
        replica,
        shared,
        metrics,
        cursor,
        messages_tx,
        unacknowledged: VecDeque::new(),
    }
    .run(answers, Instant::now() + lifetime)
    .await
}

struct Sender<'a> {
    replica: SocketAddr,
    shared: &'a Arc<Shared>,
    metrics: &'a Arc<Metrics>,
    cursor: Cursor,
    messages_tx: mpsc::Sender<wire::AgentMessage>,
    unacknowledged: VecDeque<Unacknowledged>,
}

struct Unacknowledged {
    sequence: u64,
    connections: u64,
    sent: Instant,
}

impl Sender<'_> {
    async fn run(
        mut self,
        mut answers: Streaming<wire::OperatorMessage>,
        until: Instant,
    ) -> Result<(), StreamError> {
        let mut readings_rx = self.shared.readings_tx.subscribe();
        let mut heartbeat = Instant::now() + HEARTBEAT;
        loop {
            let is_due = Instant::now() >= heartbeat || self.cursor.has_news(&self.shared.state());
            let stalled = self
                .unacknowledged
                .front()
                .map_or(until, |oldest| oldest.sent + STALLED);
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(message)) => self.take(&message),
                    Ok(None) => return Err(StreamError::Closed),
                    Err(status) => return Err(StreamError::Status(Box::new(status))),
                },
                () = sleep_until(stalled.min(until)) => {
                    return if until <= stalled { Ok(()) } else { Err(StreamError::Stalled) };
                }
                permit = self.messages_tx.clone().reserve_owned(), if is_due => {
                    // A closed queue means the connection is over; its answer says why.
                    let Ok(permit) = permit else { return Err(why(&mut answers).await) };
                    permit.send(self.next_report());
                    heartbeat = Instant::now() + HEARTBEAT;
                }
                () = sleep_until(heartbeat), if !is_due => {}
                _ = readings_rx.changed(), if !is_due => {}
            }
        }
    }

    fn next_report(&mut self) -> wire::AgentMessage {
        let report = self.cursor.next_report(&self.shared.state());
        self.unacknowledged.push_back(Unacknowledged {
            sequence: report.sequence,
            connections: self.cursor.connections(),
            sent: Instant::now(),
        });
        let message = wire::AgentMessage {
            body: Some(wire::agent_message::Body::Report(report)),
        };
        self.metrics.report_sent(message.encoded_len());
        message
    }

    fn take(&mut self, message: &wire::OperatorMessage) {
        let Some(wire::operator_message::Body::Acknowledged(acknowledged)) = &message.body else {
            return;
        };
        while let Some(oldest) = self.unacknowledged.front() {
            if oldest.sequence > acknowledged.sequence {
                break;
            }
            self.shared.acknowledge(self.replica, oldest.connections);
            self.unacknowledged.pop_front();
        }
    }
}

/// The status a broken connection ended with.
async fn why(answers: &mut Streaming<wire::OperatorMessage>) -> StreamError {
    match timeout(Duration::from_secs(1), answers.message()).await {
        Ok(Err(status)) => StreamError::Status(Box::new(status)),
        _ => StreamError::Closed,
    }
}
