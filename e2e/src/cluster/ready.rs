//! Waits until the cluster is as it should be, and fails at once when a component dies instead.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::error::{Error, Result};
use super::layout::Layout;
use super::process::Components;

/// How long to wait for the API server, or for a node, on a machine that is busy with builds.
const PATIENCE: Duration = Duration::from_mins(3);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(100);

/// A client with all rights.
pub async fn client(layout: &Layout) -> Result<Client> {
    // Fails when a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let path = layout.kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|e| Error::Kubeconfig(e.to_string()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| Error::Kubeconfig(e.to_string()))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// Waits until the API server says that it is ready.
pub async fn api_server(layout: &Layout, client: &Client) -> Result<()> {
    let components = Components::new(layout);
    until(&components, "the API server's readiness", async || {
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .map_err(|e| e.to_string())?;
        client
            .request_text(request)
            .await
            .map(|_| ())
            .map_err(|e| e.to_string())
    })
    .await
}

/// Waits until every one of `nodes` is Ready and pods may be placed there.
pub async fn nodes(layout: &Layout, client: &Client, nodes: &[String]) -> Result<()> {
    let components = Components::new(layout);
    let api: Api<Node> = Api::all(client.clone());
    until(&components, "the readiness of the nodes", async || {
        let listed = api
            .list(&kube::api::ListParams::default())
            .await
            .map_err(|e| e.to_string())?;
        let waiting: Vec<&str> = nodes
            .iter()
            .filter(|name| {
                !listed
                    .iter()
                    .any(|node| node.metadata.name.as_ref() == Some(*name) && is_ready(node))
            })
            .map(String::as_str)
            .collect();
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(format!("waiting for {}", waiting.join(", ")))
        }
    })
    .await
}

/// Waits until pods can be created in the default namespace, which takes the service account that they run as.
pub async fn service_account(layout: &Layout, client: &Client) -> Result<()> {
    let components = Components::new(layout);
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    until(&components, "the default service account", async || {
        match api.get_opt("default").await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("is not there yet".into()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// Whether a node is Ready and carries no taint that says otherwise.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
        && !taints.iter().any(|t| {
            ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].contains(&t.key.as_str())
        })
}

/// Asks until the answer is yes. The error of the last answer goes into the message when time runs out.
async fn until<F>(components: &Components, what: &str, ask: F) -> Result<()>
where
    F: AsyncFn() -> std::result::Result<(), String>,
{
    let began = Instant::now();
    loop {
        let Err(answer) = ask().await else { return Ok(()) };
        components.check("")?;
        if began.elapsed() > PATIENCE {
            return Err(Error::Timeout {
                what: what.to_owned(),
                after: PATIENCE,
                detail: Some(answer),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: &str, taint: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_node_with_the_taint_of_one_that_is_not_ready_is_not_ready() {
        assert!(is_ready(&node("True", "team")));
        assert!(!is_ready(&node("True", "node.kubernetes.io/not-ready")));
        assert!(!is_ready(&node("Unknown", "team")));
        assert!(!is_ready(&Node::default()));
    }
}
