//! An API server of a few lines for one `NodeImageCache` and its revisions, over HTTP on loopback.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use larder_api::node_image_cache::AgentStatus;
use larder_api::{ImageCacheRevision, NodeImageCache, NodeImageCacheSpec};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

const OBJECTS: &str = "/apis/larder.dev/v1alpha1/nodeimagecaches";

/// Serves until dropped.
pub struct FakeApi {
    pub url: String,
    shared: Arc<Shared>,
    server: AbortHandle,
}

struct Shared {
    held: Mutex<Held>,
    events: broadcast::Sender<Option<Value>>,
}

#[derive(Default)]
struct Held {
    version: u64,
    object: Option<NodeImageCache>,
    revisions: BTreeMap<String, ImageCacheRevision>,
    /// Method and path of every request, watches as WATCH.
    asked: Vec<String>,
    /// Every status that was written.
    written: Vec<AgentStatus>,
    down: bool,
}

impl FakeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            events: broadcast::Sender::new(64),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            shared,
            server: server.abort_handle(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.shared.held.lock().unwrap()
    }

    /// Makes the object or changes its spec, as the operator does.
    pub fn want(&self, name: &str, spec: NodeImageCacheSpec) {
        let mut held = self.held();
        held.version += 1;
        let version = held.version;
        let object = held.object.get_or_insert_with(|| {
            let mut object = NodeImageCache::new(name, NodeImageCacheSpec::default());
            object.metadata.uid = Some(format!("uid-{version}"));
            object.metadata.generation = Some(0);
            object
        });
        object.spec = spec;
        object.metadata.generation = object.metadata.generation.map(|g| g + 1);
        object.metadata.resource_version = Some(version.to_string());
        self.shared.tell("MODIFIED", object);
    }

    /// Deletes the object.
    pub fn delete(&self) {
        let mut held = self.held();
        held.version += 1;
        if let Some(mut object) = held.object.take() {
            object.metadata.resource_version = Some(held.version.to_string());
            self.shared.tell("DELETED", &object);
        }
    }

    pub fn publish(&self, revision: ImageCacheRevision) {
        let name = revision.metadata.name.clone().unwrap();
        self.held().revisions.insert(name, revision);
    }

    pub fn status(&self) -> Option<AgentStatus> {
        self.held().object.as_ref()?.status.as_ref()?.agent.clone()
    }

    pub fn written(&self) -> Vec<AgentStatus> {
        self.held().written.clone()
    }

    pub fn asked(&self) -> Vec<String> {
        self.held().asked.clone()
    }

    /// Ends all watches and refuses everything until told otherwise.
    pub fn down(&self, down: bool) {
        self.held().down = down;
        if down {
            let _ = self.shared.events.send(None);
        }
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn tell(&self, kind: &str, object: &NodeImageCache) {
        // Nobody may be listening.
        let _ = self.events.send(Some(json!({"type": kind, "object": object})));
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let path = parts.uri.path().to_owned();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let watch = query.contains("watch=true");
    let mut held = shared.held.lock().unwrap();
    let verb = if watch { "WATCH" } else { parts.method.as_str() };
    let selector = if query.contains("fieldSelector=metadata.name") {
        " own"
    } else {
        ""
    };
    held.asked.push(format!("{verb} {path}{selector}"));
    if held.down {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    match (parts.method, path.strip_prefix(OBJECTS)) {
        (Method::GET, Some("")) if watch => {
            drop(held);
            watching(&shared)
        }
        (Method::GET, Some("")) => ok(&json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCacheList",
            "metadata": {"resourceVersion": held.version.to_string()},
            "items": held.object.iter().collect::<Vec<_>>(),
        })),
        (Method::PATCH, Some(rest)) => {
            assert!(
                rest.ends_with("/status") && query.contains("fieldManager=larder-agent"),
                "{path}?{query}"
            );
            apply(&shared, &mut held, &body)
        }
        (Method::GET, None) if path.contains("/imagecacherevisions/") => {
            let name = path.rsplit('/').next().unwrap();
            match held.revisions.get(name) {
                Some(revision) => ok(revision),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            }
        }
        _ => failure(StatusCode::FORBIDDEN, "Forbidden"),
    }
}

fn apply(shared: &Shared, held: &mut Held, body: &Bytes) -> Response {
    let patch: Value = serde_json::from_slice(body).unwrap();
    let agent: AgentStatus = serde_json::from_value(patch["status"]["agent"].clone()).unwrap();
    let version = held.version + 1;
    let Some(object) = held.object.as_mut() else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    if patch["metadata"]["uid"].as_str() != object.metadata.uid.as_deref() {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    object.status.get_or_insert_default().agent = Some(agent.clone());
    object.metadata.resource_version = Some(version.to_string());
    shared.tell("MODIFIED", object);
    let answer = ok(&*object);
    held.version = version;
    held.written.push(agent);
    answer
}

fn watching(shared: &Shared) -> Response {
    let events = stream::unfold(shared.events.subscribe(), |mut events| async {
        let event = events.recv().await.ok()??;
        Some((Ok::<_, Infallible>(format!("{event}\n")), events))
    });
    Body::from_stream(events.boxed()).into_response()
}

fn ok(value: &impl serde::Serialize) -> Response {
    (
        [("content-type", "application/json")],
        serde_json::to_string(value).unwrap(),
    )
        .into_response()
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason,
    });
    (code, ok(&status)).into_response()
}
