//! What Larder runs on a node: the agent, which keeps the node as its `NodeImageCache` says, and one-shot commands for
//! hosts without the operator.
//!
//! Holds what has to be done where: watching, calling the runtime, reporting. What to do is decided in `larder-core`. It
//! must not list or watch anything beyond the node's own object.

mod attempt;
mod credentials;
mod duration;
mod failure;
pub mod pull;
pub mod purge;
pub mod run;
pub mod status;

pub use attempt::Attempt;
pub use credentials::ProviderFiles;
