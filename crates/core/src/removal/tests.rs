//! A node in memory that removals are tried on.

#![allow(clippy::unwrap_used)]

mod properties;
mod table;

use jiff::Timestamp;

use super::*;
use crate::image_ref::ImageRef;

const HOUR: i64 = 3600;

fn digest(n: u8) -> String {
    format!("sha256:{}", format!("{n:02x}").repeat(32))
}

/// The image ids are 0xc0…; two targets, 1 and 2, are an index and its own manifest: one image.
fn config_of(target: u8) -> u8 {
    0xc0 + target.div_ceil(2)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A node with containerd, as pulls leave it.
#[derive(Clone, Debug, Default)]
struct Node {
    records: Vec<HeldRecord>,
    pinned: Vec<u8>,
    containers: Vec<HeldContainer>,
    configs: Vec<(String, u8)>,
}

impl Node {
    fn put(&mut self, name: &str, target: u8, when: i64) {
        self.configs.push((digest(target), config_of(target)));
        if let Some(record) = self.records.iter_mut().find(|r| r.name == name) {
            record.target = digest(target);
        } else {
            self.records.push(HeldRecord {
                name: name.to_owned(),
                target: digest(target),
                created_at: Some(at(when)),
            });
        }
    }

    fn pull(mut self, repository: &str, tag: Option<&str>, target: u8, when: i64) -> Self {
        if let Some(tag) = tag {
            self.put(&format!("{repository}:{tag}"), target, when);
        }
        self.put(&format!("{repository}@{}", digest(target)), target, when);
        self.put(&digest(config_of(target)), target, when);
        self
    }

    fn run(mut self, target: u8) -> Self {
        let id = digest(config_of(target));
        self.containers.push(HeldContainer {
            id: "0123456789abcdef".into(),
            image: vec![id.clone(), id],
        });
        self
    }

    fn id(&self, record: &HeldRecord) -> String {
        digest(
            self.configs
                .iter()
                .find(|(target, _)| *target == record.target)
                .unwrap()
                .1,
        )
    }

    fn contents(&self) -> NodeContents {
        let mut images: Vec<HeldImage> = Vec::new();
        for record in &self.records {
            let id = self.id(record);
            if !images.iter().any(|i| i.id == id) {
                let pinned = self.pinned.iter().any(|p| digest(config_of(*p)) == id);
                images.push(HeldImage {
                    id: id.clone(),
                    names: Vec::new(),
                    pinned,
                });
            }
            let image = images.iter_mut().find(|i| i.id == id).unwrap();
            if record.name != id {
                image.names.push(record.name.clone());
            }
        }
        NodeContents {
            images,
            records: Some(self.records.clone()),
            containers: self.containers.clone(),
        }
    }

    fn cri_only(&self) -> NodeContents {
        NodeContents {
            records: None,
            ..self.contents()
        }
    }

    fn carry_out(&mut self, plan: &RemovalPlan) {
        for step in &plan.steps {
            match &step.act {
                RemovalAct::RemoveImage => {
                    let node = self.clone();
                    self.records.retain(|r| node.id(r) != step.image);
                }
                RemovalAct::DeleteRecords { records, .. } => {
                    for (name, target) in records {
                        self.records.retain(|r| r.name != *name || r.target != *target);
                    }
                }
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.records.iter().map(|r| r.name.as_str()).collect()
    }
}

fn entry(reference: &str, target: Option<u8>) -> PurgeEntry {
    PurgeEntry {
        reference: reference.to_owned(),
        digest: target.map(digest),
        claimed_at: at(HOUR),
        all: false,
    }
}

fn all(entry: PurgeEntry) -> PurgeEntry {
    PurgeEntry { all: true, ..entry }
}

fn outcomes(plan: &RemovalPlan) -> Vec<Outcome> {
    plan.outcomes.iter().map(|o| o.outcome).collect()
}

fn purge(node: &mut Node, entries: &[PurgeEntry]) -> Vec<Outcome> {
    let plan = decide(entries, &[], &node.contents());
    node.carry_out(&plan);
    outcomes(&plan)
}

const WEB: &str = "docker.io/library/web";
const APP: &str = "registry.example:5000/team/app";
