//! The one plan over all nodes: which node should hold which revision now.

mod apply;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;

use crate::context::Context;
use crate::queue::Chain;

pub use apply::Error;

/// Node objects written at a time.
const AT_A_TIME: usize = 16;
/// A node object that could not be written is planned again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the plan and carries it out. Returns after how long it wants to be called again.
///
/// A node object that cannot be written does not keep the others; it is planned again a little later.
pub async fn reconcile(ctx: Arc<Context>) -> Result<Option<Duration>, Error> {
    let now = Timestamp::now();
    let plan = plan::make(&ctx.world, ctx.pulls_per_node, now);
    ctx.metrics
        .slots
        .set(i64::try_from(plan.slots_in_use).unwrap_or(i64::MAX));
    let results: Vec<Result<(), Error>> = futures::stream::iter(plan.actions)
        .map(|action| apply::apply(&ctx, action))
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    let failed: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    for error in &failed {
        // Somebody was quicker, as the garbage collector is when a node goes: the next plan sees it.
        if error.is_conflict() {
            tracing::debug!(error = %Chain(error), "a node object had changed");
        } else {
            tracing::warn!(error = %Chain(error), "a node object was not written");
        }
    }
    if !failed.is_empty() {
        // Soon: the queue's own delays would grow to half a minute for the sake of one node.
        return Ok(Some(RETRY));
    }
    Ok(plan
        .wake_at
        .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)))
}

#[cfg(test)]
mod tests;
