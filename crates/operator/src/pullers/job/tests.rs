#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{Pod, Toleration};
use larder_api::ImageCacheSpec;
use larder_api::image_cache::{PodTemplate, PullSecret};
use larder_core::facts::NodeFacts;
use larder_core::pull::{JobView, PullJob};

use super::build;
use crate::config::{PodSettings, PullPolicy};
use crate::pullers::pod::pod_of;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::ImageCache;

fn settings() -> PodSettings {
    PodSettings {
        agent_image: "agent:1".into(),
        noop_image: "noop:1".into(),
        image_pull_policy: PullPolicy::Always,
        agents_namespace: "larder-agents".into(),
    }
}

fn pull() -> PullJob {
    PullJob {
        namespace: "team".into(),
        name: "larder-pull-x".into(),
        cache: "web".into(),
        cache_uid: "cache-uid".into(),
        revision: "web-1".into(),
        node: "node-1".into(),
        node_uid: "node-uid".into(),
        images: vec![
            "docker.io/library/nginx:1.27".into(),
            format!("docker.io/library/redis@sha256:{}", "a".repeat(64)),
        ],
        deadline_seconds: 4200,
    }
}

fn job(spec: ImageCacheSpec) -> Job {
    job_beside(false, spec)
}

/// For a node on which an agent runs, or not.
fn job_beside(agent: bool, spec: ImageCacheSpec) -> Job {
    build(
        &pull(),
        &ImageCache::new("web", spec.clone()),
        &larder_core::images::wanted(&spec),
        &NodeFacts::default(),
        &settings().program(agent),
    )
}

fn pod(spec: ImageCacheSpec) -> Pod {
    pod_of(&job(spec))
}

#[test]
fn the_core_reads_back_what_it_asked_for() {
    let mut job = job(ImageCacheSpec::default());
    job.metadata.creation_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    let view = JobView::read(&job, &[]).unwrap();
    let pull = pull();
    assert_eq!((view.key.namespace, view.key.name), (pull.namespace, pull.name));
    assert_eq!(
        (view.cache_uid, view.revision, view.node_uid),
        (pull.cache_uid, pull.revision, pull.node_uid)
    );
    assert_eq!(view.images, pull.images);
}

#[test]
fn one_try_on_one_node_that_ends_by_itself() {
    let job = job(ImageCacheSpec::default());
    let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()),
        ("ImageCache", "web", "cache-uid")
    );
    assert_eq!(
        (owner.controller, owner.block_owner_deletion),
        (Some(true), Some(false))
    );
    let spec = job.spec.as_ref().unwrap();
    assert_eq!(
        (spec.backoff_limit, spec.completions, spec.parallelism),
        (Some(0), Some(1), Some(1))
    );
    assert_eq!(
        (spec.active_deadline_seconds, spec.ttl_seconds_after_finished),
        (Some(4200), Some(600))
    );
    let pod = pod_of(&job);
    let affinity = serde_json::to_value(pod.spec.as_ref().unwrap().affinity.as_ref().unwrap()).unwrap();
    let required =
        "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0";
    assert_eq!(
        affinity.pointer(required).unwrap(),
        &serde_json::json!({"key": "metadata.name", "operator": "In", "values": ["node-1"]})
    );
    let annotations = pod.metadata.annotations.unwrap();
    assert_eq!(annotations["larder.dev/node"], "node-1");
    assert_eq!(
        annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"],
        "true"
    );
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(
        (
            labels["app.kubernetes.io/managed-by"].as_str(),
            labels["larder.dev/purpose"].as_str()
        ),
        ("larder", "pull")
    );
}

#[test]
fn where_an_agent_runs_its_image_brings_the_program() {
    for (agent, expected) in [(false, "noop:1"), (true, "agent:1")] {
        let pod = pod_of(&job_beside(agent, ImageCacheSpec::default()));
        assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some(expected));
    }
}

#[test]
fn tags_are_asked_for_anew_and_digests_are_not() {
    let containers = pod(ImageCacheSpec::default()).spec.unwrap().containers;
    let of = |i: usize| {
        (
            containers[i].name.as_str(),
            containers[i].image_pull_policy.as_deref().unwrap(),
        )
    };
    assert_eq!(
        [of(0), of(1), of(2)],
        [("noop", "Always"), ("i0", "Always"), ("i1", "IfNotPresent")]
    );
    assert_eq!(containers.len(), 3);
    assert_eq!(
        containers[1].image.as_deref(),
        Some("docker.io/library/nginx:1.27")
    );
}

/// The controls of Pod Security `restricted`, version v1.33, as far as they concern these fields.
#[test]
fn every_container_is_confined() {
    let spec = pod(ImageCacheSpec::default()).spec.unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.enable_service_links, Some(false));
    assert_eq!(
        (spec.host_network, spec.host_pid, spec.host_ipc),
        (None, None, None)
    );
    let volumes = spec.volumes.unwrap();
    assert!(
        volumes
            .iter()
            .all(|v| v.empty_dir.is_some() && v.host_path.is_none())
    );
    assert_eq!(spec.init_containers, None);
    assert_eq!(
        spec.containers[0].command.as_deref().unwrap(),
        ["/larder-noop", "install", "/larder/noop"]
    );
    for container in &spec.containers {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.run_as_non_root, Some(true), "{}", container.name);
        // The group of an image's own user may be root.
        assert_eq!(security.run_as_group, security.run_as_user);
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(
            security.capabilities.as_ref().unwrap().drop.as_deref().unwrap(),
            ["ALL"]
        );
        assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
        assert!(container.resources.as_ref().unwrap().limits.is_some());
        let mounts = container.volume_mounts.as_ref().unwrap();
        assert_eq!(
            mounts[0].read_only,
            Some(container.name != "noop"),
            "{}",
            container.name
        );
    }
    for container in &spec.containers[1..] {
        assert_eq!(container.command.as_deref().unwrap(), ["/larder/noop"]);
    }
}

#[test]
fn the_pod_template_and_secrets_are_applied() {
    let spec: ImageCacheSpec = serde_json::from_value(serde_json::json!({
        "images": [],
        "nodes": {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
        "pullSecrets": [{"name": "regcred"}],
        "podTemplate": {
            "serviceAccountName": "puller",
            "priorityClassName": "low",
            "labels": {"team": "a"},
            "annotations": {"note": "b"},
            "resources": {"requests": {"cpu": "2m"}},
        },
    }))
    .unwrap();
    let pod = pod(spec);
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["team"], "a");
    assert_eq!(pod.metadata.annotations.as_ref().unwrap()["note"], "b");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("puller"));
    assert_eq!(spec.priority_class_name.as_deref(), Some("low"));
    assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "regcred");
    let resources = spec.containers[0].resources.as_ref().unwrap();
    assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "2m");
    assert!(
        resources.limits.is_none(),
        "the template's resources replace Larder's own"
    );
    let gpu = Toleration {
        key: Some("gpu".into()),
        operator: Some("Exists".into()),
        ..Toleration::default()
    };
    assert!(spec.tolerations.unwrap().contains(&gpu));
}

#[test]
fn user_labels_do_not_hide_what_larder_finds_its_pods_by() {
    let template = PodTemplate {
        labels: [("app.kubernetes.io/managed-by".to_owned(), "me".to_owned())].into(),
        annotations: [("larder.dev/node".to_owned(), "other".to_owned())].into(),
        ..PodTemplate::default()
    };
    let spec = ImageCacheSpec {
        pod_template: Some(template),
        pull_secrets: vec![PullSecret::default()],
        ..ImageCacheSpec::default()
    };
    let pod = pod(spec);
    assert_eq!(
        pod.metadata.labels.unwrap()["app.kubernetes.io/managed-by"],
        "larder"
    );
    assert_eq!(pod.metadata.annotations.unwrap()["larder.dev/node"], "node-1");
}
