//! The operator against a real API server.
//!
//! Every test starts the real binary in a namespace of its own and plays the node agents: real tokens, TLS, gRPC, pods
//! that exist as objects only. `KUBECONFIG` names the API server; `kubectl` must be on the path.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]
#![expect(unreachable_pub, reason = "modules of one program")]

mod agent;
mod cluster;
mod installed;
mod life;
mod objects;
mod operator;
mod refused;
mod wait;
mod zones;
