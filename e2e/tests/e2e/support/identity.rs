//! Requests in the name of others.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use super::Env;

impl Env {
    /// A client that acts as this user; for a service account, in its groups.
    pub async fn act_as(&self, user: &str) -> Client {
        self.client_with(|auth| auth.impersonate = Some(user.to_owned()))
            .await
    }

    /// A client with a token of this service account and nothing else.
    pub async fn act_with_token_of(&self, namespace: &str, account: &str) -> Client {
        self.act_with_bound_token(namespace, account, None).await
    }

    /// The same with a token bound to a pod, as a kubelet mounts it: the API server learns the node from it.
    pub async fn act_as_pod(&self, pod: &Pod) -> Client {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name_any()),
            uid: pod.uid(),
        };
        let namespace = pod.namespace().unwrap();
        self.act_with_bound_token(&namespace, &account.unwrap(), Some(bound))
            .await
    }

    async fn act_with_bound_token(
        &self,
        namespace: &str,
        account: &str,
        bound_object_ref: Option<BoundObjectReference>,
    ) -> Client {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                bound_object_ref,
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap();
        let token = answer.status.unwrap().token;
        self.client_with(|auth| *auth = serde_json::from_value(json!({"token": token})).unwrap())
            .await
    }

    async fn client_with(&self, change: impl Fn(&mut AuthInfo)) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(self.cluster.kubeconfig()).unwrap();
        for user in &mut kubeconfig.auth_infos {
            change(user.auth_info.as_mut().unwrap());
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// Whether a node has this file.
    pub fn node_file_exists(&self, node: &str, path: &str) -> bool {
        let root = self.cluster.node(node).unwrap().root().unwrap();
        root.join(path.trim_start_matches('/')).exists()
    }
}
