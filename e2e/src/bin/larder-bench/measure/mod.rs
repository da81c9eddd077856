//! The measures, by the names of design targets.

mod fill;
mod join;
mod missing;
mod refresh;

use crate::bench::{Applied, Bench, PATIENCE, ready};
use crate::result::{Measure, Sample, Scope, Setting};
use crate::watch::Watch;
use crate::{machine, memory};

/// What can be measured.
pub const MEASURES: [&str; 6] = ["p1", "p3", "p4", "p5", "p6", "memory"];

/// Sizes of the images in MB.
const SMALL: [usize; 30] = [1; 30];
const LARGE: [usize; 4] = [20, 40, 60, 80];
const MANY: [usize; 100] = [1; 100];

/// Takes these measures, each so many times; what was found before a failure is kept.
pub async fn all(
    bench: &Bench,
    setting: &Setting,
    runs: usize,
    only: &[String],
) -> (Vec<Measure>, anyhow::Result<()>) {
    let mut found = Found {
        bench,
        setting,
        measures: Vec::new(),
    };
    let ended = take(&mut found, runs, only).await;
    let mut measures = found.measures;
    measures.retain(|measure| only.contains(&measure.name));
    (measures, ended)
}

async fn take(found: &mut Found<'_>, runs: usize, only: &[String]) -> anyhow::Result<()> {
    let Found { bench, setting, .. } = *found;
    let wanted = |name: &str| only.iter().any(|only| only == name);
    let by_agent = setting.puller == "Agent";
    let idle = memory_of(bench, by_agent)?;
    eprintln!("{}; load {:.1}", setting.machine, machine::load());
    if machine::load() > 3.0 {
        eprintln!("other work goes on here: times mean little, counts and ratios more");
    }
    // Its time is what p6 is held against, its work what memory is taken after.
    let mut undisturbed = None;
    if wanted("p1") || wanted("p6") || wanted("memory") {
        let samples = fill::run(bench, setting, &SMALL, runs).await?;
        let measure = found.add("p1", "s", SMALL.len(), &samples);
        undisturbed = Some(measure.value);
        let images = if by_agent && wanted("memory") {
            fill::run(bench, setting, &MANY, 1).await?;
            MANY.len()
        } else {
            SMALL.len()
        };
        let mut sample = Sample {
            value: memory_of(bench, by_agent)?,
            ..Sample::default()
        };
        sample.detail.insert("idle_mib".into(), idle);
        found.add("memory", "MiB", images, &[sample]);
    }
    if wanted("p3") {
        let samples = fill::run(bench, setting, &LARGE, runs).await?;
        found.add("p3", "s", LARGE.len(), &samples);
    }
    if wanted("p6") {
        let samples = missing::run(bench, setting, SMALL.len(), undisturbed, runs).await?;
        found.add("p6", "s", SMALL.len(), &samples);
    }
    if wanted("p4") || wanted("p5") {
        let images = bench.images(&SMALL).await?;
        let applied = bench.apply("kept", &images.references, &setting.puller).await?;
        wait_until_ready(bench, &applied).await?;
        bench.settled().await?;
        if wanted("p4") {
            let samples = refresh::run(bench, &applied, &images, runs).await?;
            found.add("p4", "s", SMALL.len(), &samples);
        }
        if wanted("p5") {
            let samples = join::run(bench, by_agent, runs).await?;
            found.add("p5", "s", SMALL.len(), &samples);
        }
        bench.clear(&applied.name).await?;
    }
    Ok(())
}

/// Memory of who does the work.
fn memory_of(bench: &Bench, by_agent: bool) -> anyhow::Result<f64> {
    if by_agent {
        memory::of_agents(&bench.cluster)
    } else {
        memory::of_operator(&bench.cluster)
    }
}

struct Found<'a> {
    bench: &'a Bench,
    setting: &'a Setting,
    measures: Vec<Measure>,
}

impl Found<'_> {
    fn add(&mut self, name: &'static str, unit: &'static str, images: usize, samples: &[Sample]) -> Measure {
        let scope = Scope {
            name,
            unit,
            nodes: self.bench.nodes,
            images,
        };
        let measure = Measure::of(scope, self.setting, samples);
        let floor = measure.floor.zip(measure.ratio);
        let floor = floor.map(|(floor, ratio)| format!(", {ratio:.1} x the floor of {floor:.2}"));
        let writes = measure.writes.zip(measure.writes_without_events);
        let writes = writes.map(|(all, without)| format!(", {all} writes, {without} without events"));
        eprintln!(
            "==> {name}: {:.2} {unit}{}{}",
            measure.value,
            floor.unwrap_or_default(),
            writes.unwrap_or_default()
        );
        self.measures.push(measure.clone());
        measure
    }
}

async fn wait_until_ready(bench: &Bench, applied: &Applied) -> anyhow::Result<()> {
    let mut watch = Watch::begin(&bench.api(), "", |cache: larder_api::ImageCache| cache).await?;
    if ready(&bench.api().get(&applied.name).await?, bench.nodes).is_ok() {
        return Ok(());
    }
    watch.until(PATIENCE, |_, cache| ready(&cache, bench.nodes)).await
}
