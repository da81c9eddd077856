//! p6: one image that does not exist among the others.

use std::time::Instant;

use larder_api::names::Reason;
use larder_api::{ImageCache, ImageCacheStatus};

use crate::bench::{Bench, PATIENCE, QUIET, current};
use crate::images::FOLDER;
use crate::machine;
use crate::result::{Sample, Setting};
use crate::watch::Watch;

/// Asks for `images`, the last of which does not exist, so many times; `undisturbed` is the time with all of them there.
pub async fn run(
    bench: &Bench,
    setting: &Setting,
    images: usize,
    undisturbed: Option<f64>,
    runs: usize,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        let mut sample = ask(bench, setting, images - 1).await?;
        if let Some(undisturbed) = undisturbed {
            sample.detail.insert("p1_s".into(), undisturbed);
        }
        samples.push(sample);
    }
    Ok(samples)
}

async fn ask(bench: &Bench, setting: &Setting, present: usize) -> anyhow::Result<Sample> {
    let set = bench.images(&vec![1; present]).await?;
    bench.runtimes.clean(&bench.registry.host).await?;
    let missing = format!("{}/{FOLDER}/nowhere:1", bench.registry.host);
    let mut references = set.references.clone();
    references.push(missing.clone());

    tokio::time::sleep(QUIET).await;
    let mut watch = Watch::begin(&bench.api(), "", |cache: ImageCache| cache).await?;
    let load = machine::load();
    let applied = bench.apply("missing", &references, &setting.puller).await?;
    let (mut named, mut others) = (None, None);
    let (named, others) = watch
        .until(PATIENCE, |at: Instant, cache| {
            let status = current(&cache)?;
            if names(status, &missing) {
                named = named.or(Some(at));
            }
            if hold(status, present, bench.nodes) {
                others = others.or(Some(at));
            }
            named
                .zip(others)
                .ok_or_else(|| serde_json::to_string(status).unwrap_or_default())
        })
        .await?;
    bench.runtimes.must_hold(&set.references).await?;
    bench.clear(&applied.name).await?;
    let after = |moment: Instant| moment.duration_since(applied.at).as_secs_f64();
    Ok(Sample {
        value: after(named),
        floor: None,
        writes: None,
        detail: [
            ("load".to_owned(), load),
            ("others_in_place_s".to_owned(), after(others)),
        ]
        .into(),
    })
}

/// Whether the status says that this image does not exist.
fn names(status: &ImageCacheStatus, image: &str) -> bool {
    status
        .failures
        .iter()
        .any(|failure| failure.image == image && failure.reason == Reason::NotFound)
}

/// Whether so many images are said to be on each of so many nodes.
fn hold(status: &ImageCacheStatus, images: usize, nodes: usize) -> bool {
    let whole = |ready: i32| usize::try_from(ready).is_ok_and(|ready| ready >= images);
    status
        .node_statuses
        .iter()
        .filter(|node| whole(node.ready))
        .count()
        == nodes
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn the_status_is_read_for_the_one_and_for_the_others() {
        let status: ImageCacheStatus = from_value(json!({
            "failures": [{"image": "a", "reason": "NotFound"}, {"image": "b", "reason": "Unauthorized"}],
            "nodeStatuses": [
                {"node": "n1", "state": "Failed", "ready": 29}, {"node": "n2", "state": "Pulling", "ready": 28},
            ],
        }))
        .unwrap();
        assert!(names(&status, "a") && !names(&status, "b") && !names(&status, "c"));
        assert!(hold(&status, 28, 2) && !hold(&status, 29, 2));
    }
}
