//! Patient looks at an ImageCache.

use std::future::Future;
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use larder_api::image_cache_status::{Failure, NodeStatus};
use larder_api::names::REFRESH_ANNOTATION;
use larder_api::{ImageCache, ImageCacheStatus};
use serde_json::{Value, json};

/// Tries until it succeeds; panics with the last complaint after so many seconds.
pub async fn eventually<T, F, Fut>(what: &str, seconds: u64, mut attempt: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(complaint) if Instant::now() > until => {
                panic!("not within {seconds} s: {what}: {complaint}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(150)).await,
        }
    }
}

/// An ImageCache of a test.
#[derive(Clone)]
pub struct Cache {
    pub namespace: String,
    pub name: String,
    pub client: Client,
}

impl Cache {
    pub fn api(&self) -> Api<ImageCache> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn get(&self) -> ImageCache {
        self.api().get(&self.name).await.unwrap()
    }

    pub async fn status(&self) -> ImageCacheStatus {
        self.get().await.status.unwrap_or_default()
    }

    /// Changes the object by a merge patch.
    pub async fn patch(&self, patch: Value) -> ImageCache {
        self.api()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap()
    }

    /// Sets an annotation.
    pub async fn annotate(&self, key: &str, value: &str) {
        self.patch(json!({"metadata": {"annotations": {key: value}}}))
            .await;
    }

    /// Asks for a refresh and waits for its end.
    pub async fn refresh(&self, token: &str) -> ImageCacheStatus {
        self.annotate(REFRESH_ANNOTATION, token).await;
        self.until(&format!("refresh {token} is finished"), 120, |s| {
            let last = s.last_refresh.as_ref();
            last.is_some_and(|r| r.finished_token.as_deref() == Some(token))
        })
        .await
    }

    pub async fn delete(&self) {
        self.api()
            .delete(&self.name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until the status, of the present generation, is as wanted.
    pub async fn until(
        &self,
        what: &str,
        seconds: u64,
        wanted: impl Fn(&ImageCacheStatus) -> bool,
    ) -> ImageCacheStatus {
        eventually(
            &format!("{}/{}: {what}", self.namespace, self.name),
            seconds,
            || async {
                let object = self.get().await;
                let status = object.status.unwrap_or_default();
                let current = Some(status.observed_generation) == object.metadata.generation;
                if current && wanted(&status) {
                    Ok(status)
                } else {
                    Err(serde_json::to_string_pretty(&status).unwrap())
                }
            },
        )
        .await
    }

    /// Waits until Ready is True.
    pub async fn ready(&self, seconds: u64) -> ImageCacheStatus {
        self.until("Ready", seconds, |s| condition(s, "Ready") == Some("True"))
            .await
    }

    /// Waits until the cache and its claims are gone.
    pub async fn gone(&self, seconds: u64) {
        eventually(
            &format!("{}/{} goes", self.namespace, self.name),
            seconds,
            || async {
                match self.api().get_opt(&self.name).await.unwrap() {
                    None => Ok(()),
                    Some(left) => Err(serde_json::to_string_pretty(&left).unwrap()),
                }
            },
        )
        .await;
    }
}

/// Status of a condition.
pub fn condition<'a>(status: &'a ImageCacheStatus, kind: &str) -> Option<&'a str> {
    status
        .conditions
        .iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
}

/// Reason of a condition.
pub fn reason<'a>(status: &'a ImageCacheStatus, kind: &str) -> Option<&'a str> {
    status
        .conditions
        .iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.reason.as_str())
}

/// The failure of an image.
pub fn failure<'a>(status: &'a ImageCacheStatus, image: &str) -> Option<&'a Failure> {
    status.failures.iter().find(|f| f.image == image)
}

/// What the status says of a node.
pub fn node<'a>(status: &'a ImageCacheStatus, name: &str) -> Option<&'a NodeStatus> {
    status.node_statuses.iter().find(|n| n.node == name)
}
