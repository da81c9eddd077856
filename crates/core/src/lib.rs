//! Every decision of Larder as pure functions over plain data.
//!
//! It must not hold async code, a clock (`now` is passed in), network, a Kubernetes client or logging.

pub mod agent;
pub mod backoff;
pub mod choose;
mod entry;
pub mod exclude;
pub mod facts;
pub mod format;
mod hash;
pub mod image_ref;
pub mod images;
pub mod manifest;
pub mod merge;
pub mod message;
#[cfg(test)]
mod mutate;
pub mod node;
pub mod plan;
pub mod pull;
pub mod purge;
pub mod removal;
pub mod report;
pub mod requests;
pub mod revise;
pub mod revision;
pub mod schedule;
pub mod select;
pub mod sources;
pub mod trim;
