//! The images of one kind of workload in a namespace.

use std::collections::BTreeSet;
use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Resource};
use larder_api::image_source::WorkloadKind;
use larder_registry::sources::MAX_IMAGES;
use larder_registry::sources::workloads::{Workload, images_of};
use serde::de::DeserializeOwned;

use super::{Inner, Seen, What, follow};

pub(super) async fn watch(inner: &Inner, what: &What, namespace: &str, kind: WorkloadKind, selector: &str) {
    match kind {
        WorkloadKind::Deployment => of_kind::<Deployment>(inner, what, namespace, selector).await,
        WorkloadKind::StatefulSet => of_kind::<StatefulSet>(inner, what, namespace, selector).await,
        WorkloadKind::DaemonSet => of_kind::<DaemonSet>(inner, what, namespace, selector).await,
        WorkloadKind::Job => of_kind::<Job>(inner, what, namespace, selector).await,
        WorkloadKind::CronJob => of_kind::<CronJob>(inner, what, namespace, selector).await,
        WorkloadKind::Pod => of_kind::<Pod>(inner, what, namespace, selector).await,
    }
}

async fn of_kind<K>(inner: &Inner, what: &What, namespace: &str, selector: &str)
where
    K: Workload
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(inner.client.clone(), namespace);
    let config = watcher::Config::default().labels(selector);
    follow::objects(
        api,
        config,
        read,
        |kept| {
            let images: BTreeSet<&String> = kept.values().flatten().collect();
            inner.tell(
                what,
                Seen {
                    images: images.into_iter().cloned().collect(),
                    at: Some(Timestamp::now()),
                    ..Seen::default()
                },
            );
        },
        |problem| inner.broken(what, problem),
    )
    .await;
}

/// All that is kept of an object: each image once, and no more than make the source too large.
pub(super) fn read<K: Workload>(object: &K) -> BTreeSet<String> {
    let mut images = BTreeSet::new();
    for (_, image) in object.pod_spec().into_iter().flat_map(images_of) {
        if images.len() > MAX_IMAGES {
            break;
        }
        if !images.contains(image) {
            images.insert(image.to_owned());
        }
    }
    images
}
