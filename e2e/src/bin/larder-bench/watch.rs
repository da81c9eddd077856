//! Changes of objects as the API server tells of them, with the moment of each: polling would round times up.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Changes of objects of one kind, or of several turned into one type.
pub struct Watch<T> {
    changes: BoxStream<'static, anyhow::Result<T>>,
}

impl<T: Send + 'static> Watch<T> {
    /// Watches what changes from now on, and turns each object that comes or changes into `T`. The server has agreed when
    /// this returns.
    pub async fn begin<K>(api: &Api<K>, labels: &str, turn: fn(K) -> T) -> anyhow::Result<Self>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let listed = api.list_metadata(&ListParams::default().limit(1)).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().labels(labels);
        let changes = api.watch(&params, &version).await?;
        let changes = changes.filter_map(move |change| async move {
            match change {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Some(Ok(turn(object))),
                Ok(WatchEvent::Deleted(_) | WatchEvent::Bookmark(_)) => None,
                Ok(WatchEvent::Error(status)) => Some(Err(anyhow::anyhow!("watch: {}", status.message))),
                Err(error) => Some(Err(error.into())),
            }
        });
        Ok(Self {
            changes: changes.boxed(),
        })
    }

    /// Both, as they come.
    pub fn and(self, other: Self) -> Self {
        Self {
            changes: stream::select(self.changes, other.changes).boxed(),
        }
    }

    /// Hands each change with its moment to `look` until that is satisfied. Fails with the last complaint when `patience`
    /// is over.
    pub async fn until<R>(
        &mut self,
        patience: Duration,
        mut look: impl FnMut(Instant, T) -> Result<R, String>,
    ) -> anyhow::Result<R> {
        let mut complaint = "nothing has changed".to_owned();
        let seen = async {
            while let Some(change) = self.changes.next().await {
                match look(Instant::now(), change?) {
                    Ok(found) => return Ok(found),
                    Err(other) => complaint = other,
                }
            }
            bail!("the API server has ended the watch")
        };
        let seen = tokio::time::timeout(patience, seen).await;
        seen.with_context(|| format!("not within {} s: {complaint}", patience.as_secs()))?
    }
}
