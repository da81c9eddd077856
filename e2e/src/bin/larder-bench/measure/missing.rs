//! p6: one image that does not exist among the others; and where only kubelets ask for it, how soon what one of them was
//! told is in the status.

use std::time::Instant;

use k8s_openapi::api::core::v1::Event;
use larder_api::names::Reason;
use larder_api::{ImageCache, ImageCacheStatus};
use serde_json::json;

use crate::bench::{Bench, PATIENCE, QUIET, current};
use crate::images::FOLDER;
use crate::machine;
use crate::pulled::is_failure;
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
        if setting.puller == "Job" {
            let after = after_kubelet(bench).await?;
            sample.detail.insert("after_kubelet_s".into(), after);
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

enum News {
    Cache(Box<ImageCache>),
    Event(Box<Event>),
}

/// Seconds from a kubelet's first word that it could not pull an image to the status that says so.
async fn after_kubelet(bench: &Bench) -> anyhow::Result<f64> {
    tokio::time::sleep(QUIET).await;
    let caches = Watch::begin(&bench.api(), "", |cache| News::Cache(Box::new(cache))).await?;
    let events = Watch::begin(&bench.api(), "", |event| News::Event(Box::new(event))).await?;
    let mut watch = caches.and(events);
    let missing = format!("{}/{FOLDER}/nowhere:1", bench.registry.host);
    let spec = json!({"images": [{"image": missing}], "puller": "Job", "resolve": "OnNode"});
    let applied = bench.apply_spec("on-node", &spec).await?;
    let (mut told, mut named) = (None, None);
    let (told, named) = watch
        .until(PATIENCE, |at: Instant, news| {
            match news {
                News::Event(event) if is_failure(&event) => told = told.or(Some(at)),
                News::Cache(cache) if names(current(&cache)?, &missing) => named = named.or(Some(at)),
                News::Event(_) | News::Cache(_) => {}
            }
            told.zip(named)
                .ok_or_else(|| format!("the kubelet has told: {}", told.is_some()))
        })
        .await?;
    bench.clear(&applied.name).await?;
    // Events are sent beside the work: the status may come first.
    Ok(named.saturating_duration_since(told).as_secs_f64())
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
