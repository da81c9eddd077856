//! What a claim says, and how long it stays.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use larder_api::image_cache::{PodTemplate, Removal};
use larder_api::node_image_cache::Desired;

use super::world::Cluster;

#[test]
fn a_suspended_cache_keeps_its_claims_whatever_becomes_of_labels() {
    let mut cluster = Cluster::new(2);
    cluster.cache("b", Removal::Purge, 1);
    cluster.caches[0].spec.nodes.selector = Some(LabelSelector {
        match_labels: Some([("pool".to_owned(), "web".to_owned())].into()),
        ..LabelSelector::default()
    });
    for node in cluster.nodes.values_mut() {
        node.labels.insert("pool".into(), "web".into());
    }
    cluster.revise("b", "first");
    cluster.settle();
    cluster.caches[0].spec.suspend = true;
    cluster.step();
    if let Some(node) = cluster.nodes.get_mut("node-0") {
        node.labels.clear();
    }
    assert_eq!(cluster.step().actions, []);
    assert_eq!(cluster.objects["node-0"].spec.caches[0].desired, Desired::Present);
    cluster.caches[0].spec.suspend = false;
    cluster.step();
    assert_eq!(cluster.objects["node-0"].spec.caches[0].desired, Desired::Absent);
}

#[test]
fn claims_say_whether_a_service_account_may_bring_secrets() {
    let mut cluster = Cluster::new(1);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "one");
    let mut said = Vec::new();
    for name in [None, Some("puller"), Some("")] {
        cluster.caches[0].spec.pod_template = Some(PodTemplate {
            service_account_name: name.map(str::to_owned),
            ..PodTemplate::default()
        });
        cluster.settle();
        said.push(cluster.objects["node-0"].spec.caches[0].service_account);
    }
    assert_eq!(said, [false, true, false]);
    assert_eq!(cluster.objects["node-0"].spec.caches[0].revision, "a-1");
    // A node that comes later is told so at once.
    cluster.caches[0]
        .spec
        .pod_template
        .as_mut()
        .unwrap()
        .service_account_name = Some("puller".into());
    cluster.join("node-1", "1");
    cluster.step();
    assert!(cluster.objects["node-1"].spec.caches[0].service_account);
}

#[test]
fn a_claim_that_goes_leaves_its_age_to_those_that_share_its_images() {
    let mut cluster = Cluster::new(1);
    cluster.cache("a", Removal::Retain, 1);
    cluster.revise("a", "shared");
    cluster.settle();
    let first = cluster.objects["node-0"].spec.caches[0].claimed_at.clone();
    cluster.now += SignedDuration::from_hours(1);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "shared");
    cluster.settle();
    let claims = &cluster.objects["node-0"].spec.caches;
    assert_eq!(claims.len(), 2);
    assert!(claims[1].claimed_at.0 > first.0);
    cluster.caches.remove(0);
    cluster.step();
    assert_eq!(cluster.objects["node-0"].spec.caches[0].claimed_at, first);
}
