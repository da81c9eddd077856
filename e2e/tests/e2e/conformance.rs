//! A node's containerd passes the very function that the fake runtime passes in testkit's own tests.

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use larder_testkit::runtime::{ConformanceImages, conformance};

use crate::support::Env;

#[tokio::test]
async fn containerd_and_the_fake_runtime_behave_alike() {
    let env = Env::shared().await;
    let shared = ImageSpec::new(950).layers(2, 20_000);
    env.push(Open, &shared, "conformance/image", "1").await;
    env.push(Open, &shared, "conformance/image", "2").await;
    env.push(
        Open,
        &ImageSpec::new(951).layers(1, 20_000),
        "conformance/other",
        "1",
    )
    .await;
    env.push(
        Open,
        &ImageSpec::new(952).layers(4, 30_000_000),
        "conformance/large",
        "1",
    )
    .await;
    let image = |name: &str| format!("quay.io/conformance/{name}");
    let images = ConformanceImages {
        tags: [image("image:1"), image("image:2")],
        other: image("other:1"),
        large: image("large:1"),
        missing: image("missing:1"),
    };
    let node = env.nodes().remove(0);
    let socket = env.cluster.node(&node).unwrap().containerd_socket().unwrap();
    conformance(&socket, &images).await.unwrap();
}
