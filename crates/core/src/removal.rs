//! Removing images from one node: what is asked for, what may go, what became of it.
//!
//! Only what Larder pulled goes, only while no container uses it, and never a name that nobody asked to remove.

mod decide;
mod held;
mod report;
#[cfg(test)]
mod tests;

pub use decide::{CLAIM_LEEWAY, RemovalAct, RemovalPlan, RemovalStep, decide};
pub use held::{HeldContainer, HeldImage, HeldRecord, NodeContents};
pub use report::{EntryOutcome, MAX_MESSAGE_BYTES, MAX_OUTCOMES, Outcome, PurgeEntry, PurgeReport};
