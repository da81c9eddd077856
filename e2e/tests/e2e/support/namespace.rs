//! A namespace of one test, and the objects in it.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::{Namespace as CoreNamespace, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use larder_api::{ImageCache, ImageCacheRevision};
use serde_json::{Value, json};

use super::{Cache, Env};

/// Who pulls in tests that do not care. `LARDER_E2E_PULLER` says it, so that they are run with each.
fn puller() -> String {
    std::env::var("LARDER_E2E_PULLER").unwrap_or_else(|_| "Auto".into())
}

/// Who does pull then what needs no credentials: agents are on all nodes.
pub fn who_pulls() -> String {
    puller().replace("Auto", "Agent")
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A namespace of one test.
pub struct Namespace {
    pub name: String,
    pub client: Client,
}

impl Namespace {
    pub(super) async fn create(env: &Env, prefix: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let api: Api<CoreNamespace> = Api::all(env.client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
        Self {
            name,
            client: env.client.clone(),
        }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates an ImageCache with this spec; who pulls is [`puller`]'s choice unless the spec says it.
    pub async fn cache(&self, name: &str, mut spec: Value) -> Cache {
        if spec.get("puller").is_none() {
            spec["puller"] = puller().into();
        }
        let object: ImageCache = serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache",
            "metadata": {"name": name, "namespace": self.name}, "spec": spec,
        }))
        .unwrap();
        self.api::<ImageCache>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        self.existing(name)
    }

    /// An ImageCache that is there.
    pub fn existing(&self, name: &str) -> Cache {
        Cache {
            namespace: self.name.clone(),
            name: name.to_owned(),
            client: self.client.clone(),
        }
    }

    /// A pod on a node that may not pull: it runs only if the image is there.
    pub async fn runs_without_pulling(&self, node: &str, image: &str) {
        let name = format!("never-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        self.pod(&name, node, image, "Never").await;
        let pods: Api<Pod> = self.api();
        super::eventually(&format!("{image} runs on {node} without a pull"), 60, || async {
            let pod = pods.get(&name).await.unwrap();
            let status = pod.status.unwrap_or_default();
            let started = status.container_statuses.iter().flatten().any(|c| {
                c.state
                    .as_ref()
                    .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            });
            if started {
                Ok(())
            } else {
                Err(format!("{:?}", status.container_statuses))
            }
        })
        .await;
        pods.delete(&name, &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }

    /// Creates a pod bound to a node.
    pub async fn pod(&self, name: &str, node: &str, image: &str, pull_policy: &str) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": image, "imagePullPolicy": pull_policy}],
            },
        }))
        .unwrap();
        self.api::<Pod>()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
    }

    /// A pull secret for one registry; replaces one of the same name.
    pub async fn pull_secret(&self, name: &str, host: &str, user: &str, password: &str) {
        let config = json!({"auths": {host: {"username": user, "password": password}}}).to_string();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
        });
        let params = PatchParams::apply("test").force();
        self.api::<Secret>()
            .patch(name, &params, &Patch::Apply(&secret))
            .await
            .unwrap();
    }

    /// Names of the revisions, newest first.
    pub async fn revisions(&self) -> Vec<String> {
        let mut all = self
            .api::<ImageCacheRevision>()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items;
        all.sort_by_key(|r| std::cmp::Reverse(r.spec.number));
        all.into_iter().filter_map(|r| r.metadata.name).collect()
    }

    /// Deletes the namespace and waits until it is gone. The namespace controller waits for pods first, and a kubelet
    /// lets a pod go only when the pull it is at has ended: half a minute for each registry that drops packets.
    pub async fn delete(self) {
        let api: Api<CoreNamespace> = Api::all(self.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await.unwrap();
        super::eventually(&format!("namespace {} goes", self.name), 240, || async {
            match api.get_opt(&self.name).await.unwrap() {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.status)),
            }
        })
        .await;
    }
}
