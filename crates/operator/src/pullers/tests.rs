#![allow(clippy::unwrap_used)]

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use larder_api::names::Reason;
use larder_api::node_image_cache::NodeState;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, Log, cache, context, node, object, refuse, revision};

const STATUS: &str = "PATCH /apis/larder.dev/v1alpha1/nodeimagecaches/node-1/status";
const DRY: &str = "POST /api/v1/namespaces/team/pods dry";
const JOBS: &str = "POST /apis/batch/v1/namespaces/team/jobs";

/// A world with one node that should hold one image and has not begun.
fn begun(answer: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static) -> (Arc<Context>, Log) {
    let (ctx, log) = context(answer);
    ctx.world.nodes.apply(&node());
    ctx.world.caches.apply(cache());
    ctx.world.revisions.apply(revision());
    ctx.world.objects.apply(object());
    (ctx, log)
}

async fn run(ctx: &Arc<Context>) -> Result<Option<Duration>, Error> {
    reconcile(Arc::clone(ctx), "node-1".into()).await
}

fn job(ctx: &Context) -> Arc<Job> {
    ctx.world.jobs.all().first().cloned().unwrap()
}

/// A pod of the Job whose one image arrived.
fn done(job: &Job) -> Pod {
    let mut pod = super::pod::pod_of(job);
    pod.metadata.uid = Some("pod-uid".into());
    pod.metadata.resource_version = Some("5000".into());
    pod.metadata
        .creation_timestamp
        .clone_from(&job.metadata.creation_timestamp);
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": job.metadata.uid}]);
    pod.metadata.owner_references = serde_json::from_value(owner).unwrap();
    let digest = "1".repeat(64);
    pod.status = serde_json::from_value(json!({
        "phase": "Succeeded",
        "containerStatuses": [{
            "name": "i0", "image": "", "ready": false, "restartCount": 0,
            "imageID": format!("docker.io/library/nginx@sha256:{digest}"),
            "state": {"terminated": {"exitCode": 0, "containerID": "containerd://1"}},
        }],
    }))
    .unwrap();
    pod
}

#[tokio::test]
async fn a_pod_is_tried_before_its_job_is_made_and_the_job_is_known_at_once() {
    let (ctx, log) = begun(|_| None);
    run(&ctx).await.unwrap();
    let pod = log.body(DRY);
    let job = log.body(JOBS);
    assert_eq!(
        pod["spec"], job["spec"]["template"]["spec"],
        "the pod that is tried is the pod of the Job"
    );
    let writes = log.writes();
    assert_eq!(
        writes.iter().filter(|w| *w != STATUS).collect::<Vec<_>>(),
        [DRY, JOBS]
    );
    run(&ctx).await.unwrap();
    assert!(
        !log.writes().iter().any(|w| w == JOBS),
        "what we made ourselves is not made again"
    );
}

#[tokio::test]
async fn what_a_job_showed_is_written_before_the_job_goes() {
    let (ctx, log) = begun(|_| None);
    run(&ctx).await.unwrap();
    let job = job(&ctx);
    ctx.world.pods.apply(done(&job));
    log.writes();
    run(&ctx).await.unwrap();
    let path = format!(
        "DELETE /apis/batch/v1/namespaces/team/jobs/{}",
        job.metadata.name.as_deref().unwrap()
    );
    assert_eq!(log.body(&path)["propagationPolicy"], "Background");
    assert_eq!(log.body(&path)["preconditions"]["uid"], json!(job.metadata.uid));
    let writes = log.writes();
    assert_eq!(writes, [STATUS.to_owned(), path]);
    let object = ctx.world.objects.get("", "node-1").unwrap();
    let on_node = &object.status.as_ref().unwrap().kubelet.as_ref().unwrap().caches[0];
    assert_eq!(
        (on_node.state, on_node.held.as_slice()),
        (NodeState::Ready, &["web-1".to_owned()][..])
    );
    assert!(ctx.world.jobs.is_empty());
    run(&ctx).await.unwrap();
    assert_eq!(log.writes(), Vec::<String>::new(), "a settled node is silent");
}

#[tokio::test]
async fn what_was_known_in_the_second_of_a_job_is_in_doubt_once_its_pod_found_another_digest() {
    let (ctx, _) = begun(|_| None);
    run(&ctx).await.unwrap();
    let job = job(&ctx);
    let made_at = job.metadata.creation_timestamp.as_ref().unwrap().0;
    let reference = "docker.io/library/nginx:1.27";
    let known = |at: Timestamp| ctx.resolver.learned(reference, "sha256:old", at);
    known(made_at);
    assert!(!ctx.resolver.in_doubt(reference));
    let mut pod = done(&job);
    let other = format!("docker.io/library/nginx@sha256:{}", "f".repeat(64));
    pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].image_id = other;
    ctx.world.pods.apply(pod);
    run(&ctx).await.unwrap();
    assert!(ctx.resolver.in_doubt(reference));
    // What is answered from now on does, though the second of the Job may not be over.
    known(Timestamp::now());
    assert!(!ctx.resolver.in_doubt(reference));
}

#[tokio::test]
async fn nothing_is_deleted_or_made_while_the_status_cannot_be_written() {
    let (ctx, log) = begun(|_| None);
    run(&ctx).await.unwrap();
    let pod = done(&job(&ctx));
    let world = [job(&ctx)];
    let (ctx, log) = {
        drop((ctx, log));
        begun(|asked| (asked.what == STATUS).then(|| refuse(500, "InternalError", "etcd is away")))
    };
    ctx.world.jobs.apply((*world[0]).clone());
    ctx.world.pods.apply(pod);
    assert!(matches!(run(&ctx).await, Err(Error::Status(_))));
    assert_eq!(log.writes(), [STATUS]);
    assert_eq!(ctx.world.jobs.len(), 1);
}

#[tokio::test]
async fn a_refused_pod_is_reported_in_the_api_servers_words_and_makes_no_job() {
    let (ctx, log) =
        begun(|asked| (asked.what == DRY).then(|| refuse(403, "Forbidden", "exceeded quota: none")));
    run(&ctx).await.unwrap();
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake <= Duration::from_mins(1), "it is tried again in {wake:?}");
    let writes = log.writes();
    assert!(!writes.iter().any(|w| w == JOBS), "{writes:?}");
    let object = ctx.world.objects.get("", "node-1").unwrap();
    let on_node = &object.status.as_ref().unwrap().kubelet.as_ref().unwrap().caches[0];
    assert_eq!(
        (on_node.reason, on_node.message.as_str()),
        (Some(Reason::PodRejected), "exceeded quota: none")
    );
}

#[tokio::test]
async fn a_job_that_is_there_already_is_ours() {
    let (ctx, _) = begun(|asked| (asked.what == JOBS).then(|| refuse(409, "AlreadyExists", "it exists")));
    run(&ctx).await.unwrap();
}

#[tokio::test]
async fn an_api_server_in_trouble_is_no_refusal() {
    let (ctx, _) =
        begun(|asked| (asked.what == DRY).then(|| refuse(500, "InternalError", "webhook timed out")));
    assert!(matches!(run(&ctx).await, Err(Error::Try(_))));
}

#[tokio::test]
async fn an_object_that_is_gone_is_forgotten_and_one_that_was_made_anew_is_not_written() {
    let (ctx, log) = begun(|_| None);
    run(&ctx).await.unwrap();
    let job = job(&ctx);
    let (gone, log) = {
        drop(log);
        begun(|asked| (asked.what == STATUS).then(|| refuse(404, "NotFound", "no such object")))
    };
    gone.world.jobs.apply((*job).clone());
    gone.world.pods.apply(done(&job));
    run(&gone).await.unwrap();
    assert_eq!(log.writes(), [STATUS]);
    assert!(gone.world.objects.is_empty());
}

#[tokio::test]
async fn pods_are_made_no_faster_than_allowed() {
    let (ctx, log) = begun(|_| None);
    for _ in 0..5 {
        assert_eq!(
            ctx.pod_pace
                .reserve(Instant::now())
                .saturating_duration_since(Instant::now()),
            Duration::ZERO
        );
    }
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake <= Duration::from_millis(200), "{wake:?}");
    assert!(!log.writes().iter().any(|w| w == JOBS || w == DRY));
    tokio::time::sleep(wake).await;
    run(&ctx).await.unwrap();
    assert!(log.writes().iter().any(|w| w == JOBS), "its turn was kept for it");
}

/// An agent's pod on `node-1`, Ready.
fn agents_pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "agent", "namespace": "larder-agents", "uid": "agent-uid", "resourceVersion": "50",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"larder.dev/purpose": "agent"},
        },
        "spec": {"containers": [], "nodeName": "node-1"},
        "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
    }))
    .unwrap()
}

#[tokio::test]
async fn where_an_agent_is_at_work_the_operator_neither_pulls_nor_writes() {
    let (ctx, log) = begun(|_| None);
    ctx.world.pods.apply(agents_pod());
    let mut said = object();
    said.metadata.resource_version = Some("13".into());
    let agent = said.status.get_or_insert_default().agent.get_or_insert_default();
    agent.pod_uid = "agent-uid".into();
    agent.puller.node_uid = "node-uid".into();
    ctx.world.objects.apply(said);
    assert_eq!(run(&ctx).await.unwrap(), None);
    assert_eq!(log.writes(), Vec::<String>::new());

    // It goes: its images wait for a moment, then the kubelet pulls.
    let gone = ctx
        .world
        .pods
        .gone("larder-agents", "agent", "agent-uid")
        .unwrap();
    let seen = Timestamp::now() - jiff::SignedDuration::from_secs(5);
    assert_eq!(ctx.world.gone.note(&gone, seen).as_deref(), Some("node-1"));
    let wake = run(&ctx).await.unwrap().unwrap();
    assert!(wake <= Duration::from_secs(10), "{wake:?}");
    assert_eq!(log.writes(), Vec::<String>::new());
    ctx.world
        .gone
        .note(&gone, Timestamp::now() - jiff::SignedDuration::from_secs(20));
    run(&ctx).await.unwrap();
    assert!(log.writes().contains(&JOBS.to_owned()));
}
