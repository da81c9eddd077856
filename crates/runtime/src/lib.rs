//! A node's container runtime over its Unix socket: the Container Runtime Interface always, containerd's own API where
//! it is served.
//!
//! Holds the wire protocol, time-outs and the search for the socket. It must not hold decisions: what to pull or remove
//! is decided in `larder-core`.

mod client;
mod error;
mod find;
pub mod proto;
mod records;
mod runtime;
mod types;

pub use client::{MAX_MESSAGE_BYTES, RuntimeClient, Timeouts};
pub use error::RuntimeError;
pub use find::{KNOWN_SOCKETS, NoRuntime, Tried, find_runtime};
pub use proto::cri::AuthConfig;
pub use runtime::{Records, Runtime};
pub use types::{Container, ContainerState, Image, ImageFs, Record, Version};
