//! The newest tags of a repository.

use larder_e2e::cluster::registry::RegistryKind::Open;
use larder_e2e::images::ImageSpec;
use serde_json::json;

use super::holds_exactly;
use crate::support::Env;

#[tokio::test]
async fn the_newest_tags_move_with_the_repository() {
    let env = Env::shared().await;
    let ns = env.namespace("source-tags").await;
    let repository = format!("{}/app", ns.name);
    let push = async |tag: &str| {
        let spec = ImageSpec::new(rand::random()).layers(1, 10_000);
        env.push(Open, &spec, &repository, tag).await;
    };
    for tag in ["1.0.0", "1.1.0", "1.2.0", "2.0.0", "latest"] {
        push(tag).await;
    }
    let whole = format!("{}/{repository}", env.registry(Open).host);
    let tags = json!({"repository": whole, "semver": "^1", "newest": 2});
    let cache = ns
        .cache(
            "tags",
            json!({"sources": [{"name": "tags", "registryTags": tags}]}),
        )
        .await;
    cache.ready(60).await;
    let tagged = |tag: &str| format!("{whole}:{tag}");
    holds_exactly(&ns, &cache, 5, &[&tagged("1.1.0"), &tagged("1.2.0")]).await;
    push("1.3.0").await;
    cache.refresh("T1").await;
    holds_exactly(&ns, &cache, 10, &[&tagged("1.2.0"), &tagged("1.3.0")]).await;
    cache.ready(60).await;
    for node in env.nodes() {
        assert!(env.node_has(&node, &tagged("1.3.0")));
    }
    ns.delete().await;
}
