#![allow(clippy::unwrap_used)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use larder_api::{NodeImageCache, NodeImageCacheSpec};
use larder_core::purge::{PurgeJob, PurgeJobView};
use larder_core::removal::PurgeEntry;

use super::build;
use crate::config::{PodSettings, PullPolicy};
use crate::pullers::pod::pod_of;

fn purge() -> PurgeJob {
    PurgeJob {
        name: "larder-purge-x-0".into(),
        work: "x-0".into(),
        node: "node-1".into(),
        node_uid: "node-uid".into(),
        entries: vec![PurgeEntry {
            // What no shell ever sees cannot be understood by one.
            reference: "docker.io/library/a:1; rm -rf /".into(),
            digest: None,
            claimed_at: jiff::Timestamp::UNIX_EPOCH,
            all: true,
        }],
        keep: vec!["docker.io/library/a@sha256:1".into()],
    }
}

fn settings() -> PodSettings {
    PodSettings {
        agent_image: "agent:1".into(),
        noop_image: "noop:1".into(),
        image_pull_policy: PullPolicy::IfNotPresent,
        agents_namespace: "larder-agents".into(),
    }
}

#[test]
fn the_agent_gets_its_entries_as_arguments_and_nothing_else() {
    let mut object = NodeImageCache::new("node-1", NodeImageCacheSpec::default());
    object.metadata.uid = Some("object-uid".into());
    let mut job = build(&purge(), &object, &settings());
    job.metadata.creation_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    let view = PurgeJobView::read(&job, &[]).unwrap();
    assert_eq!((view.work.as_str(), view.node_uid.as_str()), ("x-0", "node-uid"));
    assert_eq!(job.metadata.namespace.as_deref(), Some("larder-agents"));
    let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str()),
        ("NodeImageCache", "object-uid")
    );

    let spec = pod_of(&job).spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("larder-purge"));
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(
        spec.tolerations.as_ref().unwrap()[0].operator.as_deref(),
        Some("Exists")
    );
    assert_eq!((spec.host_network, spec.host_pid), (None, None));
    let container = &spec.containers[0];
    assert_eq!(container.command, None);
    let args = container.args.as_deref().unwrap();
    assert_eq!(&args[..4], ["purge", "--host-run", "/host/run", "--entry"]);
    let entry: PurgeEntry = serde_json::from_str(&args[4]).unwrap();
    assert_eq!(entry, purge().entries.remove(0));
    assert_eq!(&args[5..], ["--keep", "docker.io/library/a@sha256:1"]);
}

#[test]
fn root_at_the_socket_and_no_more() {
    let object = NodeImageCache::new("node-1", NodeImageCacheSpec::default());
    let spec = pod_of(&build(&purge(), &object, &settings())).spec.unwrap();
    let container = &spec.containers[0];
    let security = container.security_context.as_ref().unwrap();
    assert_eq!((security.run_as_user, security.privileged), (Some(0), None));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    assert_eq!(
        security.capabilities.as_ref().unwrap().drop.as_deref().unwrap(),
        ["ALL"]
    );
    assert_eq!(security.read_only_root_filesystem, Some(true));
    assert_eq!(container.volume_mounts.as_ref().unwrap()[0].read_only, Some(true));
    let volumes = spec.volumes.unwrap();
    let path = volumes[0].host_path.as_ref().unwrap();
    assert_eq!(
        (volumes.len(), path.path.as_str(), path.type_.as_deref()),
        (1, "/run", Some("Directory"))
    );
}
