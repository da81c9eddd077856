//! The Kubernetes client: where the API server is, and a count of what is written to it.

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

use crate::metrics::Metrics;

/// What kept a client from being made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No pod's service account.
    #[error("this looks like a pod, but its service account cannot be read")]
    InCluster(#[from] kube::config::InClusterError),
    /// No kubeconfig.
    #[error("no Kubernetes configuration found")]
    Infer(#[from] kube::config::InferConfigError),
    /// The configuration cannot be used.
    #[error("cannot build a client")]
    Build(#[source] kube::Error),
}

/// In a pod the service account and the address in the environment (some clusters have no DNS), else KUBECONFIG.
pub async fn config() -> Result<Config, ClientError> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && std::env::var_os("KUBECONFIG").is_none() {
        Ok(Config::incluster_env()?)
    } else {
        Ok(Config::infer().await?)
    }
}

/// A client whose writes are counted.
pub fn client(config: Config, metrics: &Metrics) -> Result<Client, ClientError> {
    let writes = metrics.api_writes.clone();
    let count = MapRequestLayer::new(move |request: Request<Body>| {
        if let Some((kind, verb)) = write_of(request.method(), request.uri().path(), request.uri().query()) {
            writes.with_label_values(&[kind.as_str(), verb]).inc();
        }
        request
    });
    Ok(ClientBuilder::try_from(config)
        .map_err(ClientError::Build)?
        .with_layer(&count)
        .build())
}

/// Resource (with its subresource) and verb of a request that writes. Dry runs are told apart.
fn write_of(method: &Method, path: &str, query: Option<&str>) -> Option<(String, &'static str)> {
    let dry = query.is_some_and(|q| q.split('&').any(|p| p.starts_with("dryRun=")));
    let verb = match *method {
        Method::POST if dry => "dry-run",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return None,
    };
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let skip = match parts.next()? {
        "api" => 1,
        "apis" => 2,
        _ => return None,
    };
    let rest: Vec<&str> = parts.skip(skip).collect();
    let rest = match rest.as_slice() {
        ["namespaces", _, tail @ ..] if !tail.is_empty() => tail,
        all => all,
    };
    match rest {
        [kind] | [kind, _] => Some(((*kind).to_owned(), verb)),
        [kind, _, sub, ..] => Some((format!("{kind}/{sub}"), verb)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_named_by_resource_and_never_by_object() {
        let table = [
            (
                "POST",
                "/api/v1/namespaces/web/pods",
                Some("dryRun=All"),
                Some("pods dry-run"),
            ),
            ("POST", "/api/v1/namespaces/web/pods", None, Some("pods create")),
            ("PATCH", "/api/v1/namespaces/web", None, Some("namespaces patch")),
            (
                "DELETE",
                "/apis/batch/v1/namespaces/web/jobs/x",
                None,
                Some("jobs delete"),
            ),
            (
                "PATCH",
                "/apis/larder.dev/v1alpha1/nodeimagecaches/n1",
                Some("force=true"),
                Some("nodeimagecaches patch"),
            ),
            (
                "PATCH",
                "/apis/larder.dev/v1alpha1/nodeimagecaches/n1/status",
                None,
                Some("nodeimagecaches/status patch"),
            ),
            (
                "PUT",
                "/apis/larder.dev/v1alpha1/namespaces/a/imagecaches/b",
                None,
                Some("imagecaches update"),
            ),
            ("GET", "/api/v1/namespaces/web/secrets/s", None, None),
            ("POST", "/version", None, None),
        ];
        for (method, path, query, expected) in table {
            let method: Method = method.parse().unwrap_or_default();
            let got = write_of(&method, path, query).map(|(kind, verb)| format!("{kind} {verb}"));
            assert_eq!(got.as_deref(), expected, "{path}");
        }
    }
}
