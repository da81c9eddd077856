//! The process of an agent: what it remembers, its pulls and its removals. It ends with all of them.

use jiff::Timestamp;
use larder_core::agent::{Memory, PullOrder, PullResult, RemoveOrder, RunningPull};

use super::objects::{MIB, id_of};
use super::removal::{Removal, Step};
use super::runtime::Runtime;

/// What one pull brings in a second.
pub const SPEED: i64 = 10 * MIB;

/// A removal at work.
#[derive(Debug)]
pub struct Removing {
    pub order: RemoveOrder,
    /// Number of the spec by which it was ordered, over all objects of the node.
    pub spec: i64,
    removal: Removal,
}

/// What one step of a removal took.
#[derive(Debug)]
pub struct Went {
    /// Of [`Removing::spec`].
    pub spec: i64,
    pub names: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Process {
    pub memory: Memory,
    pub pulls: Vec<RunningPull>,
    pub removing: Vec<Removing>,
    pub written_at: Option<Timestamp>,
}

impl Process {
    pub fn begin_pull(&mut self, now: Timestamp, order: &PullOrder) {
        self.pulls.push(RunningPull {
            order: order.clone(),
            started_at: now,
            bytes_done: 0,
            bytes_total: order.bytes,
        });
    }

    /// One at most for each cache.
    pub fn begin_removal(&mut self, order: &RemoveOrder, spec: i64) {
        if self.removing.iter().all(|r| r.order.cache_uid != order.cache_uid) {
            self.removing.push(Removing {
                order: order.clone(),
                spec,
                removal: Removal::new(&order.entries, &order.keep),
            });
        }
    }

    pub fn orders(&self) -> Vec<RemoveOrder> {
        self.removing.iter().map(|r| r.order.clone()).collect()
    }

    pub fn arriving(&self) -> i64 {
        self.pulls.iter().map(|p| p.bytes_done).sum()
    }

    /// Pulls go on for so many seconds. Returns those that are through, which are not told yet.
    pub fn advance(&mut self, seconds: i64) -> Vec<RunningPull> {
        for pull in &mut self.pulls {
            pull.bytes_done = (pull.bytes_done + SPEED * seconds).min(pull.bytes_total);
        }
        let through = |p: &mut RunningPull| p.bytes_done >= p.bytes_total;
        self.pulls.extract_if(.., through).collect()
    }

    /// A pull brought what it was to bring.
    pub fn finish(&mut self, now: Timestamp, pull: RunningPull, digest: &str, runtime: &mut Runtime) {
        let order = pull.order;
        let new = !runtime.images.contains_key(&id_of(digest));
        runtime.arrive(now, &order.image, digest, order.tag.is_some(), order.bytes, new);
        if order.pin {
            let stored = runtime.images.get_mut(&id_of(digest)).unwrap();
            (stored.pinned, stored.pinned_by_us) = (true, true);
        }
        self.memory.pulled(&PullResult {
            order,
            started_at: pull.started_at,
            ended_at: now,
            outcome: Ok(()),
        });
    }

    /// Removals cannot be carried out, in these words.
    pub fn give_up(&mut self, now: Timestamp, words: &str) {
        for Removing { order, .. } in std::mem::take(&mut self.removing) {
            let report = Err(words.to_owned());
            self.memory.removed(&order.cache_uid, &order.work, now, report);
        }
    }

    /// Each removal goes on by one image. Returns what went.
    pub fn remove(&mut self, now: Timestamp, runtime: &mut Runtime) -> Vec<Went> {
        let mut went = Vec::new();
        for mut at_work in std::mem::take(&mut self.removing) {
            match at_work.removal.step(runtime) {
                Step::Over(report) => {
                    let order = at_work.order;
                    self.memory
                        .removed(&order.cache_uid, &order.work, now, Ok(report));
                }
                Step::Went(names) => {
                    went.push(Went {
                        spec: at_work.spec,
                        names,
                    });
                    self.removing.push(at_work);
                }
            }
        }
        went
    }
}
