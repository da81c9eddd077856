//! Simulated nodes and clusters: whatever happens to them, what is decided for them keeps its promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod joint;
mod node;
mod parts;
mod plan;
