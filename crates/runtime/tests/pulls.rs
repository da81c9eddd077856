//! Pulls that advance, fail, hang and are given up, and what the client sees of them.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use larder_runtime::proto::cri::ContainerState;
use larder_runtime::{
    Contents, Manifests, Progress, PullProgress, Records, Runtime, RuntimeClient, RuntimeEvent, Timeouts,
};
use larder_testkit::runtime::{Call, FakeContainer, FakeImage, FakeRuntime, Fault, Serves, Speed};
use tempfile::TempDir;
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_mins(1);
/// Ten of them make a pull.
const STEP: Duration = Duration::from_millis(20);
const WEB: &str = "docker.io/library/web";

struct Node {
    runtime: FakeRuntime,
    client: RuntimeClient,
    web: FakeImage,
    _folder: TempDir,
}

impl Node {
    /// Serves an image of two layers of 100 and 50 bytes, 10 bytes of each a step.
    async fn new(step: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::start(&folder.path().join("c.sock"), Serves::Containerd)
            .await
            .unwrap();
        let client = RuntimeClient::connect(runtime.path(), Timeouts::default())
            .await
            .unwrap();
        let web = FakeImage::with_layers("web", &[100, 50]).behind("web");
        runtime.model().publish("web:1", &web);
        runtime.model().speed = Speed {
            step: 10,
            every: step,
        };
        Self {
            runtime,
            client,
            web,
            _folder: folder,
        }
    }

    fn records(&self) -> &dyn Records {
        self.client.records().unwrap()
    }

    async fn pull(&self) -> Result<String, String> {
        let pulled = self.client.pull("web:1", None, MINUTE).await;
        pulled.map_err(|error| error.to_string())
    }

    fn progress(&self) -> PullProgress {
        PullProgress::new(&self.web.manifest, "linux", architecture())
    }

    async fn look(&self, progress: &mut PullProgress) -> Option<Progress> {
        progress.look(self.client.content().unwrap()).await.unwrap()
    }

    /// Waits until this many bytes are there.
    async fn arrived(&self, bytes: u64) -> Progress {
        let mut progress = self.progress();
        loop {
            match self.look(&mut progress).await {
                Some(seen) if seen.bytes_done >= bytes => return seen,
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn ingests(&self) -> usize {
        self.client.content().unwrap().ingests().await.unwrap().len()
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

#[tokio::test]
async fn bytes_arrive_layer_by_layer() {
    let node = Node::new(STEP).await;
    let mut progress = node.progress();
    assert_eq!(node.look(&mut progress).await, None);
    let (pulled, seen) = tokio::join!(node.pull(), node.arrived(101));
    assert_eq!(pulled.unwrap(), node.web.config);
    assert_eq!(
        (seen.layers_done, seen.layers_total, seen.bytes_total),
        (1, 2, 150)
    );
    let done = node.look(&mut progress).await.unwrap();
    assert_eq!((done.layers_done, done.bytes_done), (2, 150));
}

#[tokio::test]
async fn a_pull_that_breaks_after_some_bytes_says_why_and_leaves_nothing() {
    let node = Node::new(Duration::ZERO).await;
    for (fault, words) in [
        (Fault::no_space(), "no space left on device"),
        (Fault::wrong_bytes(), "unexpected commit digest"),
    ] {
        node.runtime.fault_pull(WEB, 120, fault);
        let error = node.pull().await.unwrap_err();
        assert!(
            error.starts_with("PullImage: ") && error.contains(words),
            "{error}"
        );
        assert_eq!(node.ingests().await, 0);
        assert_eq!(node.runtime.model().names(), Vec::<String>::new());
        assert!(!node.runtime.model().has_content(&node.web.layers[1].digest));
    }
    node.runtime.heal();
    assert_eq!(node.pull().await.unwrap(), node.web.config);
}

#[tokio::test]
async fn a_pull_that_hangs_stays_where_it_is_until_it_is_given_up() {
    let node = Node::new(Duration::ZERO).await;
    node.runtime.fault_pull(WEB, 30, Fault::Hang);
    let given_up = async {
        node.arrived(30).await;
        sleep(Duration::from_millis(50)).await;
        node.look(&mut node.progress()).await.unwrap().bytes_done
    };
    tokio::select! {
        pulled = node.pull() => panic!("{pulled:?}"),
        bytes = given_up => assert_eq!(bytes, 30),
    }
    while node.ingests().await > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(!node.runtime.model().has_content(&node.web.manifest));
}

#[tokio::test]
async fn two_pulls_of_one_image_share_it_and_outlive_each_other() {
    let node = Node::new(STEP).await;
    let first = async {
        tokio::select! {
            pulled = node.pull() => panic!("{pulled:?}"),
            _ = node.arrived(20) => {}
        }
    };
    let by_digest = format!("{WEB}@{}", node.web.manifest);
    let ((), other) = tokio::join!(first, node.client.pull(&by_digest, None, MINUTE));
    assert_eq!(other.unwrap(), node.web.config);
    let model = node.runtime.model();
    assert!(
        node.web
            .layers
            .iter()
            .all(|layer| model.has_content(&layer.digest))
    );
}

#[tokio::test]
async fn a_restart_ends_pulls_and_events_and_both_can_be_had_again() {
    let mut node = Node::new(STEP).await;
    let client = node.client.clone();
    let mut events = client.events().unwrap().subscribe();
    let pull = tokio::spawn({
        let client = client.clone();
        async move { client.pull("web:1", None, MINUTE).await }
    });
    let listening = tokio::spawn(async move { (events.next().await, events.next().await) });
    node.arrived(10).await;
    node.runtime.stop().await.unwrap();
    pull.await.unwrap().unwrap_err();
    let (first, second) = listening.await.unwrap();
    first.unwrap_err();
    second.unwrap_err();
    client.images().await.unwrap_err();

    node.runtime.serve().await.unwrap();
    let left = node.look(&mut node.progress()).await.unwrap();
    assert!(left.bytes_done >= 10, "{left:?} was left to go on with");
    assert_eq!(node.pull().await.unwrap(), node.web.config);
    let mut events = client.events().unwrap().subscribe();
    let told = tokio::spawn(async move { events.next().await.unwrap() });
    sleep(Duration::from_millis(100)).await;
    node.runtime.model().remove("web:1");
    let RuntimeEvent::Image { name } = told.await.unwrap() else {
        panic!("not an image");
    };
    assert_eq!(name, format!("{WEB}:1"));
}

#[tokio::test]
async fn the_end_of_a_container_is_told() {
    let node = Node::new(Duration::ZERO).await;
    node.runtime.model().containers.push(FakeContainer {
        id: "c".into(),
        image_id: node.web.config.clone(),
        state: ContainerState::ContainerRunning,
        mounts: Vec::new(),
    });
    let mut events = node.client.events().unwrap().subscribe();
    let told = tokio::spawn(async move { events.next().await.unwrap() });
    sleep(Duration::from_millis(100)).await;
    node.runtime.model().end_container("c");
    assert_eq!(told.await.unwrap(), RuntimeEvent::Other);
}

#[tokio::test]
async fn a_tag_that_somebody_else_makes_meanwhile_is_moved() {
    let node = Node::new(Duration::ZERO).await;
    node.pull().await.unwrap();
    let other = FakeImage::new("other");
    node.runtime.model().publish("web:2", &other);
    let target = node.records().get(&format!("{WEB}:1")).await.unwrap().unwrap();
    node.runtime.before_next(Call::CreateRecord, |model| {
        model.pull("web:2").unwrap();
    });
    let name = format!("{WEB}:2");
    node.records().tag(&name, &target.to_target()).await.unwrap();
    let record = node.records().get(&name).await.unwrap().unwrap();
    assert_eq!(record.to_target(), target.to_target());
    let contents = Contents::observe(&node.client, &mut Manifests::default())
        .await
        .unwrap();
    let image = contents.images.iter().find(|i| i.id == node.web.config).unwrap();
    assert!(image.tags.contains_key(&name));
}

#[tokio::test]
async fn no_labels_are_no_change() {
    let node = Node::new(Duration::ZERO).await;
    node.pull().await.unwrap();
    let name = format!("{WEB}:1");
    let before = node.records().get(&name).await.unwrap();
    node.records().set_labels(&name, &[].into()).await.unwrap();
    assert_eq!(node.records().get(&name).await.unwrap(), before);
}
