//! Waits until the cluster is as it should be, and fails at once when a component dies instead.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use larder_runtime::{RuntimeClient, Timeouts};

use crate::cluster::error::{Error, Result};
use crate::cluster::layout::Layout;
use crate::cluster::machine::process::Components;

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
    until(&components, &[], "the API server's readiness", async || {
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

/// Waits until a node's containerd serves what its kubelet needs. It opens its socket before, and a kubelet that comes
/// upon it then gives up.
pub async fn runtime(layout: &Layout, node: &str, socket: &Path) -> Result<()> {
    let components = Components::new(layout);
    let what = format!("{node}: an answer of containerd's CRI");
    until(&components, &[node], &what, async || {
        let client = RuntimeClient::connect(socket, Timeouts::default()).await;
        client.map(drop).map_err(|e| e.to_string())
    })
    .await
}

/// A node to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// Its name.
    pub name: String,
    /// What its kubelet reported before this is old news: the report of one that was killed meanwhile.
    pub since: Option<Timestamp>,
}

/// Waits until every one of `nodes` is Ready and pods may be placed there.
pub async fn nodes(layout: &Layout, client: &Client, nodes: &[Awaited]) -> Result<()> {
    let components = Components::new(layout);
    let api: Api<Node> = Api::all(client.clone());
    let names: Vec<&str> = nodes.iter().map(|awaited| awaited.name.as_str()).collect();
    until(&components, &names, "the readiness of the nodes", async || {
        let listed = api
            .list(&ListParams::default())
            .await
            .map_err(|e| e.to_string())?;
        let is_missing = |awaited: &&Awaited| {
            let mut found = listed
                .iter()
                .filter(|node| node.metadata.name.as_ref() == Some(&awaited.name));
            !found.any(|node| is_ready(node) && has_reported(node, awaited.since))
        };
        let waiting: Vec<&str> = nodes
            .iter()
            .filter(is_missing)
            .map(|awaited| awaited.name.as_str())
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
    until(
        &components,
        &[],
        "the default service account",
        async || match api.get_opt("default").await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("is not there yet".into()),
            Err(error) => Err(error.to_string()),
        },
    )
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

/// Whether a node's kubelet has reported since then, to the second.
fn has_reported(node: &Node, since: Option<Timestamp>) -> bool {
    let Some(since) = since else { return true };
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let ready = conditions.unwrap_or_default().iter().find(|c| c.type_ == "Ready");
    let heartbeat = ready.and_then(|c| c.last_heartbeat_time.as_ref());
    heartbeat.is_some_and(|time| time.0.as_second() >= since.as_second())
}

/// Asks until the answer is yes, or until a component dies that the answer depends on. The error of the last answer goes into the message when time runs out.
async fn until<F>(components: &Components, nodes: &[&str], what: &str, ask: F) -> Result<()>
where
    F: AsyncFn() -> std::result::Result<(), String>,
{
    let began = Instant::now();
    loop {
        let Err(answer) = ask().await else { return Ok(()) };
        components.check(nodes)?;
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

    #[test]
    fn a_report_from_before_a_power_cut_does_not_count() {
        let mut node = node("True", "team");
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert!(has_reported(&node, None));
        assert!(!has_reported(&node, Some(at(100))));
        let conditions = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[0].last_heartbeat_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)));
        assert!(has_reported(&node, Some(at(100))));
        assert!(!has_reported(&node, Some(at(101))));
    }
}
