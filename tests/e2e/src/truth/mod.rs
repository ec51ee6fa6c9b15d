//! A ground truth for every edge: real processes log every connection they make and accept, and the objects are compared
//! with those logs.
//!
//! Inputs: a running cluster, the traffic tool, the [`catalog`] of scenarios. Outputs: a row per scenario with precision
//! and recall, and a folder with the applications' raw logs and the objects. The applications are the judge: nothing here
//! knows how Leyline resolves anything. Deliberately absent: retries, tolerances other than the stated ones.

pub mod actor;
pub mod catalog;
pub mod join;
pub mod judge;
pub mod log;
pub mod machine;
#[cfg(test)]
mod mutations;
pub mod play;
pub mod proxy;
pub mod run;
pub mod scenario;
pub mod table;
