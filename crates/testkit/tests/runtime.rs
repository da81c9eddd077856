//! The fake runtime behaves as the real one, as far as the conformance function looks.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use larder_testkit::runtime::{ConformanceImages, FakeImage, FakeRuntime, Serves, Speed, conformance};

#[tokio::test]
async fn the_fake_runtime_conforms() {
    conforms(false).await;
}

#[tokio::test]
async fn the_fake_runtime_conforms_without_the_layers_that_it_has_unpacked() {
    conforms(true).await;
}

async fn conforms(discard_unpacked_layers: bool) {
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
        large: "registry.example:5000/a/large:1".into(),
        missing: "registry.example:5000/a/missing:1".into(),
    };
    for tag in &images.tags {
        fake.model()
            .publish(tag, &FakeImage::with_layers("web", &[20_000, 30_000]));
    }
    let large = FakeImage::with_layers("large", &[30_000_000; 5]).behind("large");
    fake.model().publish(&images.large, &large);
    fake.model().discard_unpacked_layers = discard_unpacked_layers;
    fake.model().speed = Speed {
        step: 5 << 20,
        every: Duration::from_millis(5),
    };
    fake.model().publish(&images.other, &FakeImage::new("other"));
    conformance(fake.path(), &images).await.unwrap();
    conformance(fake.path(), &images).await.unwrap();
    assert_eq!(fake.model().names(), Vec::<String>::new());
}
