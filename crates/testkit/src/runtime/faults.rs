//! What can go wrong on command.

use std::collections::BTreeMap;
use std::fmt;

use larder_core::image_ref::ImageRef;
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
    CreateRecord,
    UpdateRecord,
    DeleteRecord,
    ContentInfo,
    ContentList,
    ContentRead,
    ContentDelete,
    ContentStatuses,
    ListSnapshots,
    Subscribe,
}

/// How a call goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is never answered.
    Hang,
    /// It is refused.
    Fail(Code, String),
}

impl Fault {
    /// As containerd fails when the file system of the images is full.
    pub fn no_space() -> Self {
        let words = "failed to pull and unpack image \"it\": failed to copy: write \
            /var/lib/containerd/io.containerd.content.v1.content/ingest/0/data: no space left on device";
        Self::Fail(Code::Unknown, words.to_owned())
    }

    /// As containerd fails when a registry or mirror sends other bytes than it was asked for.
    pub fn wrong_bytes() -> Self {
        let words = "failed to pull and unpack image \"it\": failed commit on ref: unexpected commit digest, expected other: \
            failed precondition";
        Self::Fail(Code::FailedPrecondition, words.to_owned())
    }
}

type Change = Box<dyn FnOnce(&mut Model) + Send>;

#[derive(Default)]
pub(super) struct Faults {
    /// The fault and how many calls are still answered before it.
    calls: BTreeMap<Call, (usize, Fault)>,
    changes: BTreeMap<Call, Vec<Change>>,
    /// By repository: pulls of it fail once they have fetched this many bytes.
    pulls: BTreeMap<String, (u64, Fault)>,
}

impl Faults {
    pub(super) fn set(&mut self, call: Call, answered: usize, fault: Fault) {
        self.calls.insert(call, (answered, fault));
    }

    fn next(&mut self, call: Call) -> Option<Fault> {
        let (answered, fault) = self.calls.get_mut(&call)?;
        if *answered > 0 {
            *answered -= 1;
            return None;
        }
        Some(fault.clone())
    }

    pub(super) fn set_pull(&mut self, repository: &str, bytes: u64, fault: Fault) {
        self.pulls.insert(repository.to_owned(), (bytes, fault));
    }

    /// After how many bytes the pull of a reference goes wrong, and how.
    pub(super) fn pull(&self, reference: &str) -> Option<(u64, Fault)> {
        let reference = ImageRef::parse(reference).ok()?;
        self.pulls.get(reference.name()).cloned()
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.pulls.clear();
    }

    pub(super) fn before_next(&mut self, call: Call, change: Change) {
        self.changes.entry(call).or_default().push(change);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("calls", &self.calls)
            .field("pulls", &self.pulls)
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
            Some(fault) => self.suffer(fault).await,
        }
    }

    /// Hangs until the runtime stops, or fails.
    pub(super) async fn suffer<T>(&self, fault: Fault) -> Result<T, Status> {
        match fault {
            Fault::Hang => Err(self.stopped().await),
            Fault::Fail(code, message) => Err(Status::new(code, message)),
        }
    }

    /// Waits until the runtime stops, and answers what calls at work are told then.
    pub(super) async fn stopped(&self) -> Status {
        let mut stops = self.stops.subscribe();
        // The sender is `self`: it is not dropped meanwhile.
        let _ = stops.changed().await;
        Status::unavailable("transport is closing")
    }
}
