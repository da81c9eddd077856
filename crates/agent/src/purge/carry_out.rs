//! Removes, image by image, each time on a fresh look at the node.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use larder_core::image_ref::ImageRef;
use larder_core::removal::{EntryOutcome, Outcome, PurgeEntry, PurgeReport, RemovalAct, RemovalStep, decide};
use larder_runtime::{Runtime, RuntimeError};
use tracing::{info, warn};

use super::gather::Gatherer;

/// Removes what may go and says what became of every entry. If the runtime stops answering, the report carries the error
/// and counts what was not decided as failed.
pub(crate) async fn carry_out(
    entries: &[PurgeEntry],
    keep: &[ImageRef],
    runtime: &dyn Runtime,
) -> PurgeReport {
    let mut settled: BTreeMap<usize, EntryOutcome> = BTreeMap::new();
    let mut tried: BTreeSet<String> = BTreeSet::new();
    let mut gatherer = Gatherer::default();
    loop {
        // A container may have started, a name may have come or moved since the last removal: decide anew.
        let contents = match gatherer.gather(runtime).await {
            Ok(contents) => contents,
            Err(error) => return cut_short(entries, settled, &error),
        };
        let mut plan = decide(entries, keep, &contents);
        let Some(step) = plan.steps.into_iter().find(|s| !tried.contains(&s.image)) else {
            let decided = plan.outcomes.into_iter().enumerate();
            return PurgeReport::of(decided.map(|(i, outcome)| settled.remove(&i).unwrap_or(outcome)));
        };
        let failure = act(runtime, &step).await.err();
        for index in &step.entries {
            let outcome = &mut plan.outcomes[*index];
            if let Some(error) = &failure {
                outcome.outcome = Outcome::Failed;
                outcome.message = format!("{error:#}");
            }
            let EntryOutcome {
                reference,
                outcome,
                message,
            } = &*outcome;
            info!(reference, ?outcome, message, image = step.image, "entry settled");
            settled.insert(*index, plan.outcomes[*index].clone());
        }
        tried.insert(step.image);
    }
}

async fn act(runtime: &dyn Runtime, step: &RemovalStep) -> Result<()> {
    match &step.act {
        RemovalAct::RemoveImage => runtime.remove(&step.image).await?,
        RemovalAct::DeleteRecords {
            records: names,
            collect,
        } => {
            let records = runtime
                .records()
                .context("the runtime does not tell names apart")?;
            for (i, (name, target)) in names.iter().enumerate() {
                records
                    .delete(name, target, *collect && i + 1 == names.len())
                    .await?;
            }
        }
    }
    Ok(())
}

fn cut_short(
    entries: &[PurgeEntry],
    mut settled: BTreeMap<usize, EntryOutcome>,
    error: &RuntimeError,
) -> PurgeReport {
    warn!(%error, "the runtime stopped answering");
    let undecided = |entry: &PurgeEntry| EntryOutcome {
        reference: entry.reference.clone(),
        outcome: Outcome::Failed,
        message: "not decided".to_owned(),
    };
    let all = entries.iter().enumerate();
    let mut report =
        PurgeReport::of(all.map(|(i, entry)| settled.remove(&i).unwrap_or_else(|| undecided(entry))));
    report.error = Some(error.to_string());
    report
}
