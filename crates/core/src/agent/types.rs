//! What goes into the decision and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use larder_api::NodeImageCacheSpec;
use larder_api::names::Reason;
use larder_api::node_image_cache::{AgentStatus, Capability, PullerStatus, RuntimeOnNode};

use crate::node::Write;
use crate::plan::Revisions;
use crate::removal::{PurgeEntry, PurgeReport};

/// What the agent decides from.
#[derive(Debug)]
pub struct AgentInput<'a> {
    /// The moment.
    pub now: Timestamp,
    /// As in Go's GOOS.
    pub os: &'a str,
    /// As in Go's GOARCH.
    pub architecture: &'a str,
    /// UID of the agent's own pod; empty outside of a cluster.
    pub pod_uid: &'a str,
    /// What the node should hold.
    pub spec: &'a NodeImageCacheSpec,
    /// Generation of that.
    pub generation: i64,
    /// The revisions that could be read, of those that claims name (`revision`, `removeRevisions`) and those that the
    /// status calls `held`: what cannot be read is not called held.
    pub revisions: &'a Revisions<'a>,
    /// The status as last written, by this process or the one before it; none if it is about another node's UID.
    pub previous: Option<&'a AgentStatus>,
    /// What the operator wrote of the kubelet's part; none if it is about another node's UID.
    pub kubelet: Option<&'a PullerStatus>,
    /// When progress was last written, if this process knows.
    pub written_at: Option<Timestamp>,
    /// What the runtime holds; an error in words where it could not be asked.
    pub observed: Result<&'a Observed, &'a str>,
    /// Pulls at work.
    pub pulls: &'a [RunningPull],
    /// Removals at work.
    pub removing: &'a [RemoveOrder],
    /// Changes of the object are heard of. An agent that is cut off from the API server does not know what is wanted by
    /// now, and begins no removal.
    pub watching: bool,
    /// What earlier actions came to.
    pub memory: &'a Memory,
}

/// What the runtime holds at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Which runtime.
    pub runtime: RuntimeOnNode,
    /// What it lets the agent do, sorted.
    pub capabilities: Vec<Capability>,
    /// Every image, by image id.
    pub images: Vec<ImageObserved>,
    /// The file system of the images, where it could be looked at.
    pub disk: Option<Disk>,
}

/// One image, under all of its names.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct ImageObserved {
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// Normalised names with a tag. Each points at one of `targets`, but only [`Self::tags`] says at which.
    pub tags: BTreeMap<String, Option<String>>,
    /// Digests of the indexes and manifests under which the image is known.
    pub targets: BTreeSet<String>,
    /// All of its content is really there; true where the runtime does not let the agent look.
    pub complete: bool,
    /// The runtime says that it is pinned.
    pub pinned: bool,
    /// By [`larder_api::names::PINNED_LABEL`].
    pub pinned_by_us: bool,
    /// By [`larder_api::names::PULLED_LABEL`].
    pub pulled_by_us: bool,
    /// A container that has not ended was made from it or mounts it.
    pub used: bool,
}

/// The file system of the images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that can be used at all: used and free ones, without those reserved for root.
    pub total: u64,
    /// Bytes free for anybody.
    pub free: u64,
}

/// A pull at work.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningPull {
    /// What was ordered.
    pub order: PullOrder,
    /// When.
    pub started_at: Timestamp,
    /// Compressed bytes that have arrived; zero where the runtime does not tell.
    pub bytes_done: i64,
    /// Compressed bytes of the image, where known better than in the order.
    pub bytes_total: i64,
}

/// An image to pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullOrder {
    /// Normalised reference, as in the revision.
    pub image: String,
    /// The digest that must arrive; none where it was never resolved.
    pub digest: Option<String>,
    /// The manifest of this node's platform, where known: it may arrive in place of `digest`.
    pub manifest: Option<String>,
    /// The name with a tag that must point at it afterwards; none for references without one.
    pub tag: Option<String>,
    /// Compressed bytes; zero where unknown.
    pub bytes: i64,
    /// When it was asked for, by the clock of the API server: a failure of what was asked for since counts anew.
    pub asked_at: Timestamp,
    /// What the node's credential providers have for it may be used.
    pub credentials: bool,
    /// Pin it as soon as it is there.
    pub pin: bool,
    /// The whole attempt.
    pub attempt: Duration,
    /// Without a byte of progress.
    pub no_progress: Duration,
}

/// How a pull ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PullResult {
    /// What was ordered.
    pub order: PullOrder,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Whether the image is there, and is what was ordered.
    pub outcome: Result<(), PullFailure>,
}

/// Why a pull failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailure {
    /// The reason.
    pub reason: Reason,
    /// In the words of the registry or runtime, redacted.
    pub message: String,
}

/// Something to do. Each is safe to repeat.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Begin a pull.
    Pull(PullOrder),
    /// End the pull of this reference.
    Cancel(String),
    /// Point a name at content that is there already.
    Tag {
        /// Normalised name with a tag.
        name: String,
        /// Digest of an index or manifest that a record of the image already points at.
        target: String,
    },
    /// Pin the image with this id, or unpin what Larder pinned.
    Pin {
        /// Image id.
        id: String,
        /// Pin or unpin.
        pin: bool,
    },
    /// Remove images.
    Remove(RemoveOrder),
}

/// Images to remove for one claim.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoveOrder {
    /// UID of the claim's cache.
    pub cache_uid: String,
    /// Generation of the spec by which it was decided: a newer one may want what it takes.
    pub generation: i64,
    /// Hash of all that makes this removal what it is: its report is kept under it.
    pub work: String,
    /// What to remove.
    pub entries: Vec<PurgeEntry>,
    /// Normalised references that stay whatever the entries say.
    pub keep: Vec<String>,
}

/// What earlier actions came to: lost at a restart, when it is seeded from the last status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Failures in a row of each image, by reference and wanted digest.
    pub failures: BTreeMap<(String, Option<String>), Failed>,
    /// Images that were there and went without the agent's doing.
    pub vanished: BTreeMap<String, Vanished>,
    /// Images that were seen whole, by reference, with the digest.
    pub seen: BTreeMap<String, Option<String>>,
    /// The last removal of each claim, by UID of its cache.
    pub removals: BTreeMap<String, Removed>,
    /// [`PullOrder::asked_at`] of the last pull of each reference that was never resolved.
    pub pulled: BTreeMap<String, Timestamp>,
}

/// Failures of one image in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// How many.
    pub attempts: i32,
    /// When the last one was.
    pub at: Timestamp,
    /// [`PullOrder::asked_at`] of the last one.
    pub asked_at: Timestamp,
    /// Why.
    pub failure: PullFailure,
}

/// An image that went behind the agent's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vanished {
    /// How many times lately.
    pub times: i32,
    /// The last time.
    pub at: Timestamp,
}

/// A removal that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Removed {
    /// [`RemoveOrder::work`].
    pub work: String,
    /// When.
    pub at: Timestamp,
    /// What became of it, earlier runs of the same work included; an error in words where it could not be carried out.
    pub report: Result<PurgeReport, String>,
    /// A hash of what of it was still on the node when that was looked at next.
    pub left: Option<String>,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// What the status should say.
    pub status: AgentStatus,
    /// Whether and when to write it.
    pub write: Write,
    /// A removal is due that begins once `status` has been written: to be decided again then.
    pub awaits_write: bool,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
}
