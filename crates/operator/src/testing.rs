//! For tests: a context over an API server of a few lines that remembers what was asked of it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::client::Body;
use larder_api::image_cache::ImageEntry;
use larder_api::node_image_cache::{CacheClaim, Desired, NodeLimits};
use larder_api::revision::{PlatformManifest, RevisionBody, RevisionImage};
use larder_api::{ImageCache, ImageCacheRevision, NodeImageCache};
use larder_core::image_ref::ImageRef;
use larder_registry::sources::{Found, SourceError, SourceImage, SourceReason};
use larder_registry::{Credentials, Head, Platform, Registry, RegistryError};
use serde_json::{Value, json};

use crate::config::{PodSettings, PullPolicy};
use crate::context::Context;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::resolver::Resolver;
use crate::route::Queues;
use crate::sources::Sources;
use crate::sources::fetch::{Ask, Failure, Fetch, Fetched};
use crate::world::World;

/// One request: method with the query's dry run, path, body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) what: String,
    pub(crate) body: Value,
}

type Answer = dyn Fn(&Asked) -> Option<(u16, Value)> + Send + Sync;

/// What was asked, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Asked>>>);

impl Log {
    /// Everything asked since the last call, without what only reads.
    pub(crate) fn writes(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        all.into_iter()
            .map(|a| a.what)
            .filter(|w| !w.starts_with("GET"))
            .collect()
    }

    /// The body of the first request of this kind.
    pub(crate) fn body(&self, what: &str) -> Value {
        self.0
            .lock()
            .unwrap()
            .iter()
            .find(|a| a.what == what)
            .map(|a| a.body.clone())
            .unwrap()
    }
}

/// A context whose API server takes every write and sends it back with a higher version, unless `answer` knows better.
pub(crate) fn context(
    answer: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
) -> (Arc<Context>, Log) {
    context_with(cache(), answer)
}

/// The same; the API server and the world hold this `ImageCache`.
pub(crate) fn context_with(
    known: ImageCache,
    answer: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
) -> (Arc<Context>, Log) {
    context_asking(known, Arc::new(Lists::default()), answer)
}

/// The same; sources are asked through `lists`.
pub(crate) fn context_asking(
    known: ImageCache,
    lists: Arc<Lists>,
    answer: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
) -> (Arc<Context>, Log) {
    let log = Log::default();
    let (seen, answer): (Log, Arc<Answer>) = (log.clone(), Arc::new(answer));
    let server = Arc::new(Mutex::new(Server {
        version: 1000,
        cache: json!(known),
    }));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (seen, answer, server) = (seen.clone(), Arc::clone(&answer), Arc::clone(&server));
        async move {
            let dry = if request.uri().query().is_some_and(|q| q.contains("dryRun=All")) {
                " dry"
            } else {
                ""
            };
            let what = format!("{} {}{dry}", request.method(), request.uri().path());
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let asked = Asked {
                what,
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            };
            let (code, body) = answer(&asked).unwrap_or_else(|| server.lock().unwrap().accept(&asked));
            seen.0.lock().unwrap().push(asked);
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let metrics = Arc::new(Metrics::new().unwrap());
    let queues = Queues::default();
    let (events, send) = Events::new(client.clone(), Arc::clone(&metrics));
    tokio::spawn(send);
    let context = Context {
        client: client.clone(),
        world: Arc::new(World::default()),
        queues: queues.clone(),
        resolver: Resolver::new(
            lists.registry.clone(),
            Arc::clone(&metrics),
            queues.caches.clone(),
        ),
        sources: Sources::new(client.clone(), lists, queues.caches),
        pods: PodSettings {
            agent_image: "agent:1".into(),
            noop_image: "noop:1".into(),
            image_pull_policy: PullPolicy::IfNotPresent,
            agents_namespace: "larder-agents".into(),
        },
        pulls_per_node: 5,
        pod_pace: Pace::per_second(5),
        metrics,
        events,
        memory: Mutex::new(BTreeMap::new()),
    };
    (Arc::new(context), log)
}

/// A refusal in the API server's form.
pub(crate) fn refuse(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (code, status)
}

/// What the API server holds of the one `ImageCache`, and the last version it gave out.
struct Server {
    version: u64,
    cache: Value,
}

impl Server {
    fn accept(&mut self, asked: &Asked) -> (u16, Value) {
        self.version += 1;
        let version = self.version;
        if asked.what.starts_with("DELETE") {
            return (
                200,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}}),
            );
        }
        if asked.what.starts_with("GET") {
            return refuse(404, "NotFound", "not here");
        }
        if asked.what.contains("/imagecaches/") {
            return self.change_cache(&asked.body);
        }
        let mut body = asked.body.clone();
        if !body["metadata"].is_object() {
            body["metadata"] = json!({});
        }
        body["metadata"]["resourceVersion"] = json!(version.to_string());
        if body["metadata"]["uid"].is_null() {
            body["metadata"]["uid"] = json!(format!("uid-{version}"));
        }
        if body["metadata"]["creationTimestamp"].is_null() {
            body["metadata"]["creationTimestamp"] = json!(Time(jiff::Timestamp::now()));
        }
        if asked.what.contains("/nodeimagecaches/") && body["spec"].is_null() {
            // A status write sends the whole object back.
            body["spec"] = json!(object().spec);
        }
        (200, body)
    }

    /// Statuses, finalizers and annotations are replaced; a JSON patch tests and removes one annotation.
    fn change_cache(&mut self, change: &Value) -> (u16, Value) {
        if let Some(operations) = change.as_array() {
            let path = operations[1]["path"].as_str().unwrap().to_owned();
            if self.cache.pointer(&path) != Some(&operations[0]["value"]) {
                return refuse(422, "Invalid", "the value is another");
            }
            let (parent, key) = path.rsplit_once('/').unwrap();
            self.cache
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(&key.replace("~1", "/"));
        }
        if change["status"].is_object() {
            self.cache["status"] = change["status"].clone();
        }
        for part in ["finalizers", "annotations"] {
            if !change["metadata"][part].is_null() {
                self.cache["metadata"][part] = change["metadata"][part].clone();
            }
        }
        self.cache["metadata"]["resourceVersion"] = json!(self.version.to_string());
        (200, self.cache.clone())
    }
}

/// A registry that has everything, for every platform, but what is called missing, and shows what is called private
/// to those with credentials.
#[derive(Default)]
pub(crate) struct Everything {
    says: Mutex<Says>,
}

#[derive(Clone, Default)]
struct Says {
    error: Option<RegistryError>,
    moves: usize,
    takes: Duration,
}

impl Everything {
    /// From now on it refuses everybody, or nobody any more.
    pub(crate) fn refuse(&self, error: Option<RegistryError>) {
        self.says.lock().unwrap().error = error;
    }

    /// All tags come to mean something else.
    pub(crate) fn move_tags(&self) {
        self.says.lock().unwrap().moves += 1;
    }

    /// From now on it takes its time.
    pub(crate) fn hang(&self, time: Duration) {
        self.says.lock().unwrap().takes = time;
    }
}

#[async_trait]
impl Registry for Everything {
    async fn digest(&self, image: &ImageRef, credentials: &Credentials) -> Result<Head, RegistryError> {
        let says = self.says.lock().unwrap().clone();
        tokio::time::sleep(says.takes).await;
        if let Some(error) = says.error {
            return Err(error);
        }
        if image.repository().contains("missing") {
            return Err(RegistryError::NotFound {
                message: "manifest unknown".into(),
            });
        }
        let private = image.repository().contains("private");
        if private && credentials.is_empty() {
            return Err(RegistryError::Unauthorized {
                message: "401 Unauthorized".into(),
            });
        }
        Ok(Head {
            digest: format!("sha256:{:0>64}", image.repository().len() + 1000 * says.moves),
            private,
        })
    }

    async fn platforms(
        &self,
        _: &ImageRef,
        digest: &str,
        _: &Credentials,
        wanted: &[Platform],
    ) -> Result<Vec<PlatformManifest>, RegistryError> {
        let manifest = |p: &Platform| PlatformManifest {
            os: p.os.clone(),
            architecture: p.architecture.clone(),
            variant: None,
            digest: digest.to_owned(),
            size_bytes: 1,
        };
        Ok(wanted.iter().map(manifest).collect())
    }
}

/// Sources by their names: what each says, and how often they were asked; and the one registry.
#[derive(Default)]
pub(crate) struct Lists {
    pub(crate) registry: Arc<Everything>,
    says: Mutex<BTreeMap<String, Result<Vec<String>, SourceReason>>>,
    hang: Mutex<BTreeMap<String, Duration>>,
    asked: AtomicUsize,
}

impl Lists {
    /// From now on a source says this.
    pub(crate) fn say(&self, source: &str, images: Result<&[&str], SourceReason>) {
        let images = images.map(|list| list.iter().map(|i| (*i).to_owned()).collect());
        self.says.lock().unwrap().insert(source.to_owned(), images);
    }

    /// From now on a source takes this long.
    pub(crate) fn hang(&self, source: &str, time: Duration) {
        self.hang.lock().unwrap().insert(source.to_owned(), time);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Fetch for Lists {
    async fn fetch(&self, ask: &Ask) -> Result<Fetched, Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let time = self.hang.lock().unwrap().get(&ask.source.name).copied();
        tokio::time::sleep(time.unwrap_or_default()).await;
        let says = self.says.lock().unwrap().get(&ask.source.name).cloned();
        let unknown = Err(SourceReason::NotFound);
        let images = says
            .unwrap_or(unknown)
            .map_err(|reason| Failure::from(SourceError::new(reason, "not now")))?;
        let images = images.into_iter().map(|image| SourceImage {
            image,
            app: None,
            service: None,
        });
        let found = Found {
            images: images.collect(),
            ..Found::default()
        };
        Ok(Fetched::Found {
            found,
            etag: None,
            retry_after: None,
        })
    }
}

/// Node `node-1`, Ready.
pub(crate) fn node() -> Node {
    let ready = NodeCondition {
        type_: "Ready".into(),
        status: "True".into(),
        ..NodeCondition::default()
    };
    let mut node = Node::default();
    node.metadata.name = Some("node-1".into());
    node.metadata.uid = Some("node-uid".into());
    node.status = Some(NodeStatus {
        conditions: Some(vec![ready]),
        ..NodeStatus::default()
    });
    node
}

/// `ImageCache` `team/web` with one image.
pub(crate) fn cache() -> ImageCache {
    let mut cache = ImageCache::default();
    cache.metadata.namespace = Some("team".into());
    cache.metadata.name = Some("web".into());
    cache.metadata.uid = Some("cache-uid".into());
    cache.metadata.resource_version = Some("10".into());
    cache.metadata.generation = Some(1);
    cache.spec.images = vec![ImageEntry {
        image: "nginx:1.27".into(),
        priority: 0,
    }];
    cache
}

/// Its revision `web-1`.
pub(crate) fn revision() -> ImageCacheRevision {
    let image = RevisionImage {
        image: "docker.io/library/nginx:1.27".into(),
        digest: Some(format!("sha256:{}", "1".repeat(64))),
        ..RevisionImage::default()
    };
    let spec = larder_api::ImageCacheRevisionSpec {
        images: vec![image],
        pull_secrets: Vec::new(),
    };
    let mut revision = ImageCacheRevision::new("web-1", RevisionBody { number: 1, spec });
    revision.metadata.namespace = Some("team".into());
    revision.metadata.uid = Some("revision-uid".into());
    revision.metadata.resource_version = Some("11".into());
    revision.metadata.owner_references = kube::Resource::controller_owner_ref(&cache(), &()).map(|o| vec![o]);
    revision
}

/// The object of `node-1`, which claims `web-1`.
pub(crate) fn object() -> NodeImageCache {
    let mut object = NodeImageCache::default();
    object.metadata.name = Some("node-1".into());
    object.metadata.uid = Some("object-uid".into());
    object.metadata.resource_version = Some("12".into());
    object.metadata.generation = Some(1);
    object.metadata.creation_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    object.spec.node_uid = "node-uid".into();
    let now = Time(jiff::Timestamp::now());
    object.spec.caches = vec![CacheClaim {
        namespace: "team".into(),
        name: "web".into(),
        uid: "cache-uid".into(),
        revision: "web-1".into(),
        desired: Desired::Present,
        remove_revisions: Vec::new(),
        claimed_at: now.clone(),
        assigned_at: now,
        removal: larder_api::image_cache::Removal::Retain,
        verify_after: None,
        puller: larder_api::image_cache::Puller::Auto,
        private_images: larder_api::image_cache::PrivateImages::Kubelet,
        service_account: false,
        overrides: None,
    }];
    object.spec.limits = Some(NodeLimits {
        pulls: 5,
        report_seconds: 5,
    });
    object
}
