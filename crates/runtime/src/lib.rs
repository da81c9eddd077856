//! A node's container runtime over its Unix socket: the Container Runtime Interface always, containerd's own API where
//! it is served.
//!
//! Holds the wire protocol, time-outs and the search for the socket. It must not hold decisions: what to pull or remove
//! is decided in `larder-core`.

mod client;
mod containerd;
mod content;
mod disk;
mod error;
mod events;
mod find;
mod observed;
mod presence;
mod progress;
pub mod proto;
mod records;
mod runtime;
mod types;

pub use client::{MAX_MESSAGE_BYTES, RuntimeClient, Timeouts};
pub use disk::disk;
pub use error::RuntimeError;
pub use events::EventStream;
pub use find::{KNOWN_SOCKETS, NoRuntime, Tried, find_runtime};
pub use observed::observed;
pub use presence::{Contents, ImageContents, Manifests, TargetContents};
pub use progress::{Progress, PullProgress};
pub use proto::cri::AuthConfig;
pub use runtime::{Content, Events, Records, Runtime};
pub use types::{
    Blob, Container, ContainerState, Image, ImageFs, Ingest, Record, RuntimeEvent, Target, Version,
};
