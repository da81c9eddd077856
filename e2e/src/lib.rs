//! A real Kubernetes cluster on one machine, and what end-to-end tests and benchmarks need around it.
//!
//! This crate holds no product code: the cluster it starts knows nothing of Larder.

pub mod binaries;
pub mod cluster;
pub mod images;
pub mod preflight;
pub mod progress;
