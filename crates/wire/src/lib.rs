//! Protobuf messages between node agent and operator, generated from `proto/leyline.proto`.
//!
//! The schema file documents every field; this crate adds the generated types, the gRPC client and server, and
//! nothing else. Validation of what arrives is the receiver's.
#![expect(
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the schema file holds the documentation"
)]

tonic::include_proto!("leyline.v1");
