//! What the agent of one node does: which images it pulls, tags, protects and removes, and what its status says.
//!
//! The agent looks at the runtime, calls [`decide`], carries the actions out, and tells [`Memory`] what came of them.

mod types;

pub use types::{
    Action, AgentInput, Decision, Disk, Failed, ImageObserved, Memory, Observed, PullFailure, PullOrder,
    PullResult, RemoveOrder, Removed, RunningPull, Vanished,
};
