//! Pulls and removals on one node: gather, decide, write the status, delete Jobs, create Jobs. In this order, so that
//! a crash at any line loses nothing that a Job has shown.

mod apply;
mod gather;
mod job;
mod pod;
mod purge;
pub(crate) mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use larder_core::node::{Write, decide};
use larder_core::pull::Rejection;
use tokio::time::Instant;

use crate::context::Context;
use gather::Gathered;

pub use apply::Error;

/// What is remembered of a node beside the objects; a restart loses it without harm.
#[derive(Debug, Default)]
pub struct NodeMemory {
    /// Pods that the API server refused, by UID of the cache.
    rejections: BTreeMap<String, Rejection>,
    /// When the status was last written.
    written_at: Option<Timestamp>,
    /// The moment reserved for the next pod, taken but not used.
    turn: Option<Instant>,
}

/// Works on one node. Returns after how long it wants to be called again.
pub async fn reconcile(ctx: Arc<Context>, node: String) -> Result<Option<Duration>, Error> {
    let now = Timestamp::now();
    let gathered = Gathered::of(&ctx.world, &node, now);
    if gathered.is_empty() {
        ctx.forget(&node);
        return Ok(None);
    }
    let (rejections, written_at) = ctx.with_memory(&node, |memory| {
        memory
            .rejections
            .retain(|uid, _| gathered.claims().iter().any(|c| c.uid == *uid));
        (memory.rejections.clone(), memory.written_at)
    });
    let revisions = gathered.revisions();
    let input = gathered.input(now, &rejections, &revisions);
    let decision = decide(input, gathered.generation(), gathered.purges(), written_at);

    if decision.write == Write::Now
        && let Some(object) = &gathered.object
    {
        if !apply::write_status(&ctx, object, &decision.status).await? {
            return Ok(None);
        }
        tally::count(
            &ctx.metrics,
            "Kubelet",
            gathered.blocks().kubelet,
            &decision.status,
        );
        ctx.with_memory(&node, |memory| memory.written_at = Some(now));
    }
    for (namespace, cache, reference, at) in decision.resolve_again {
        // No answer is as late as a moment to come.
        ctx.resolver.moved(&reference, at.min(now));
        ctx.queues.caches.mark((namespace, cache));
    }
    let deleted = apply::delete(&ctx, &node, &decision.delete).await;
    let created = apply::create(&ctx, &node, &gathered, &decision.pull, &decision.purge).await;
    deleted?;
    let turn = created?;
    let wake = decision
        .wake_at
        .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO));
    Ok([wake, turn].into_iter().flatten().min())
}

#[cfg(test)]
mod tests;
