//! Reports of node agents, from the network into the graph.
//!
//! [`server`] listens with TLS, [`service`] runs one stream per agent, [`auth`] says who speaks, [`codec`] and [`scan`]
//! decode, [`validate`] checks, [`streams`] keeps one stream per node.

pub mod auth;
pub mod codec;
pub mod limits;
pub mod scan;
pub mod server;
pub mod service;
pub mod streams;
pub mod validate;
