//! The operator of Larder: everything that is I/O around the pure decisions of `larder-core`.
//!
//! Watches fill a [`world`], each change marks keys in [`queue`]s, and each key's reconcile looks at what is, asks the
//! core what to do, does it and reports. It must not hold a decision, nor touch a node's runtime.

pub mod client;
pub mod config;
pub mod health;
pub mod metrics;
pub mod queue;
