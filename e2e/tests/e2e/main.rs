//! Larder on a real cluster: real API server, kubelets, containerd and registries.
//!
//! The cluster (`larder-test`, or what `LARDER_E2E_CLUSTER` names) and Larder in it are brought up by `make e2e`.
//! Tests share it; one that disturbs nodes or the operator takes it for itself, see [`support::Env::exclusive`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::doc_markdown,
    missing_docs
)]
#![allow(
    clippy::too_many_lines,
    reason = "a scenario is told from its beginning to its end"
)]

mod access;
mod agent;
mod basic;
mod bounds;
mod conformance;
mod crash;
mod edit;
mod examples;
mod failures;
mod faults;
mod inert;
mod interrupted;
mod many;
mod nodes;
mod own_node;
mod private;
mod purge;
mod quiet;
mod quota;
mod refresh;
mod rights;
mod rollout;
mod secrets;
mod sources;
mod support;
mod validation;
