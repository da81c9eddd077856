//! What can go wrong on command.

use std::collections::BTreeMap;
use std::fmt;

use tonic::{Code, Status};

use super::Shared;
use super::model::Model;

/// Calls of the two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "they are the names of the calls")]
pub enum Call {
    Version,
    ListContainers,
    ContainerStatus,
    ListImages,
    ImageStatus,
    PullImage,
    RemoveImage,
    ImageFsInfo,
    ContainerdVersion,
    ListRecords,
    GetRecord,
    UpdateRecord,
    DeleteRecord,
    ContentInfo,
}

/// How a call goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is never answered.
    Hang,
    /// It is refused.
    Fail(Code, String),
}

type Change = Box<dyn FnOnce(&mut Model) + Send>;

#[derive(Default)]
pub(super) struct Faults {
    /// The fault and how many calls are still answered before it.
    faults: BTreeMap<Call, (usize, Fault)>,
    changes: BTreeMap<Call, Vec<Change>>,
}

impl Faults {
    pub(super) fn set(&mut self, call: Call, answered: usize, fault: Fault) {
        self.faults.insert(call, (answered, fault));
    }

    fn next(&mut self, call: Call) -> Option<Fault> {
        let (answered, fault) = self.faults.get_mut(&call)?;
        if *answered > 0 {
            *answered -= 1;
            return None;
        }
        Some(fault.clone())
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(super) fn before_next(&mut self, call: Call, change: Change) {
        self.changes.entry(call).or_default().push(change);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Every call passes here first.
    pub(super) async fn enter(&self, call: Call) -> Result<(), Status> {
        let (fault, changes) = {
            let mut faults = self.faults();
            (
                faults.next(call),
                faults.changes.remove(&call).unwrap_or_default(),
            )
        };
        for change in changes {
            change(&mut self.model());
        }
        match fault {
            None => Ok(()),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Fail(code, message)) => Err(Status::new(code, message)),
        }
    }
}
