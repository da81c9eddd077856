//! Pulling by pods: what a node's pull Jobs should be, and what their pods tell of the images.
//!
//! The state of a node is its last written status plus the pods that still exist: a Job is deleted only after what it
//! showed has been written, so a crash at any line loses nothing.

mod batch;
pub(crate) mod bits;
mod claim;
mod create;
mod decide;
mod job;
mod known;
mod outcome;
mod pod;
mod read;

pub use batch::MAX_IMAGES_PER_POD;
pub use decide::{ClaimInput, PullDecision, PullInput, PullJob, Rejection, decide};
pub use job::{JobKey, JobView};
pub(crate) use outcome::MAX_HELD;
pub use pod::{ContainerState, PodView, read_pod};

/// A pod none of whose containers has moved for this long is stuck: the images behind the first go to another pod.
pub const STUCK_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);
/// A Job without a pod for this long is given up: the Job controller was refused.
pub const NO_POD_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);
/// The longest delay after which a pod that was refused is tried again.
pub const MAX_REJECTION_DELAY: std::time::Duration = std::time::Duration::from_mins(1);
