//! What the end-to-end tests share, and the comparison against a ground truth that `cargo xtask demo` makes as well.
//!
//! The tests are in `tests/`, each `#[ignore = "needs the two-node cluster"]`. Inputs: a running cluster of
//! `cargo xtask cluster up` with Leyline's images loaded, its kubeconfig in `KUBECONFIG`, kubectl on PATH or in
//! `LEYLINE_KUBECTL`, the xtask program in `LEYLINE_XTASK`. Each test makes a namespace of its own and removes it, whatever
//! happens. Deliberately absent: a Kubernetes client library. What the tests see is what users see, through kubectl.

pub mod edges;
pub mod faults;
pub mod kubectl;
pub mod leyline;
pub mod manifest;
pub mod score;
pub mod stage;
pub mod traffic;
pub mod truth;
pub mod wait;
