//! What a measure found, and the files it is kept in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::machine;
use crate::writes::Writes;

/// One measure: the median of its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// `p1`, `p3`, `p4`, `p5`, `p6` or `memory`.
    #[serde(rename = "measure")]
    pub name: String,
    /// Who pulled.
    pub puller: String,
    /// The figure.
    pub value: f64,
    /// `s` or `MiB`.
    pub unit: String,
    /// The least it could have been, in the same unit, where that was measured.
    pub floor: Option<f64>,
    /// `value` by `floor`.
    pub ratio: Option<f64>,
    /// API writes of everybody, leases aside.
    pub writes: Option<usize>,
    /// The same without events.
    pub writes_without_events: Option<usize>,
    /// How many runs there were.
    pub runs: usize,
    /// Nodes that were worked on.
    pub nodes: usize,
    /// Images asked for.
    pub images: usize,
    /// The machine.
    pub machine: String,
    /// The day, such as `2026-11-21`.
    pub date: String,
    /// How to repeat it.
    pub command: String,
    /// The figure of each run.
    pub values: Vec<f64>,
    /// The floor of each run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floors: Vec<f64>,
    /// Further figures: medians, each under a name that gives its unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, f64>,
    /// The writes of the run with the most of them, as `verb resource by whom`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub writes_by_kind: BTreeMap<String, usize>,
}

/// What one run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub value: f64,
    pub floor: Option<f64>,
    pub writes: Option<Writes>,
    pub detail: BTreeMap<String, f64>,
}

/// What all measures of one invocation share.
#[derive(Clone, Debug)]
pub struct Setting {
    pub puller: String,
    pub machine: String,
    pub date: String,
    pub command: String,
}

impl Setting {
    /// This machine, today.
    pub fn here(puller: String, command: String) -> Self {
        let now = Timestamp::now().to_string();
        Self {
            puller,
            machine: machine::describe(),
            date: now.split('T').next().unwrap_or_default().to_owned(),
            command,
        }
    }
}

/// What a measure was taken over.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub name: &'static str,
    pub unit: &'static str,
    pub nodes: usize,
    pub images: usize,
}

impl Measure {
    /// Makes one measure of its runs.
    pub fn of(scope: Scope, setting: &Setting, samples: &[Sample]) -> Self {
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let floors: Vec<f64> = samples.iter().filter_map(|sample| sample.floor).collect();
        let writes: Vec<&Writes> = samples
            .iter()
            .filter_map(|sample| sample.writes.as_ref())
            .collect();
        let value = median(&values).unwrap_or_default();
        let floor = median(&floors);
        let count = |of: fn(&Writes) -> usize| {
            let counts: Vec<f64> = writes.iter().map(|found| of(found) as f64).collect();
            median(&counts).map(|middle| middle.round() as usize)
        };
        Self {
            name: scope.name.to_owned(),
            puller: setting.puller.clone(),
            value: rounded(value),
            unit: scope.unit.to_owned(),
            floor: floor.map(rounded),
            ratio: floor.map(|floor| rounded(value / floor)),
            writes: count(|found| found.all),
            writes_without_events: count(|found| found.without_events),
            runs: samples.len(),
            nodes: scope.nodes,
            images: scope.images,
            machine: setting.machine.clone(),
            date: setting.date.clone(),
            command: setting.command.clone(),
            values: values.into_iter().map(rounded).collect(),
            floors: floors.into_iter().map(rounded).collect(),
            detail: medians(samples),
            writes_by_kind: writes
                .iter()
                .max_by_key(|found| found.all)
                .map(|found| found.by_kind.clone())
                .unwrap_or_default(),
        }
    }
}

/// The middle one, or the mean of the middle two; none of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// The median of each further figure, over the runs that have it.
fn medians(samples: &[Sample]) -> BTreeMap<String, f64> {
    let mut found: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in samples.iter().flat_map(|sample| &sample.detail) {
        found.entry(name).or_default().push(*value);
    }
    found
        .into_iter()
        .filter_map(|(name, values)| Some((name.clone(), rounded(median(&values)?))))
        .collect()
}

/// To thousandths: what lies beyond is noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Writes the file of this day and puller. Measures that it has already are replaced, others stay.
pub fn write_results(folder: &Path, setting: &Setting, found: Vec<Measure>) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{}-{}.json", setting.date, setting.puller.to_lowercase()));
    let mut all = if path.exists() { read(&path)? } else { Vec::new() };
    all.retain(|old| !found.iter().any(|new| new.name == old.name));
    all.extend(found);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let text = serde_json::to_string_pretty(&all)?;
    std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// The newest of each measure and puller, by measure and then puller.
pub fn newest(folder: &Path) -> anyhow::Result<Vec<Measure>> {
    let mut newest: BTreeMap<(String, String), Measure> = BTreeMap::new();
    let listing = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in listing {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for found in read(&path)? {
            let key = (found.name.clone(), found.puller.clone());
            if newest.get(&key).is_none_or(|old| old.date < found.date) {
                newest.insert(key, found);
            }
        }
    }
    Ok(newest.into_values().collect())
}

fn read(path: &Path) -> anyhow::Result<Vec<Measure>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no results", path.display()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn measure(name: &'static str, samples: &[Sample]) -> Measure {
        let setting = Setting {
            puller: "Job".into(),
            machine: "a machine".into(),
            date: "2026-11-21".into(),
            command: "make bench".into(),
        };
        let scope = Scope {
            name,
            unit: "s",
            nodes: 2,
            images: 30,
        };
        Measure::of(scope, &setting, samples)
    }

    pub fn sample(value: f64, floor: f64, all: usize) -> Sample {
        Sample {
            value,
            floor: Some(floor),
            writes: Some(Writes {
                all,
                without_events: all / 2,
                by_kind: BTreeMap::from([("create pods by x".into(), all)]),
            }),
            detail: BTreeMap::from([("load".into(), value * 10.0)]),
        }
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), Some(5.5));
    }

    #[test]
    fn a_measure_is_made_of_medians() {
        let found = measure(
            "p1",
            &[sample(9.0, 1.0, 80), sample(4.0, 2.0, 100), sample(5.0, 3.0, 90)],
        );
        assert_eq!(
            (found.value, found.floor, found.ratio),
            (5.0, Some(2.0), Some(2.5))
        );
        assert_eq!((found.writes, found.writes_without_events), (Some(90), Some(45)));
        assert_eq!(found.detail.get("load"), Some(&50.0));
        assert_eq!(found.writes_by_kind["create pods by x"], 100);
        assert_eq!((found.runs, found.values), (3, vec![9.0, 4.0, 5.0]));
    }

    #[test]
    fn what_has_no_floor_has_no_ratio() {
        let found = measure(
            "p5",
            &[Sample {
                value: 0.123_456,
                ..Sample::default()
            }],
        );
        assert_eq!(
            (found.value, found.floor, found.ratio, found.writes),
            (0.123, None, None, None)
        );
    }

    #[test]
    fn a_second_writing_replaces_what_it_measured_and_keeps_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let setting = Setting {
            puller: "Job".into(),
            machine: String::new(),
            date: "2026-11-21".into(),
            command: String::new(),
        };
        let (first, other) = (
            measure("p1", &[sample(9.0, 1.0, 8)]),
            measure("p3", &[sample(3.0, 1.0, 8)]),
        );
        write_results(folder.path(), &setting, vec![other.clone(), first]).unwrap();
        let better = measure("p1", &[sample(5.0, 1.0, 8)]);
        let path = write_results(folder.path(), &setting, vec![better.clone()]).unwrap();
        assert!(path.ends_with("2026-11-21-job.json"));
        assert_eq!(
            newest(folder.path()).unwrap(),
            vec![better.clone(), other.clone()]
        );

        let older = Measure {
            date: "2026-11-20".into(),
            value: 1.0,
            ..better.clone()
        };
        let early = Setting {
            date: "2026-11-20".into(),
            ..setting
        };
        write_results(folder.path(), &early, vec![older]).unwrap();
        assert_eq!(newest(folder.path()).unwrap(), vec![better, other]);
    }
}
