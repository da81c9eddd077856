//! The Kubernetes client: where the API server is.

use anyhow::{Context as _, Result};
use kube::client::ClientBuilder;
use kube::{Client, Config};

/// In a pod the service account and the address in the environment (some clusters have no DNS), else KUBECONFIG.
pub(super) async fn config() -> Result<Config> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && std::env::var_os("KUBECONFIG").is_none() {
        Config::incluster_env().context("this looks like a pod, but its service account cannot be read")
    } else {
        Config::infer().await.context("no Kubernetes configuration found")
    }
}

pub(super) fn client(config: Config) -> Result<Client> {
    Ok(ClientBuilder::try_from(config)
        .context("cannot build a client")?
        .build())
}
