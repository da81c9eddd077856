//! A pull on its way, and one that is given up.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_runtime::{Content, Contents, Manifests, Progress, PullProgress, Runtime};
use tokio::time::sleep;

use super::support::{PULL, pull, soon};
use crate::runtime::image::architecture;

const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Bytes are seen to arrive, never fewer than before, until all are there. A pull that is given up leaves nothing.
pub(super) async fn progress(runtime: &dyn Runtime, content: &dyn Content, reference: &str) -> Result<()> {
    let id = pull(runtime, reference).await?;
    let contents = Contents::observe(runtime, &mut Manifests::default()).await?;
    let targets = contents.images.into_iter().filter(|image| image.id == id);
    let Some((digest, target)) = targets.flat_map(|image| image.targets).next() else {
        anyhow::bail!("{reference} is not there");
    };
    let total: u64 = target.layers.iter().map(|layer| layer.size).sum();
    forget(runtime, content, reference, &digest).await?;

    let given_up = async {
        let mut progress = PullProgress::new(&digest, "linux", architecture());
        loop {
            let seen = progress.look(content).await?;
            if seen.is_some_and(|seen| seen.bytes_done > 0) {
                return Ok::<_, anyhow::Error>(());
            }
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        pulled = runtime.pull(reference, None, PULL) => anyhow::bail!("too fast to be seen: {pulled:?}"),
        seen = given_up => seen?,
    }
    soon("without what was given up", || async {
        let mut left = content
            .ingests()
            .await?
            .iter()
            .any(|i| i.reference.contains(&digest));
        for layer in &target.layers {
            let ingest = format!("layer-{}", layer.digest);
            left |= content.ingests().await?.iter().any(|i| i.reference == ingest);
            left |= content.blob(&layer.digest).await?.is_some();
        }
        Ok(!left && content.blob(&digest).await?.is_none())
    })
    .await?;
    ensure!(
        runtime.image(reference).await?.is_none(),
        "given up, and yet it is there"
    );

    let mut looks = PullProgress::new(&digest, "linux", architecture());
    let mut seen: Vec<Progress> = Vec::new();
    let mut pulling = std::pin::pin!(runtime.pull(reference, None, PULL));
    loop {
        tokio::select! {
            biased;
            pulled = &mut pulling => break drop(pulled?),
            () = sleep(LOOK_EVERY) => seen.extend(looks.look(content).await?),
        }
    }
    seen.extend(looks.look(content).await?);
    ensure!(
        seen.iter().any(|p| 0 < p.bytes_done && p.bytes_done < total),
        "nothing between nothing and all in {} looks",
        seen.len()
    );
    for pair in seen.windows(2) {
        ensure!(
            pair[0].bytes_done <= pair[1].bytes_done && pair[1].bytes_total == total,
            "{pair:?} of {total}"
        );
    }
    let done = Progress {
        bytes_done: total,
        bytes_total: total,
        layers_done: target.layers.len(),
        layers_begun: 0,
        layers_total: target.layers.len(),
    };
    ensure!(seen.last() == Some(&done), "{:?} in the end", seen.last());
    forget(runtime, content, reference, &digest).await
}

async fn forget(runtime: &dyn Runtime, content: &dyn Content, reference: &str, digest: &str) -> Result<()> {
    runtime.remove(reference).await?;
    soon("collected", || async {
        Ok(content.blob(digest).await?.is_none())
    })
    .await
}
