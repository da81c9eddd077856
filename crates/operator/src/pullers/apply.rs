//! Does what was decided for a node.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Resource, ResourceExt};
use larder_api::NodeImageCache;
use larder_api::names::FIELD_MANAGER;
use larder_api::node_image_cache::PullerStatus;
use larder_core::message::{redact, shorten};
use larder_core::pull::{JobKey, PullJob, Rejection};
use larder_core::purge::PurgeJob;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::gather::Gathered;
use super::{job, pod, purge};
use crate::api_error::{is_already_exists, is_conflict, is_not_found, refusal};
use crate::context::Context;

/// Characters of the API server's words that are kept.
const WORDS: usize = 512;
/// A reserved turn that is older than this was for a pod that is not wanted any more.
const TURN_LASTS: Duration = Duration::from_secs(10);

/// What could not be done for a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's status was not written; nothing was deleted or created.
    #[error("cannot write the status of the node's object")]
    Status(#[source] kube::Error),
    /// A Job is still there.
    #[error("cannot delete a Job")]
    Delete(#[source] kube::Error),
    /// The API server could not say whether it would take a pod.
    #[error("cannot try a pod")]
    Try(#[source] kube::Error),
    /// A Job was not made.
    #[error("cannot create a Job")]
    Create(#[source] kube::Error),
}

/// Writes `status.kubelet` of a node's object, whole. False if the object is gone: the world knows by then, and the
/// node is looked at again.
pub(super) async fn write_status(
    ctx: &Context,
    object: &NodeImageCache,
    status: &PullerStatus,
) -> Result<bool, Error> {
    let api: Api<NodeImageCache> = Api::all(ctx.client.clone());
    let name = object.name_any();
    let uid = object.uid().unwrap_or_default();
    let body = serde_json::json!({
        "apiVersion": NodeImageCache::api_version(&()),
        "kind": NodeImageCache::kind(&()),
        // The UID makes sure that it is this very object, and not one made anew under its name.
        "metadata": {"name": name, "uid": uid},
        "status": {"kubelet": status},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&name, &params, &Patch::Apply(&body)).await {
        Ok(written) => {
            ctx.wrote_object(written);
            Ok(true)
        }
        Err(error) => {
            if !is_gone(&api, &name, &uid, &error).await {
                return Err(Error::Status(error));
            }
            if let Some(change) = ctx.world.objects.gone("", &name, &uid) {
                ctx.queues.object_changed(&change);
            }
            Ok(false)
        }
    }
}

/// Whether a refused write means that the object of this UID is no more. A conflict alone does not prove it.
async fn is_gone<K>(api: &Api<K>, name: &str, uid: &str, error: &kube::Error) -> bool
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if is_not_found(error) {
        return true;
    }
    let found = if is_conflict(error) {
        api.get_opt(name).await.ok()
    } else {
        None
    };
    found.is_some_and(|object| object.is_none_or(|o| o.meta().uid.as_deref() != Some(uid)))
}

/// Deletes Jobs. One that cannot be deleted does not keep the others.
pub(super) async fn delete(ctx: &Context, node: &str, jobs: &[JobKey]) -> Result<(), Error> {
    let mut result = Ok(());
    for key in jobs {
        if let Err(error) = delete_one(ctx, node, key).await {
            result = Err(Error::Delete(error));
        }
    }
    result
}

async fn delete_one(ctx: &Context, node: &str, key: &JobKey) -> Result<(), kube::Error> {
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &key.namespace);
    // While its pod is at work, or on its way, a Job stays until that has ended, so that nothing else begins before.
    let ended = all_ended(&ctx.world.pods.indexed(node), &key.uid);
    let policy = if ended {
        PropagationPolicy::Background
    } else {
        PropagationPolicy::Foreground
    };
    let params = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(Preconditions {
            uid: Some(key.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let change = match api.delete(&key.name, &params).await {
        // The object is sent back if it stays for a while.
        Ok(answer) if answer.is_left() => {
            let now = Time(Timestamp::now());
            ctx.world
                .jobs
                .mark_deleting(&key.namespace, &key.name, &key.uid, now)
        }
        Ok(_) => ctx.world.jobs.gone(&key.namespace, &key.name, &key.uid),
        Err(error) if is_gone(&api, &key.name, &key.uid, &error).await => {
            ctx.world.jobs.gone(&key.namespace, &key.name, &key.uid)
        }
        Err(error) => return Err(error),
    };
    if let Some(change) = change {
        ctx.queues.work_changed(&change);
    }
    Ok(())
}

/// Whether the Job had a pod and none is at work any more.
fn all_ended(pods: &[Arc<Pod>], job_uid: &str) -> bool {
    let of_job = |pod: &&Arc<Pod>| {
        pod.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|o| o.uid == job_uid)
    };
    let phases: Vec<&str> = pods
        .iter()
        .filter(of_job)
        .filter_map(|p| p.status.as_ref()?.phase.as_deref())
        .collect();
    !phases.is_empty() && phases.iter().all(|p| matches!(*p, "Succeeded" | "Failed"))
}

/// Creates Jobs as fast as the whole operator may. Returns after how long it is this node's turn for the next one.
pub(super) async fn create(
    ctx: &Context,
    node: &str,
    gathered: &Gathered,
    pulls: &[PullJob],
    purges: &[PurgeJob],
) -> Result<Option<Duration>, Error> {
    for wanted in pulls {
        let (Some(cache), Some(facts)) = (gathered.cache(&wanted.cache_uid), &gathered.node) else {
            continue;
        };
        if let Some(wait) = turn(ctx, node) {
            return Ok(Some(wait));
        }
        let agent = ctx.world.agent_runs(node, &ctx.pods.agent_image);
        let program = ctx.pods.program(agent);
        let built = job::build(wanted, cache, &ctx.wanted(cache), facts, &program);
        match try_and_create(ctx, built).await? {
            Made::Yes => ctx.with_memory(node, |memory| {
                memory.rejections.remove(&wanted.cache_uid);
            }),
            Made::Refused(words) => refused(ctx, node, &wanted.cache_uid, &words),
        }
    }
    for wanted in purges {
        let Some(object) = &gathered.object else { continue };
        if let Some(wait) = turn(ctx, node) {
            return Ok(Some(wait));
        }
        create_one(ctx, &purge::build(wanted, object, &ctx.pods))
            .await
            .map_err(Error::Create)?;
    }
    Ok(None)
}

/// Takes this node's turn to make a pod; if it is not yet, how long to wait.
fn turn(ctx: &Context, node: &str) -> Option<Duration> {
    let now = Instant::now();
    ctx.with_memory(node, |memory| {
        let kept = memory
            .turn
            .take()
            .filter(|at| now.saturating_duration_since(*at) < TURN_LASTS);
        let at = kept.unwrap_or_else(|| ctx.pod_pace.reserve(now));
        if at <= now {
            return None;
        }
        memory.turn = Some(at);
        Some(at - now)
    })
}

enum Made {
    Yes,
    Refused(String),
}

/// A pod that is refused shows only in the Events of its Job: so the pod is tried first, without making it.
async fn try_and_create(ctx: &Context, job: Job) -> Result<Made, Error> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
    let dry = PostParams {
        dry_run: true,
        field_manager: Some(FIELD_MANAGER.into()),
    };
    match pods.create(&dry, &pod::pod_of(&job)).await {
        Ok(_) => {}
        Err(error) if is_already_exists(&error) => {}
        Err(error) => {
            return refusal(&error)
                .map(|words| Made::Refused(words.to_owned()))
                .ok_or(Error::Try(error));
        }
    }
    match create_one(ctx, &job).await {
        Ok(()) => Ok(Made::Yes),
        Err(error) => refusal(&error)
            .map(|words| Made::Refused(words.to_owned()))
            .ok_or(Error::Create(error)),
    }
}

async fn create_one(ctx: &Context, job: &Job) -> Result<(), kube::Error> {
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match jobs.create(&params, job).await {
        Ok(created) => {
            ctx.wrote_job(created);
            Ok(())
        }
        // Ours, from before a restart, or one that is about to go: the watch tells.
        Err(error) if is_already_exists(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn refused(ctx: &Context, node: &str, cache_uid: &str, words: &str) {
    let message = shorten(&redact(words), WORDS);
    let news = ctx.with_memory(node, |memory| {
        let before = memory.rejections.get(cache_uid);
        let news = before.is_none_or(|b| b.message != message);
        let attempts = before.map_or(0, |b| b.attempts).saturating_add(1);
        let rejection = Rejection {
            message: message.clone(),
            at: Timestamp::now(),
            attempts,
        };
        memory.rejections.insert(cache_uid.to_owned(), rejection);
        news
    });
    if news {
        tracing::info!(node, message, "the API server refused a pull pod");
    }
    // The decision takes it from here.
    ctx.queues.nodes.mark(node.to_owned());
}
