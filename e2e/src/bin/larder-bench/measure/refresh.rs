//! p4: a refresh that finds nothing new.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use larder_api::ImageCache;
use larder_api::names::REFRESH_ANNOTATION;
use larder_e2e::cluster::audit::AuditEvent;
use serde_json::json;

use crate::bench::{Applied, Bench, PATIENCE, QUIET, current};
use crate::images::ImageSet;
use crate::machine;
use crate::result::Sample;
use crate::watch::Watch;
use crate::writes::{Writes, is_heartbeat};

/// How long writes are counted after the end.
const AFTER: Duration = Duration::from_secs(2);

/// Asks so many times for a refresh of a cache that is Ready.
pub async fn run(
    bench: &Bench,
    applied: &Applied,
    images: &ImageSet,
    runs: usize,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for run in 0..runs {
        tokio::time::sleep(QUIET).await;
        samples.push(refresh(bench, &applied.name, images, &format!("bench-{run}")).await?);
    }
    Ok(samples)
}

async fn refresh(bench: &Bench, name: &str, images: &ImageSet, token: &str) -> anyhow::Result<Sample> {
    let caches: Api<ImageCache> = bench.api();
    let load = machine::load();
    let before = bench.registry.mark()?;
    let audit = bench.cluster.audit();
    let mark = audit.mark()?;
    let mut watch = Watch::begin(&caches, "", |cache: ImageCache| cache).await?;

    let began = Instant::now();
    let patch = json!({"metadata": {"annotations": {REFRESH_ANNOTATION: token}}});
    caches
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let (at, changed) = watch
        .until(PATIENCE, |at: Instant, cache| {
            let refresh = current(&cache)?.last_refresh.as_ref().ok_or("no refresh yet")?;
            let finished = refresh.finished_token.as_deref() == Some(token);
            finished
                .then_some((at, refresh.changed))
                .ok_or_else(|| format!("{refresh:?}"))
        })
        .await?;
    anyhow::ensure!(
        changed == 0,
        "{changed} images are said to have moved, and none has"
    );

    tokio::time::sleep(AFTER).await;
    let (requests, _) = bench.registry.requests_since(before)?;
    let asked = requests
        .iter()
        .filter(|request| request.path.contains(&images.prefix));
    let (heads, others): (Vec<_>, Vec<_>) = asked.partition(|request| request.method == "HEAD");
    let events = audit.since(mark)?;
    let detail = [
        ("load", load),
        ("heads", heads.len() as f64),
        ("other_registry_requests", others.len() as f64),
    ];
    Ok(Sample {
        value: at.duration_since(began).as_secs_f64(),
        floor: None,
        writes: Some(Writes::among(
            events
                .iter()
                .filter(|event| !is_request(event) && !is_heartbeat(event)),
        )),
        detail: detail.map(|(name, value)| (name.to_owned(), value)).into(),
    })
}

/// Whether this is the annotation itself: the one write here that is the user's.
fn is_request(event: &AuditEvent) -> bool {
    let larder = event.user.contains("larder-operator");
    event.verb == "patch" && event.resource == "imagecaches" && !larder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writes::tests::event;

    #[test]
    fn the_users_annotation_is_told_from_larders_writes() {
        assert!(is_request(&event("admin", "patch", "imagecaches", "/x")));
        let operator = "system:serviceaccount:larder-system:larder-operator";
        assert!(!is_request(&event(operator, "patch", "imagecaches", "/x")));
        assert!(!is_request(&event("admin", "patch", "imagecaches/status", "/x")));
    }
}
