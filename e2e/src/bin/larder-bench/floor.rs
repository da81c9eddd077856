//! The floor: each image pulled by one call to each node's runtime, all at once, and nothing else done.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::try_join_all;
use larder_e2e::cluster::Node;
use larder_runtime::{Runtime as _, RuntimeClient, Timeouts};

use crate::images::{FOLDER, ImageSet};

/// How long a single pull may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// The runtimes of the cluster's nodes, connected.
pub struct Runtimes {
    nodes: Vec<(String, RuntimeClient)>,
}

impl Runtimes {
    /// Connects to the runtime of each of these nodes.
    pub async fn of(nodes: &[Node]) -> anyhow::Result<Self> {
        let sockets: Vec<(String, PathBuf)> = nodes
            .iter()
            .map(|node| Ok((node.name().to_owned(), node.containerd_socket()?)))
            .collect::<anyhow::Result<_>>()?;
        let connect = sockets.into_iter().map(|(name, socket)| async move {
            let client = RuntimeClient::connect(&socket, Timeouts::default()).await?;
            anyhow::Ok((name, client))
        });
        Ok(Self {
            nodes: try_join_all(connect).await?,
        })
    }

    /// Pulls every image on every node, all at once; returns how long that took.
    pub async fn pull(&self, images: &ImageSet) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let pulls = self.nodes.iter().flat_map(|(name, client)| {
            images.references.iter().map(move |reference| async move {
                let pulled = client.pull(reference, None, PATIENCE).await;
                pulled.with_context(|| format!("{name}: {reference}"))
            })
        });
        try_join_all(pulls).await?;
        Ok(began.elapsed())
    }

    /// Removes every image of the benchmark, and the no-op that Larder brings along: the nodes are cold again.
    pub async fn clean(&self, host: &str) -> anyhow::Result<()> {
        for (name, client) in &self.nodes {
            for image in client.images().await? {
                if image
                    .tags
                    .iter()
                    .chain(&image.digests)
                    .any(|known| is_ours(known, host))
                {
                    client
                        .remove(&image.id)
                        .await
                        .with_context(|| format!("{name}: {}", image.id))?;
                }
            }
        }
        Ok(())
    }

    /// Fails unless every node holds every one of these images.
    pub async fn must_hold(&self, references: &[String]) -> anyhow::Result<()> {
        for (name, client) in &self.nodes {
            let images = client.images().await?;
            for reference in references {
                let held = images.iter().any(|image| image.tags.contains(reference));
                anyhow::ensure!(
                    held,
                    "{name} does not hold {reference}, though the status says so"
                );
            }
        }
        Ok(())
    }
}

fn is_ours(name: &str, host: &str) -> bool {
    let of_bench = name.strip_prefix(host).and_then(|rest| rest.strip_prefix('/'));
    of_bench.is_some_and(|path| path.starts_with(FOLDER)) || name.contains("/larder-noop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_of_the_benchmark_and_the_no_op_are_removed() {
        let host = "10.77.0.2:5000";
        assert!(is_ours("10.77.0.2:5000/bench/s1/i00:1", host));
        assert!(is_ours("ghcr.io/larder-dev/larder-noop:build-1", host));
        assert!(!is_ours("ghcr.io/larder-dev/larder-operator:build-1", host));
        assert!(!is_ours("10.77.0.2:5000/other/x:1", host));
        assert!(!is_ours("larder.local/pause:1", host));
    }
}
