//! The operator of Larder: everything that is I/O around the pure decisions of `larder-core`.
//!
//! Watches fill a [`world`], each change marks keys in [`queue`]s, and each key's reconcile looks at what is, asks the
//! core what to do, does it and reports. It must not hold a decision, nor touch a node's runtime.

mod api_error;
mod api_server;
pub mod attempts;
pub mod client;
pub mod config;
pub mod context;
pub mod events;
pub mod health;
pub mod imagecache;
pub mod logging;
pub mod metrics;
pub mod network;
pub mod node;
mod pace;
pub mod pullers;
pub mod queue;
pub mod resolve;
pub mod resolver;
pub mod revision;
mod route;
pub mod run;
pub mod sources;
#[cfg(test)]
mod testing;
pub mod watch;
pub mod world;
