//! The fake runtime behaves as the real one, as far as the conformance function looks.

#![allow(clippy::unwrap_used)]

use larder_testkit::runtime::{ConformanceImages, FakeImage, FakeRuntime, Serves, conformance};

#[tokio::test]
async fn the_fake_runtime_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeRuntime::start(&folder.path().join("containerd.sock"), Serves::Containerd)
        .await
        .unwrap();
    let images = ConformanceImages {
        tags: [
            "registry.example:5000/a/web:1".into(),
            "registry.example:5000/a/web:2".into(),
        ],
        other: "other:1".into(),
        missing: "registry.example:5000/a/missing:1".into(),
    };
    for tag in &images.tags {
        fake.model().publish(tag, &FakeImage::new("web"));
    }
    fake.model().publish(&images.other, &FakeImage::new("other"));
    conformance(fake.path(), &images).await.unwrap();
    conformance(fake.path(), &images).await.unwrap();
    assert_eq!(fake.model().names(), Vec::<String>::new());
}
