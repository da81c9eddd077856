//! One watch a kind: what it says goes into the world, and the keys that it concerns are marked.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Client, Resource};
use larder_api::names::{MANAGED_BY, MANAGED_BY_LABEL};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;
use crate::pullers::tally;
use crate::queue::Chain;
use crate::route::Queues;
use crate::world::{Change, Store, World};

/// Watches every kind until dropped. Broken watches are begun again with the client's usual delays.
/// `ready` turns true, and everything is marked, once every kind has been listed.
pub async fn watch(
    client: Client,
    world: Arc<World>,
    queues: Queues,
    metrics: Arc<Metrics>,
    ready: tokio::sync::watch::Sender<bool>,
) {
    let all = watcher::Config::default();
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let (w, q) = (&*world, &queues);
    let listed = || {
        if w.listed() && !ready.send_replace(true) {
            tracing::info!("every kind is listed");
            q.mark_all(w);
        }
    };
    let m = &Progress {
        metrics: &metrics,
        listed: &listed,
    };
    let caches = follow(objects::<ImageCache>(&client, all.clone()), &w.caches, m, |c| {
        q.cache_changed(w, c);
    });
    let revisions = follow(
        objects::<ImageCacheRevision>(&client, all.clone()),
        &w.revisions,
        m,
        |c| q.revision_changed(w, c),
    );
    let node_objects = follow(
        objects::<NodeImageCache>(&client, all.clone()),
        &w.objects,
        m,
        |c| {
            tally::agent(&metrics, c);
            q.object_changed(c);
        },
    );
    let jobs = follow(objects::<Job>(&client, ours.clone()), &w.jobs, m, |c| {
        q.work_changed(c);
    });
    let pods = follow(objects::<Pod>(&client, ours), &w.pods, m, |c| {
        q.work_changed(c);
        if let Some(node) = w.gone.note(c, jiff::Timestamp::now()) {
            q.agent_changed(w, &node);
        }
    });
    let nodes = follow_nodes(objects::<Node>(&client, all), w, q, m);
    futures::join!(caches, revisions, node_objects, jobs, pods, nodes);
}

fn objects<K>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watch_kind(Api::<K>::all(client.clone()), config).default_backoff()
}

/// What every watch reports beside its objects.
struct Progress<'a> {
    metrics: &'a Metrics,
    /// Called whenever a kind has been listed.
    listed: &'a (dyn Fn() + Sync),
}

impl Progress<'_> {
    fn broken(&self, kind: &str, error: &watcher::Error) {
        self.metrics.watch_errors.with_label_values(&[kind]).inc();
        tracing::warn!(kind, error = %Chain(error), "watch broke and is begun again");
    }
}

async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    store: &Store<K>,
    progress: &Progress<'_>,
    changed: impl Fn(&Change<K>),
) where
    K: Resource<DynamicType = ()> + Clone,
{
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => store.list_begins(),
            Ok(Event::InitApply(object)) => store.list_item(object).iter().for_each(&changed),
            Ok(Event::InitDone) => {
                tracing::info!(kind = %K::kind(&()), objects = store.len(), "listed");
                store.list_ends().iter().for_each(&changed);
                (progress.listed)();
            }
            Ok(Event::Apply(object)) => store.apply(object).iter().for_each(&changed),
            Ok(Event::Delete(object)) => store.remove(&object).iter().for_each(&changed),
            Err(error) => progress.broken(&K::kind(&()), &error),
        }
    }
}

async fn follow_nodes(
    events: impl Stream<Item = watcher::Result<Event<Node>>>,
    world: &World,
    queues: &Queues,
    progress: &Progress<'_>,
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let changed = |change: &Change<_>| queues.node_changed(world, change);
        match event {
            Ok(Event::Init) => world.nodes.list_begins(),
            Ok(Event::InitDone) => {
                tracing::info!(kind = "Node", objects = world.nodes.all().len(), "listed");
                world.nodes.list_ends().iter().for_each(changed);
                (progress.listed)();
            }
            Ok(Event::Apply(node) | Event::InitApply(node)) => {
                world.nodes.apply(&node).iter().for_each(changed);
            }
            Ok(Event::Delete(node)) => {
                world
                    .nodes
                    .remove(&node.metadata.name.unwrap_or_default())
                    .iter()
                    .for_each(changed);
            }
            Err(error) => progress.broken("Node", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::RefCell;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(format!("uid of {name}"));
        object.metadata.resource_version = Some(version.into());
        object
    }

    /// Follows these events; what changed, in order, and how often a list ended.
    async fn followed(
        store: &Store<ConfigMap>,
        events: Vec<watcher::Result<Event<ConfigMap>>>,
    ) -> (Vec<String>, u32) {
        let metrics = Metrics::new().unwrap();
        let lists = std::sync::atomic::AtomicU32::new(0);
        let listed = || {
            lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        };
        let progress = Progress {
            metrics: &metrics,
            listed: &listed,
        };
        let seen = RefCell::new(Vec::new());
        let changed = |change: &Change<ConfigMap>| {
            let name = |side: &Option<Arc<ConfigMap>>| side.as_ref().map_or("-".to_owned(), |o| o.name_any());
            seen.borrow_mut()
                .push(format!("{} {}", name(&change.old), name(&change.new)));
        };
        follow(futures::stream::iter(events), store, &progress, changed).await;
        (seen.into_inner(), lists.into_inner())
    }

    #[tokio::test]
    async fn a_second_list_tells_only_what_changed_meanwhile() {
        let store = Store::new(|_: &ConfigMap| Vec::new());
        let first = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(object("a", "1"))),
            Ok(Event::InitApply(object("b", "2"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(object("c", "3"))),
            Ok(Event::Delete(object("a", "4"))),
        ];
        assert_eq!(
            followed(&store, first).await,
            (["- a", "- b", "- c", "a -"].map(String::from).to_vec(), 1)
        );
        let again = vec![
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(object("b", "2"))),
            Ok(Event::InitApply(object("d", "9"))),
            Ok(Event::InitDone),
        ];
        assert_eq!(
            followed(&store, again).await,
            (["- d", "c -"].map(String::from).to_vec(), 1)
        );
    }

    #[tokio::test]
    async fn broken_watches_are_counted() {
        let metrics = Metrics::new().unwrap();
        let progress = Progress {
            metrics: &metrics,
            listed: &|| {},
        };
        progress.broken("Node", &watcher::Error::NoResourceVersion);
        assert_eq!(metrics.watch_errors.with_label_values(&["Node"]).get(), 1);
    }
}
