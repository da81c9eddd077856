//! A removal at work: image by image, each time on a fresh look at the node, by the decision that agents and purge Jobs
//! share.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::image_ref::ImageRef;
use larder_core::removal::{EntryOutcome, PurgeEntry, PurgeReport, decide};

use super::runtime::Runtime;

#[derive(Clone, Debug)]
pub struct Removal {
    pub entries: Vec<PurgeEntry>,
    keep: Vec<ImageRef>,
    settled: BTreeMap<usize, EntryOutcome>,
    tried: BTreeSet<String>,
}

/// What a step of a removal comes to.
#[derive(Debug)]
pub enum Step {
    /// Some names of an image went.
    Went(Vec<String>),
    /// There is nothing left to do.
    Over(PurgeReport),
}

impl Removal {
    pub fn new(entries: &[PurgeEntry], keep: &[String]) -> Self {
        Self {
            entries: entries.to_vec(),
            keep: keep.iter().map(|k| ImageRef::parse(k).unwrap()).collect(),
            settled: BTreeMap::new(),
            tried: BTreeSet::new(),
        }
    }

    pub fn step(&mut self, runtime: &mut Runtime) -> Step {
        let plan = decide(&self.entries, &self.keep, &runtime.contents());
        let Some(step) = plan.steps.into_iter().find(|s| !self.tried.contains(&s.image)) else {
            let decided = plan.outcomes.into_iter().enumerate();
            let settled = &self.settled;
            let outcomes = decided.map(|(i, outcome)| settled.get(&i).cloned().unwrap_or(outcome));
            return Step::Over(PurgeReport::of(outcomes));
        };
        for index in &step.entries {
            self.settled.insert(*index, plan.outcomes[*index].clone());
        }
        self.tried.insert(step.image.clone());
        Step::Went(runtime.carry_out(&step))
    }
}
