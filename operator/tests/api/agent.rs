//! A node agent played by the test: real TLS, real gRPC, reports made by hand.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use leyline_wire as wire;
use leyline_wire::agent_message::Body;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status, Streaming};

use crate::cluster::{Cluster, TestPod};
use crate::operator::Operator;
use crate::wait::SOON;

/// An open stream.
pub struct Agent {
    messages_tx: mpsc::Sender<Bytes>,
    answers: Streaming<wire::OperatorMessage>,
    sequence: u64,
}

/// Sends bytes as they are, so that they can be wrong.
#[derive(Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = wire::OperatorMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = wire::OperatorMessage;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        wire::OperatorMessage::decode(bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// Opens a stream; the status if it is refused at once.
pub async fn open(cluster: &Cluster, operator: &Operator, token: Option<&str>) -> Result<Agent, Status> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(cluster.authority().await))
        .domain_name(format!("leyline-operator.{}.svc", cluster.namespace));
    let channel = Channel::from_shared(format!("https://{}", operator.collector))
        .expect("a URI")
        .tls_config(tls)
        .expect("TLS")
        .connect_timeout(SOON)
        .connect()
        .await
        .expect("connected");
    let (messages_tx, messages_rx) = mpsc::channel(16);
    let mut request = Request::new(ReceiverStream::new(messages_rx));
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().expect("ascii"));
    }
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/leyline.v1.Collector/Observe");
    let answers = grpc.streaming(request, path, RawCodec).await?.into_inner();
    Ok(Agent {
        messages_tx,
        answers,
        sequence: 0,
    })
}

pub fn hello(node: &str, epoch: u64) -> Body {
    Body::Hello(wire::Hello {
        node: node.into(),
        epoch,
        version: "test".into(),
        ..wire::Hello::default()
    })
}

pub fn encoded(body: Body) -> Bytes {
    wire::AgentMessage { body: Some(body) }.encode_to_vec().into()
}

/// A half-edge of `pod`: it called `remote`.
pub fn client_half(id: u32, pod: &TestPod, remote: [u8; 4], port: u32) -> wire::HalfEdgeDefinition {
    half(id, pod, wire::Role::Client, remote, port)
}

/// A half-edge of `pod`: `remote` called it.
pub fn server_half(id: u32, pod: &TestPod, remote: [u8; 4], port: u32) -> wire::HalfEdgeDefinition {
    half(id, pod, wire::Role::Server, remote, port)
}

fn half(id: u32, pod: &TestPod, role: wire::Role, remote: [u8; 4], port: u32) -> wire::HalfEdgeDefinition {
    wire::HalfEdgeDefinition {
        id,
        role: role.into(),
        remote: remote.to_vec(),
        port,
        transport: wire::Transport::Tcp.into(),
        split: false,
        subject: Some(wire::half_edge_definition::Subject::Pod(pod.uid.clone())),
    }
}

pub fn opened(id: u32, opened: u64, bytes_sent: u64, bytes_received: u64) -> wire::HalfEdgeCounters {
    wire::HalfEdgeCounters {
        id,
        opened,
        bytes_sent,
        bytes_received,
        ..wire::HalfEdgeCounters::default()
    }
}

impl Agent {
    /// Opens a stream that is accepted, and says hello.
    pub async fn connect(
        cluster: &Cluster,
        operator: &Operator,
        token: &str,
        node: &str,
        epoch: u64,
    ) -> Self {
        let agent = open(cluster, operator, Some(token)).await.expect("accepted");
        agent.send(encoded(hello(node, epoch))).await;
        agent
    }

    pub async fn send(&self, message: Bytes) {
        self.messages_tx.send(message).await.expect("the stream is open");
    }

    /// Sends the next report and waits until the operator has taken it in.
    pub async fn report(&mut self, report: wire::Report) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(encoded(Body::Report(wire::Report { sequence, ..report })))
            .await;
        loop {
            let answer = tokio::time::timeout(SOON, self.answers.message())
                .await
                .expect("an answer in time");
            let answer = answer.expect("the stream goes on").expect("the stream goes on");
            let Some(wire::operator_message::Body::Acknowledged(acknowledged)) = answer.body else {
                continue;
            };
            if acknowledged.sequence >= sequence {
                return;
            }
        }
    }

    /// Waits for the end of the stream.
    pub async fn end(&mut self, within: Duration) -> Status {
        let end = async {
            loop {
                match self.answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok("ended"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(within, end)
            .await
            .expect("the stream ends in time")
    }
}
