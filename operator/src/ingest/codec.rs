//! The gRPC codec of the collector: counts entries before it decodes.
//!
//! tonic decodes before anybody can look; this decoder runs [`super::scan`] first. Everything else is protobuf as
//! usual.

use bytes::Buf;
use leyline_wire::{AgentMessage, OperatorMessage};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::scan;
use super::validate::Violation;

/// Decodes agent messages, encodes operator messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoundedCodec;

impl Codec for BoundedCodec {
    type Encode = OperatorMessage;
    type Decode = AgentMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self
    }
}

impl Encoder for BoundedCodec {
    type Item = OperatorMessage;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(target)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for BoundedCodec {
    type Item = AgentMessage;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<AgentMessage>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        decode(&bytes).map(Some).map_err(|violation| violation.status())
    }
}

/// Decodes one message of an agent.
///
/// # Errors
/// [`Violation::TooMany`] or [`Violation::Encoding`].
pub fn decode(bytes: &[u8]) -> Result<AgentMessage, Violation> {
    scan::message(bytes)?;
    AgentMessage::decode(bytes).map_err(|error| Violation::Encoding(error.to_string()))
}
