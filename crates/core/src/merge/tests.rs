use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use larder_api::ImageCacheRevision;
use larder_api::image_cache::{PrivateImages, Removal};
use larder_api::names::Reason;
use larder_api::node_image_cache::{AgentStatus, ImageState, NodeImageCacheStatus, NodeState};
use larder_api::revision::RevisionBody;

use super::*;
use crate::pull::bits;

/// A node with one claim on revision `r`: images a and b for an agent, p with credentials.
struct Case {
    claim: CacheClaim,
    revisions: Vec<ImageCacheRevision>,
    object: NodeImageCache,
    presence: Agent,
}

/// State, images held, images wanted, missing bits, revisions held.
type Told = (NodeState, i32, i32, String, Vec<String>);

const WAITING: Agent = Agent::Waiting {
    until: Timestamp::MAX,
};

fn at(seconds: i64) -> Time {
    Time(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds))
}

fn revision(name: &str, images: &[&str]) -> ImageCacheRevision {
    let image = |name: &&str| RevisionImage {
        image: (*name).to_owned(),
        digest: Some(format!("sha256:{name}")),
        private: name.starts_with('p'),
        ..RevisionImage::default()
    };
    ImageCacheRevision {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        spec: RevisionBody {
            number: 1,
            spec: ImageCacheRevisionSpec {
                images: images.iter().map(image).collect(),
                pull_secrets: vec![],
            },
        },
    }
}

/// An entry that counts those images of a, b, p that are not `-`, and holds those in capitals.
fn entry(images: &str, state: NodeState, held: &[&str]) -> CacheOnNode {
    let counted = images.chars().filter(|c| *c != '-');
    let ready = images.chars().filter(char::is_ascii_uppercase);
    CacheOnNode {
        namespace: "ns".into(),
        name: "c".into(),
        uid: "c".into(),
        revision: "r".into(),
        state,
        total: counted.count() as i32,
        ready: ready.count() as i32,
        missing: bits::encode(
            &images
                .chars()
                .map(|c| !c.is_ascii_uppercase())
                .collect::<Vec<_>>(),
        ),
        held: held.iter().map(|h| (*h).to_owned()).collect(),
        since: Some(at(100)),
        checked_at: (state == NodeState::Ready).then(|| at(100)),
        ..CacheOnNode::default()
    }
}

fn block(entry: CacheOnNode) -> PullerStatus {
    PullerStatus {
        node_uid: "n".into(),
        caches: vec![entry],
        ..PullerStatus::default()
    }
}

impl Case {
    fn new(presence: Agent, agent: Option<CacheOnNode>, kubelet: Option<CacheOnNode>) -> Self {
        let mut object = NodeImageCache::default();
        object.spec.node_uid = "n".into();
        object.status = Some(NodeImageCacheStatus {
            kubelet: kubelet.map(block),
            agent: agent.map(|entry| AgentStatus {
                puller: block(entry),
                ..AgentStatus::default()
            }),
        });
        Self {
            claim: CacheClaim {
                namespace: "ns".into(),
                name: "c".into(),
                uid: "c".into(),
                revision: "r".into(),
                desired: Desired::Present,
                remove_revisions: vec![],
                claimed_at: at(50),
                assigned_at: at(50),
                removal: Removal::Retain,
                verify_after: None,
                puller: Puller::Auto,
                private_images: PrivateImages::Kubelet,
                service_account: false,
                overrides: None,
            },
            revisions: vec![revision("r", &["a", "b", "p"])],
            object,
            presence,
        }
    }

    fn of(mut self, revisions: Vec<ImageCacheRevision>) -> Self {
        self.revisions = revisions;
        self
    }

    fn puller(mut self, puller: Puller) -> Self {
        self.claim.puller = puller;
        self
    }

    fn absent(mut self) -> Self {
        self.claim.desired = Desired::Absent;
        self
    }

    fn with<T>(&self, f: impl FnOnce(Blocks<'_>, &Revisions<'_>) -> T) -> T {
        let name = |r: &ImageCacheRevision| r.metadata.name.clone().unwrap();
        let names: Vec<String> = self.revisions.iter().map(name).collect();
        let revisions = names
            .iter()
            .zip(&self.revisions)
            .map(|(n, r)| (("ns", n.as_str()), r))
            .collect();
        f(Blocks::of(&self.object, self.presence), &revisions)
    }

    fn view(&self) -> Option<CacheOnNode> {
        self.with(|blocks, revisions| blocks.view(&self.claim, revisions).on_node.map(Cow::into_owned))
    }

    fn told(&self) -> Option<Told> {
        self.view()
            .map(|v| (v.state, v.ready, v.total, v.missing, v.held))
    }
}

fn told(state: NodeState, ready: i32, total: i32, missing: &str, held: &[&str]) -> Option<Told> {
    let held: Vec<String> = held.iter().map(|h| (*h).to_owned()).collect();
    (state, ready, total, missing.to_owned(), held).into()
}

#[test]
fn each_image_is_the_word_of_its_puller() {
    use NodeState::{Failed, Pulling, Ready};
    let cases = [
        (
            (entry("AB-", Ready, &["r"]), entry("--P", Ready, &["r"])),
            told(Ready, 3, 3, "", &["r"]),
        ),
        (
            (entry("AB-", Ready, &["r"]), entry("--p", Pulling, &[])),
            told(Pulling, 2, 3, "2", &[]),
        ),
        (
            (entry("Ab-", Failed, &[]), entry("--P", Ready, &["r"])),
            told(Failed, 2, 3, "4", &[]),
        ),
        (
            (entry("Ab-", Failed, &[]), entry("--p", Pulling, &[])),
            told(Pulling, 1, 3, "6", &[]),
        ),
    ];
    for ((agent, kubelet), expected) in cases {
        let case = Case::new(Agent::Alive, Some(agent), Some(kubelet));
        assert_eq!(case.told(), expected, "{:?}", case.object.status);
    }
}

#[test]
fn what_the_kubelet_brought_stands_until_the_agent_has_spoken() {
    let whole = || Some(entry("ABP", NodeState::Ready, &["r"]));
    let ready = told(NodeState::Ready, 3, 3, "", &["r"]);
    for presence in [Agent::Absent, WAITING, Agent::Alive] {
        assert_eq!(Case::new(presence, None, whole()).told(), ready, "{presence:?}");
    }
    let spoken = Case::new(Agent::Alive, Some(entry("Ab-", NodeState::Pulling, &[])), whole());
    assert_eq!(spoken.told(), told(NodeState::Pulling, 2, 3, "4", &[]));
}

#[test]
fn what_the_agent_brought_stands_until_the_kubelet_has_taken_over() {
    let agents = || Some(entry("AB-", NodeState::Ready, &["r"]));
    let kubelets = || Some(entry("--P", NodeState::Ready, &["r"]));
    let ready = told(NodeState::Ready, 3, 3, "", &["r"]);
    for presence in [Agent::Absent, WAITING, Agent::Alive] {
        assert_eq!(
            Case::new(presence, agents(), kubelets()).told(),
            ready,
            "{presence:?}"
        );
    }
    let taken_over = Case::new(
        Agent::Absent,
        agents(),
        Some(entry("aBP", NodeState::Pulling, &[])),
    );
    assert_eq!(taken_over.told(), told(NodeState::Pulling, 2, 3, "8", &[]));
    // Of an earlier claim, whose images may be gone.
    let mut later = Case::new(Agent::Absent, agents(), None);
    (later.claim.claimed_at, later.claim.assigned_at) = (at(200), at(200));
    assert_eq!(later.told(), None);
    // A Job removed what the agent had brought.
    let purged = Case::new(Agent::Absent, agents(), Some(entry("", NodeState::Purged, &[])));
    assert_eq!(purged.told().map(|t| t.0), Some(NodeState::Purged));
}

#[test]
fn a_revision_that_one_of_the_two_held_in_part_is_not_held() {
    let revisions = || {
        vec![
            revision("r", &["a", "b", "p"]),
            revision("s", &["a", "q", "p1"]),
            revision("t", &["p"]),
        ]
    };
    let kubelet = || Some(entry("--P", NodeState::Ready, &["r", "s", "t"]));
    let both = Case::new(
        Agent::Alive,
        Some(entry("AB-", NodeState::Ready, &["r"])),
        kubelet(),
    )
    .of(revisions());
    assert_eq!(both.view().unwrap().held, ["r", "t"]);
    // What the operator names was whole when it was written, whoever brought it.
    let alone = Case::new(
        Agent::Absent,
        None,
        Some(entry("ABP", NodeState::Ready, &["r", "s"])),
    )
    .of(revisions());
    assert_eq!(alone.view().unwrap().held, ["r", "s"]);
    // Its own part of the revision in work counts too, beside the agent's.
    let part = Case::new(
        Agent::Alive,
        Some(entry("AB-", NodeState::Ready, &["r"])),
        Some(entry("--P", NodeState::Ready, &[])),
    );
    assert_eq!(part.view().unwrap().held, ["r"]);
}

#[test]
fn without_an_agent_what_only_an_agent_may_pull_waits_and_says_so() {
    let case = |agent, kubelet| Case::new(Agent::Absent, agent, kubelet).puller(Puller::Agent);
    for agent in [None, Some(entry("Ab-", NodeState::Pulling, &[]))] {
        for kubelet in [None, Some(entry("--P", NodeState::Ready, &["r"]))] {
            let pulls = kubelet.is_none();
            let said = case(agent.clone(), kubelet).view().unwrap();
            let expected = if pulls {
                // The kubelet's part has not begun yet.
                (NodeState::Pulling, "", 3)
            } else {
                (NodeState::Waiting, NO_AGENT, 3)
            };
            let is = (said.state, said.message.as_str(), said.total);
            assert_eq!(is, expected);
        }
    }
    let whole = case(
        Some(entry("AB-", NodeState::Ready, &["r"])),
        Some(entry("--P", NodeState::Ready, &["r"])),
    );
    assert_eq!(whole.told(), told(NodeState::Ready, 3, 3, "", &["r"]));
    // Jobs have removed since the agent spoke.
    let purged = case(
        Some(entry("AB-", NodeState::Ready, &["r"])),
        Some(entry("---", NodeState::Purged, &[])),
    );
    assert_eq!(purged.view().map(|v| v.ready), Some(0));
}

#[test]
fn a_claim_is_purged_when_the_agent_says_so_and_no_pod_is_left() {
    let purged = || Some(entry("", NodeState::Purged, &[]));
    let state = |presence, agent, kubelet| {
        Case::new(presence, agent, kubelet)
            .absent()
            .view()
            .map(|v| v.state)
    };
    let present = || Some(entry("AB-", NodeState::Ready, &["r"]));
    let purging = || Some(entry("", NodeState::Purging, &[]));
    assert_eq!(state(Agent::Alive, purged(), None), Some(NodeState::Purged));
    assert_eq!(state(Agent::Alive, purged(), purging()), Some(NodeState::Purging));
    assert_eq!(state(Agent::Alive, present(), purged()), Some(NodeState::Purging));
    assert_eq!(state(Agent::Absent, purged(), None), Some(NodeState::Purged));
    assert_eq!(
        state(Agent::Absent, present(), purging()),
        Some(NodeState::Purging)
    );
    // The agent went before this removal was asked for.
    let mut later = Case::new(Agent::Absent, purged(), None).absent();
    later.claim.assigned_at = at(200);
    assert_eq!(later.view(), None);
    // Both removed something.
    let mut both = Case::new(Agent::Alive, purged(), purged()).absent();
    let status = both.object.status.as_mut().unwrap();
    status.kubelet.as_mut().unwrap().caches[0].removed = 2;
    status.agent.as_mut().unwrap().puller.caches[0].removed = 3;
    assert_eq!(both.view().unwrap().removed, 5);
}

#[test]
fn the_list_of_images_names_each_once() {
    let mut case = Case::new(
        Agent::Alive,
        Some(entry("ab-", NodeState::Failed, &[])),
        Some(entry("--p", NodeState::Failed, &[])),
    );
    let image = |name: &str, reason| ImageOnNode {
        cache: "ns/c".into(),
        image: name.into(),
        state: ImageState::Failed,
        reason: Some(reason),
        ..ImageOnNode::default()
    };
    let status = case.object.status.as_mut().unwrap();
    // What is not one's own is left from before.
    let all = |reason| ["a", "b", "p"].map(|name| image(name, reason)).to_vec();
    status.agent.as_mut().unwrap().puller.images = all(Reason::NotFound);
    status.kubelet.as_mut().unwrap().images = all(Reason::Timeout);
    let mut listed = case.with(|blocks, revisions| {
        let images = blocks.images(&case.claim, revisions);
        images
            .iter()
            .map(|i| (i.image.clone(), i.reason))
            .collect::<Vec<_>>()
    });
    listed.sort();
    let expected = [
        ("a", Reason::NotFound),
        ("b", Reason::NotFound),
        ("p", Reason::Timeout),
    ];
    assert_eq!(
        listed,
        expected.map(|(name, reason)| (name.to_owned(), Some(reason)))
    );
}
