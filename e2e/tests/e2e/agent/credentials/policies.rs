//! The kubelet's four policies for images that are on the node already (KEP-2535): what each means for images that
//! Larder brought. docs/credentials.md has the table.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};
use kube::Api;
use kube::api::PostParams;
use larder_e2e::cluster::NodeOptions;
use larder_e2e::cluster::registry::Registry;
use larder_e2e::cluster::registry::RegistryKind::Auth;
use larder_e2e::images::ImageSpec;
use larder_e2e::progress::Stderr;
use serde_json::json;

use crate::agent::one_shot::agent;
use crate::support::{Env, Namespace, eventually};

/// The pods that are tried: with the right secret or without any, and their pull policy. Where the last one asks the
/// registry, the kubelet remembers the secret for those that come later.
const PODS: [(bool, &str); 4] = [
    (false, "IfNotPresent"),
    (false, "Never"),
    (true, "Never"),
    (true, "IfNotPresent"),
];

/// Which of [`PODS`] start.
type Started = [bool; PODS.len()];

/// Whoever comes.
const ALL: Started = [true, true, true, true];
/// Whoever has the secret with which the kubelet pulled.
const WITH_SECRET: Started = [false, false, true, true];
/// Whoever has a secret that the registry takes, and may ask it.
const WHO_MAY_ASK: Started = [false, false, false, true];

struct Policy {
    name: &'static str,
    /// Of an image that the kubelet pulled for a Job of Larder, with the cache's secret.
    by_job: Started,
    /// Of an image that the agent pulled.
    by_agent: Started,
    /// Of either, where the kubelet's list names its repository.
    listed: Option<Started>,
}

const POLICIES: [Policy; 4] = [
    Policy {
        name: "NeverVerify",
        by_job: ALL,
        by_agent: ALL,
        listed: None,
    },
    Policy {
        name: "NeverVerifyPreloadedImages",
        by_job: WITH_SECRET,
        by_agent: ALL,
        listed: None,
    },
    Policy {
        name: "NeverVerifyAllowlistedImages",
        by_job: WITH_SECRET,
        by_agent: WHO_MAY_ASK,
        listed: Some(ALL),
    },
    Policy {
        name: "AlwaysVerify",
        by_job: WITH_SECRET,
        by_agent: WHO_MAY_ASK,
        listed: None,
    },
];

#[tokio::test]
async fn the_kubelets_policies_judge_what_larder_brought_by_who_pulled_it() {
    let env = Env::shared().await;
    let ns = env.namespace("verify").await;
    let registry = env.registry(Auth);
    let (user, password) = registry.credentials.clone().unwrap();
    ns.pull_secret("regcred", &registry.host, &user, &password).await;
    for (number, policy) in POLICIES.iter().enumerate() {
        let name = format!("verify-{number}");
        let mut kubelet = json!({"imagePullCredentialsVerificationPolicy": policy.name});
        if policy.listed.is_some() {
            let listed = format!("{}/{}/listed/*", registry.host, ns.name);
            kubelet["preloadedImagesVerificationAllowlist"] = json!([listed]);
        }
        let options = NodeOptions {
            name: Some(name.clone()),
            taints: vec![format!("verify={name}:NoSchedule")],
            labels: [("verify".to_owned(), name.clone())].into(),
            kubelet,
            ..NodeOptions::default()
        };
        env.cluster.node_add(options, &Stderr).await.unwrap();
        let node = Node {
            env: &env,
            ns: &ns,
            registry: &registry,
            name,
        };
        let mut cases = vec![("job", true, policy.by_job), ("agent", false, policy.by_agent)];
        if let Some(listed) = policy.listed {
            cases.extend([("listed/job", true, listed), ("listed/agent", false, listed)]);
        }
        let tried = cases.into_iter().map(|(repository, by_job, expected)| {
            let node = &node;
            async move {
                let image = node.push(&format!("{repository}-{number}")).await;
                if by_job {
                    let cache = format!("{}-{number}", repository.replace('/', "-"));
                    node.pull_by_job(&cache, &image).await;
                } else {
                    node.pull_by_agent(&image);
                }
                assert!(node.env.node_has(&node.name, &image), "{image}");
                assert_eq!(node.pods(&image).await, expected, "{}: {repository}", policy.name);
            }
        });
        join_all(tried).await;
        env.cluster.node_remove(&node.name).await.unwrap();
    }
    ns.delete().await;
}

struct Node<'a> {
    env: &'a Env,
    ns: &'a Namespace,
    registry: &'a Registry,
    name: String,
}

impl Node<'_> {
    async fn push(&self, name: &str) -> String {
        let repository = format!("{}/{name}", self.ns.name);
        let spec = ImageSpec::new(rand::random())
            .layers(1, 10_000)
            .runs(&Env::noop(), &["hold"]);
        self.env.push(Auth, &spec, &repository, "1").await;
        format!("{}/{repository}:1", self.registry.host)
    }

    async fn pull_by_job(&self, cache: &str, image: &str) {
        let spec = json!({
            "images": [{"image": image}], "pullSecrets": [{"name": "regcred"}], "puller": "Job",
            "nodes": {
                "selector": {"matchLabels": {"verify": self.name}},
                "tolerations": [{"key": "verify", "operator": "Exists"}],
            },
        });
        self.ns.cache(cache, spec).await.ready(90).await;
    }

    /// As the agent pulls: through the runtime, past the kubelet.
    fn pull_by_agent(&self, image: &str) {
        let (user, password) = self.registry.credentials.clone().unwrap();
        let auths = json!({"auths": {self.registry.host.clone(): {"username": user, "password": password}}});
        let config = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(config.path(), auths.to_string()).unwrap();
        let config = config.path().to_str().unwrap();
        let pulled = agent(self.env, &self.name, &["pull", image, "--docker-config", config]);
        assert!(pulled.status.success(), "{pulled:?}");
    }

    /// Which of the pods start with the image.
    async fn pods(&self, image: &str) -> Started {
        let mut started = [false; PODS.len()];
        for (started, (secret, policy)) in started.iter_mut().zip(PODS) {
            let pod = self.pod(image, secret, policy).await;
            *started = self.starts(&pod).await;
        }
        started
    }

    async fn pod(&self, image: &str, secret: bool, policy: &str) -> String {
        let secrets = if secret {
            json!([{"name": "regcred"}])
        } else {
            json!([])
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "user-"},
            "spec": {
                "nodeName": self.name, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}], "imagePullSecrets": secrets,
                "containers": [{"name": "main", "image": image, "imagePullPolicy": policy}],
            },
        }))
        .unwrap();
        let pods = self.ns.api::<Pod>();
        let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
        pod.metadata.name.unwrap()
    }

    /// Whether the pod's container starts; else the kubelet refused the image.
    async fn starts(&self, pod: &str) -> bool {
        let pods: Api<Pod> = self.ns.api();
        let refusal = |waiting: &ContainerStateWaiting| {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            ["ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff"].contains(&reason)
        };
        eventually(&format!("{pod} starts or does not"), 60, || async {
            let status = pods.get(pod).await.unwrap().status.unwrap_or_default();
            let containers = status.container_statuses.unwrap_or_default();
            let state = containers
                .first()
                .and_then(|c| c.state.clone())
                .unwrap_or_default();
            if state.running.is_some() || state.terminated.is_some() {
                return Ok(true);
            }
            if state.waiting.as_ref().is_some_and(refusal) {
                return Ok(false);
            }
            Err(format!("{containers:?}"))
        })
        .await
    }
}
