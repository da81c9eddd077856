//! p1 and p3: from apply to Ready, on nodes that hold nothing; beside it the floor, and the same pods without Larder.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::PodSpec;
use larder_api::ImageCache;

use crate::bare;
use crate::bench::{Bench, PATIENCE, QUIET, ready};
use crate::images::ImageSet;
use crate::machine;
use crate::result::{Sample, Setting};
use crate::timeline::{self, PodNotes};
use crate::watch::Watch;
use crate::writes::Writes;

/// Fills the nodes with images of these sizes in MB, and takes the floor beside it, so many times; where pods pulled, also
/// what they take by themselves.
pub async fn run(
    bench: &Bench,
    setting: &Setting,
    megabytes: &[usize],
    runs: usize,
) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for run in 0..runs {
        // Images of their own for each: what the one has read from disk does not help the other.
        let (ours, plain) = (bench.images(megabytes).await?, bench.images(megabytes).await?);
        let alone = bench.images(megabytes).await?;
        bench.runtimes.clean(&bench.registry.host).await?;
        let load = machine::load();
        let (mut sample, pods, floor);
        if run % 2 == 0 {
            floor = take_floor(bench, &plain).await?;
            (sample, pods) = fill(bench, setting, &ours).await?;
        } else {
            (sample, pods) = fill(bench, setting, &ours).await?;
            floor = take_floor(bench, &plain).await?;
        }
        sample.floor = Some(floor);
        if !pods.is_empty() {
            tokio::time::sleep(QUIET).await;
            let took = bare::run(bench, &pods, &ours, &alone).await?.as_secs_f64();
            eprintln!("    the same pods without Larder: {took:.2} s");
            sample.detail.insert("bare_pods_s".into(), took);
        }
        sample.detail.insert("load".into(), load);
        eprintln!(
            "    {} images: {:.2} s, floor {floor:.2} s",
            megabytes.len(),
            sample.value
        );
        eprint!("{}", timeline::show(&sample.detail));
        samples.push(sample);
    }
    Ok(samples)
}

async fn take_floor(bench: &Bench, images: &ImageSet) -> anyhow::Result<f64> {
    tokio::time::sleep(QUIET).await;
    let floor = bench.runtimes.pull(images).await?;
    bench.runtimes.must_hold(&images.references).await?;
    bench.runtimes.clean(&bench.registry.host).await?;
    Ok(floor.as_secs_f64())
}

async fn fill(
    bench: &Bench,
    setting: &Setting,
    images: &ImageSet,
) -> anyhow::Result<(Sample, BTreeMap<String, PodSpec>)> {
    tokio::time::sleep(QUIET).await;
    let audit = bench.cluster.audit();
    let mark = audit.mark()?;
    let mut watch = Watch::begin(&bench.api(), "", |cache: ImageCache| cache).await?;
    let notes = PodNotes::begin(bench).await?;

    let applied = bench.apply("fill", &images.references, &setting.puller).await?;
    let at = watch
        .until(PATIENCE, |at: Instant, cache| {
            ready(&cache, bench.nodes).map(|()| at)
        })
        .await?;
    let value = at.duration_since(applied.at).as_secs_f64();

    bench.runtimes.must_hold(&images.references).await?;
    // What Larder clears away belongs to the cost.
    bench.settled().await?;
    let events = audit.since(mark)?;
    let (mut detail, pods) = notes.end(applied.at);
    detail.extend(timeline::steps_of_writes(&events, applied.at_clock));
    detail.insert("at_ready_s".into(), value);
    bench.clear(&applied.name).await?;
    let sample = Sample {
        value,
        floor: None,
        writes: Some(Writes::among(&events)),
        detail,
    };
    Ok((sample, pods))
}
