//! The agent's loop against the fake runtime and a small API server, both over real sockets.

#![allow(clippy::unwrap_used)]

mod api;
mod node;

mod converge;
mod credentials;
mod failures;
mod lost;
mod program;
mod protect;
