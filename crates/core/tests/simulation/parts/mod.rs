//! What the simulated nodes are made of.

pub mod agent;
pub mod objects;
pub mod pods;
pub mod removal;
pub mod runtime;
