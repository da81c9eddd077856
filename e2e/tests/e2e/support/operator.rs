//! The operator's end and return.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use super::{Env, eventually};

impl Env {
    /// Kills the operator's process, as the kernel would: no grace, no goodbye.
    pub async fn kill_operator(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "larder-system");
        for pod in pods
            .list(&ListParams::default().labels("app.kubernetes.io/name=larder-operator"))
            .await
            .unwrap()
        {
            let name = pod.metadata.name.unwrap();
            let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
        }
    }

    /// Kills it, and waits until another one leads.
    pub async fn restart_operator(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "larder-system");
        let ours = ListParams::default().labels("app.kubernetes.io/name=larder-operator");
        let before: Vec<_> = pods
            .list(&ours)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|p| p.metadata.uid)
            .collect();
        self.kill_operator().await;
        eventually("another operator is Ready", 60, || async {
            let now = pods.list(&ours).await.unwrap().items;
            let ready = |pod: &Pod| {
                let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
                conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
            };
            match now.iter().find(|p| !before.contains(&p.metadata.uid) && ready(p)) {
                Some(_) => Ok(()),
                None => Err(format!("{} pods", now.len())),
            }
        })
        .await;
    }

    /// Waits until it is there again.
    pub async fn operator_is_back(&self) {
        eventually("the operator is Ready", 60, || async {
            self.kubectl(&[
                "rollout",
                "status",
                "deployment/larder-operator",
                "-n",
                "larder-system",
                "--timeout=5s",
            ])
        })
        .await;
    }
}
