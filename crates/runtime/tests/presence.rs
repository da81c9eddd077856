//! What the client says of images that are whole, half there, or there by name only.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use larder_api::names::{PINNED_LABEL, PULLED_LABEL};
use larder_api::node_image_cache::Capability;
use larder_core::agent::{Disk, ImageObserved, Observed};
use larder_runtime::proto::cri::ContainerState;
use larder_runtime::{Contents, Manifests, Runtime, RuntimeClient, Timeouts, observed};
use larder_testkit::runtime::{Call, FakeContainer, FakeImage, FakeRuntime, Fault, Serves};
use tempfile::TempDir;
use tonic::Code;

struct Node {
    runtime: FakeRuntime,
    client: RuntimeClient,
    manifests: Manifests,
    _folder: TempDir,
}

impl Node {
    async fn new(serves: Serves) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::start(&folder.path().join("c.sock"), serves)
            .await
            .unwrap();
        let client = RuntimeClient::connect(runtime.path(), Timeouts::default())
            .await
            .unwrap();
        Self {
            runtime,
            client,
            manifests: Manifests::default(),
            _folder: folder,
        }
    }

    fn pull(&self, reference: &str, image: &FakeImage) {
        let mut model = self.runtime.model();
        model.publish(reference, image);
        model.pull(reference).unwrap();
    }

    async fn contents(&mut self) -> Contents {
        Contents::observe(&self.client, &mut self.manifests)
            .await
            .unwrap()
    }

    async fn observed(&mut self) -> Observed {
        observed(&self.contents().await, None)
    }

    async fn image(&mut self, image: &FakeImage) -> ImageObserved {
        let images = self.observed().await.images;
        images.into_iter().find(|i| i.id == image.config).unwrap()
    }
}

fn tag(name: &str) -> String {
    format!("docker.io/library/{name}")
}

#[tokio::test]
async fn an_image_is_told_with_its_names_marks_and_layers() {
    let mut node = Node::new(Serves::Containerd).await;
    let web = FakeImage::with_layers("web", &[10, 20]).behind("web");
    node.pull("web:1", &web);
    node.pull("registry.example/web:2", &web);
    let marks = [(PINNED_LABEL, "true"), (PULLED_LABEL, "2026-01-01T00:00:00Z")];
    let labels: BTreeMap<String, String> = marks.map(|(k, v)| (k.into(), v.into())).into();
    let records = node.client.records().unwrap();
    records.set_labels(&web.config, &labels).await.unwrap();
    node.runtime.model().containers.push(FakeContainer {
        id: "c".into(),
        image_id: web.config.clone(),
        state: ContainerState::ContainerRunning,
        mounts: Vec::new(),
    });
    let contents = node.contents().await;
    assert_eq!(contents.images[0].targets[&web.manifest].layers, web.layers);
    let disk = Disk { total: 2, free: 1 };
    let observed = observed(&contents, Some(disk));
    let expected = ImageObserved {
        id: web.config.clone(),
        tags: [tag("web:1"), "registry.example/web:2".into()]
            .map(|tag| (tag, Some(web.manifest.clone())))
            .into(),
        targets: [web.manifest.clone()].into(),
        complete: true,
        pinned: false,
        pinned_by_us: true,
        pulled_by_us: true,
        used: true,
    };
    assert_eq!(observed.images, [expected]);
    assert_eq!(observed.disk, Some(disk));
    assert_eq!(
        observed.capabilities,
        [Capability::Content, Capability::Pin, Capability::Progress]
    );
}

#[tokio::test]
async fn images_are_used_by_the_containers_that_have_not_ended_and_by_their_mounts() {
    let mut node = Node::new(Serves::Containerd).await;
    let [web, data] = ["web", "data"].map(FakeImage::new);
    node.pull("web:1", &web);
    node.pull("data:1", &data);
    node.runtime.model().containers.push(FakeContainer {
        id: "c".into(),
        image_id: web.config.clone(),
        state: ContainerState::ContainerRunning,
        mounts: vec!["data:1".into()],
    });
    assert!(node.image(&web).await.used && node.image(&data).await.used);
    node.runtime.fault(
        Call::ContainerStatus,
        Fault::Fail(Code::Internal, "asked again".into()),
    );
    assert!(node.image(&data).await.used);
    node.runtime.model().end_container("c");
    assert!(!node.image(&web).await.used && !node.image(&data).await.used);
}

#[tokio::test]
async fn an_image_is_incomplete_without_any_of_its_documents() {
    let mut node = Node::new(Serves::Containerd).await;
    let web = FakeImage::new("web").behind("web");
    for missing in [&web.manifest, &web.image_manifest, &web.config] {
        node.pull("web:1", &web);
        assert!(node.image(&web).await.complete);
        node.runtime.model().lose_content(missing);
        let image = node.image(&web).await;
        assert!(!image.complete, "without {missing}");
        assert!(image.tags.contains_key(&tag("web:1")), "the name is still there");
        assert!(node.client.image("web:1").await.unwrap().is_some(), "CRI lies");
    }
}

#[tokio::test]
async fn layers_are_needed_only_where_no_snapshot_is_kept() {
    let mut node = Node::new(Serves::Containerd).await;
    let web = FakeImage::new("web");
    node.pull("web:1", &web);
    node.runtime.model().lose_content(&web.layers[0].digest);
    assert!(node.image(&web).await.complete);
    node.runtime.fault(
        Call::ListSnapshots,
        Fault::Fail(
            Code::InvalidArgument,
            "snapshotter not loaded: overlayfs: invalid argument".into(),
        ),
    );
    assert!(!node.image(&web).await.complete);
}

#[tokio::test]
async fn what_a_restarted_runtime_does_not_list_is_incomplete() {
    let mut node = Node::new(Serves::Containerd).await;
    let web = FakeImage::new("web");
    node.pull("web:1", &web);
    node.runtime.model().lose_content(&web.manifest);
    node.runtime.stop().await.unwrap();
    node.client.images().await.unwrap_err();
    node.runtime.serve().await.unwrap();
    assert!(node.client.image("web:1").await.unwrap().is_none());
    assert!(!node.image(&web).await.complete);
    node.pull("web:1", &web);
    assert!(node.image(&web).await.complete);
}

#[tokio::test]
async fn a_broken_target_does_not_hide_a_whole_one_of_the_same_image() {
    let mut node = Node::new(Serves::Containerd).await;
    let plain = FakeImage::new("web");
    let indexed = plain.behind("web");
    node.pull("web:1", &indexed);
    node.pull("web:2", &plain);
    let both = node.image(&plain).await;
    assert_eq!(both.targets.len(), 2);
    assert_eq!(both.tags[&tag("web:1")], Some(indexed.manifest.clone()));
    node.runtime.model().lose_content(&indexed.manifest);
    let image = node.image(&plain).await;
    assert!(image.complete);
    assert_eq!(image.targets, [plain.manifest.clone()].into());
    assert_eq!(image.tags, [(tag("web:2"), Some(plain.manifest))].into());
}

#[tokio::test]
async fn manifests_are_read_once() {
    let mut node = Node::new(Serves::Containerd).await;
    let web = FakeImage::new("web").behind("web");
    node.pull("web:1", &web);
    let before = node.contents().await;
    node.runtime.fault(
        Call::ContentRead,
        Fault::Fail(Code::Internal, "read again".into()),
    );
    assert_eq!(node.contents().await, before);
    node.pull("other:1", &FakeImage::new("other"));
    let error = Contents::observe(&node.client, &mut node.manifests).await;
    assert!(error.unwrap_err().to_string().contains("read again"));
}

#[tokio::test]
async fn cri_alone_is_believed_and_gives_digests_where_there_is_no_doubt() {
    let mut node = Node::new(Serves::CriOnly).await;
    let web = FakeImage::new("web");
    node.pull("web:1", &web);
    node.runtime.model().lose_content(&web.manifest);
    let observed = node.observed().await;
    assert_eq!(observed.capabilities, []);
    let image = &observed.images[0];
    assert!(image.complete && !image.pulled_by_us);
    assert_eq!(image.tags, [(tag("web:1"), Some(web.manifest.clone()))].into());
    node.pull("web:2", &web.behind("web"));
    let image = node.image(&web).await;
    assert_eq!(image.targets.len(), 2);
    assert_eq!(image.tags, [(tag("web:1"), None), (tag("web:2"), None)].into());
    // Another repository's digest of the same content raises no doubt.
    node.pull("copy:1", &web.behind("copy"));
    let image = node.image(&web).await;
    assert_eq!(image.targets.len(), 3);
    assert_eq!(image.tags[&tag("copy:1")], Some(web.behind("copy").manifest));
    assert_eq!(image.tags[&tag("web:1")], None);
}
