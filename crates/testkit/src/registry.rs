//! A registry for tests: in memory, over HTTP on a loopback port, with faults on command; and the real one of Debian.
//!
//! [`conformance()`] makes the same assertions about both.

mod auth;
mod authority;
mod conformance;
mod docker_registry;
mod fake;
mod fault;
mod image;
mod protocol;
mod push;
mod serve;
mod store;

pub use auth::Auth;
pub use authority::Authority;
pub use conformance::conformance;
pub use docker_registry::{DockerRegistry, Setup};
pub use fake::{FakeRegistry, LogEntry};
pub use fault::Fault;
pub use image::{MediaTypes, TestImage};
pub use push::RegistryUnderTest;
