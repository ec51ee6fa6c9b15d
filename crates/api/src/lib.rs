//! Leyline's Kubernetes object types: what users see.
//!
//! Inputs and outputs: Rust values that become objects of group `leyline.dev`, and the generated CRD YAML
//! (`cargo run -p leyline-api --bin crds`). Everything a user or another tool relies on is pinned here: field names,
//! bounds, object names, labels, condition types and their reasons.
//!
//! IO: none, except in the `crds` binary. Deliberately absent: a kube client, a clock, and any decision about *when*
//! an object is written (that is `leyline-plan`).

#![expect(
    clippy::duplicated_attributes,
    reason = "printer columns share their types and priorities"
)]

pub mod conditions;
pub mod crd;
pub mod entity_ref;
pub mod figures;
pub mod labels;
pub mod names;
pub mod service_dependency;

pub use conditions::{Condition, ConditionStatus, ConditionType};
pub use entity_ref::EntityRef;
pub use service_dependency::{
    Bytes, Connections, Evidence, Failures, Network, ServiceDependency, ServiceDependencySpec,
    ServiceDependencyStatus, ServiceRef, State, Transport, ZoneBytes,
};

/// API group of all kinds.
pub const GROUP: &str = "leyline.dev";

/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "leyline-operator";

/// Where Leyline is installed, and where objects live whose client is in no namespace.
pub const SYSTEM_NAMESPACE: &str = "leyline-system";
