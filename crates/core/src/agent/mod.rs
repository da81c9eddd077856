//! What the agent of one node does: which images it pulls, tags, protects and removes, and what its status says.
//!
//! The agent looks at the runtime, tells [`Memory`] what it saw, calls [`decide`], carries the actions out, and tells
//! [`Memory`] what came of them.

mod conditions;
mod counted;
mod decide;
mod disk;
mod left;
mod memory;
mod presence;
mod protect;
mod pulls;
mod remove;
mod scope;
mod status;
mod types;
mod wanted;
mod write;

pub use decide::decide;
pub use types::{
    Action, AgentInput, Decision, Disk, Failed, ImageObserved, Memory, Observed, PullFailure, PullOrder,
    PullResult, RemoveOrder, Removed, RunningPull, Vanished,
};
