//! The removals at work.

use std::collections::HashMap;
use std::sync::Arc;

use larder_core::agent::RemoveOrder;
use larder_core::image_ref::ImageRef;
use larder_core::removal::{PurgeEntry, PurgeReport};
use larder_runtime::RuntimeClient;
use tokio::task::{Id, JoinSet};
use tracing::{error, info, warn};

use crate::purge::carry_out::carry_out;

/// A removal that ended.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) order: RemoveOrder,
    /// In words where it could not be carried out.
    pub(super) report: Result<PurgeReport, String>,
}

/// Removals at work, one at most for each cache.
#[derive(Debug, Default)]
pub(super) struct Removals {
    tasks: JoinSet<Removal>,
    at_work: HashMap<Id, RemoveOrder>,
}

impl Removals {
    /// What is being removed, as it was ordered.
    pub(super) fn view(&self) -> Vec<RemoveOrder> {
        self.at_work.values().cloned().collect()
    }

    /// Begins a removal; nothing happens if one is at work for the cache.
    pub(super) fn begin(&mut self, runtime: Arc<RuntimeClient>, order: RemoveOrder) {
        if self.at_work.values().any(|o| o.cache_uid == order.cache_uid) {
            return;
        }
        info!(cache = order.cache_uid, images = order.entries.len(), "removing");
        let ordered = order.clone();
        let task = self.tasks.spawn(async move {
            let report = remove(&order.entries, &order.keep, &runtime).await;
            Removal { order, report }
        });
        self.at_work.insert(task.id(), ordered);
    }

    /// The next removal that ends. Waits for ever while nothing is removed.
    pub(super) async fn next(&mut self) -> Option<Removal> {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Some(ended)),
            Err(broken) => {
                error!(error = %broken, "a removal broke off");
                (broken.id(), None)
            }
        };
        self.at_work.remove(&id);
        match &ended {
            Some(Removal {
                order,
                report: Ok(report),
            }) => {
                info!(cache = order.cache_uid, %report, "removed");
            }
            Some(Removal {
                order,
                report: Err(error),
            }) => {
                warn!(cache = order.cache_uid, error, "cannot remove");
            }
            None => {}
        }
        ended
    }
}

async fn remove(
    entries: &[PurgeEntry],
    keep: &[String],
    runtime: &RuntimeClient,
) -> Result<PurgeReport, String> {
    let parse = |text: &String| ImageRef::parse(text).map_err(|error| format!("{text}: {error}"));
    // What is to stay and cannot be read could be anything: nothing is removed then.
    let keep = keep
        .iter()
        .map(parse)
        .collect::<Result<Vec<ImageRef>, String>>()?;
    let report = carry_out(entries, &keep, runtime).await;
    match report.error {
        Some(error) => Err(error),
        None => Ok(report),
    }
}
