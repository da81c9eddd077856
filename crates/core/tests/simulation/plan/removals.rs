//! How removals end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::image_cache::Removal;
use larder_api::image_cache_status::{ImageCacheStatus, PurgeStatus};
use larder_api::node_image_cache::Desired;

use super::world::Cluster;

#[test]
fn a_deleted_cache_that_purges_leaves_every_node_and_then_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "first");
    cluster.settle();
    cluster.caches[0].metadata.deletion_timestamp = Some(Time(cluster.now));
    cluster.step();
    assert!(
        cluster
            .objects
            .values()
            .all(|o| o.spec.caches[0].desired == Desired::Absent)
    );
    cluster.settle();
    assert!(cluster.objects.is_empty());
}

#[test]
fn a_removal_outlives_its_cache_but_not_its_revision() {
    let mut cluster = Cluster::new(1);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "first");
    cluster.settle();
    cluster.caches[0].metadata.deletion_timestamp = Some(Time(cluster.now));
    cluster.step();
    cluster.caches.clear();
    cluster.step();
    assert_eq!(cluster.objects["node-0"].spec.caches.len(), 1);
    cluster.revisions.clear();
    cluster.step();
    assert!(cluster.objects.is_empty());
}

#[test]
fn a_removal_that_is_called_off_is_taken_up_again() {
    let mut cluster = Cluster::new(1);
    cluster.cache("b", Removal::Purge, 1);
    cluster.revise("b", "one");
    cluster.settle();
    let purge = PurgeStatus {
        in_force: true,
        ..PurgeStatus::default()
    };
    cluster.caches[0].status = Some(ImageCacheStatus {
        last_purge: Some(purge),
        ..ImageCacheStatus::default()
    });
    cluster.step();
    cluster.caches[0].status = None;
    cluster.revise("b", "two");
    cluster.step();
    let claim = &cluster.objects["node-0"].spec.caches[0];
    assert_eq!(
        (claim.revision.as_str(), claim.remove_revisions.as_slice()),
        ("b-2", &["b-1".to_owned()][..])
    );
}
