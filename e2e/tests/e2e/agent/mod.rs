//! What only the agent does: pins, progress, the disk guard, repair; and how Jobs and agents hand over to each other.

mod crash;
mod credentials;
mod disk;
mod handover;
mod one_shot;
mod progress;
mod protect;
mod vanish;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use larder_api::NodeImageCache;
use larder_api::node_image_cache::{AgentStatus, ImageOnNode};

use crate::support::{Env, eventually};

/// What the agent of a node says.
async fn told(env: &Env, node: &str) -> AgentStatus {
    let api: Api<NodeImageCache> = Api::all(env.client.clone());
    let object = api.get_opt(node).await.unwrap();
    object
        .and_then(|o| o.status)
        .and_then(|s| s.agent)
        .unwrap_or_default()
}

/// What the agent of a node says of an image that is not ready.
async fn told_of(env: &Env, node: &str, image: &str) -> Option<ImageOnNode> {
    let images = told(env, node).await.puller.images;
    images.into_iter().find(|i| i.image == image)
}

/// The pod of the agent on a node.
async fn pod_on(env: &Env, node: &str) -> Option<Pod> {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), "larder-agents");
    let agents = ListParams::default()
        .labels("app.kubernetes.io/name=larder-agent")
        .fields(&format!("spec.nodeName={node}"));
    pods.list(&agents).await.unwrap().items.into_iter().next()
}

/// Waits until a node's agent is Ready and has told who it is.
async fn agent_is_there(env: &Env, node: &str) {
    eventually(&format!("the agent on {node} is Ready"), 90, || async {
        let pod = pod_on(env, node).await.ok_or("no pod")?;
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone());
        let ready = conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        if ready {
            Ok(())
        } else {
            Err(format!("{:?}", pod.status))
        }
    })
    .await;
}

/// Process id of the agent of a node, as this machine sees it; none while it does not run.
async fn process(env: &Env, node: &str) -> Option<u32> {
    // Other clusters on the machine may have a node of this name, but not this pod.
    let uid = pod_on(env, node).await?.metadata.uid?;
    let wanted = format!("POD_UID={uid}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .find(|(_, path)| {
            let of = |file: &str| std::fs::read(path.join(file)).unwrap_or_default();
            let (command, environment) = (of("cmdline"), of("environ"));
            let program = command.split(|b| *b == 0).next().unwrap_or_default();
            program.ends_with(b"larder-agent")
                && environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes())
        })
        .map(|(pid, _)| pid)
}

/// Kills the agent of a node as the kernel would; false if it does not run.
async fn kill(env: &Env, node: &str) -> bool {
    let Some(pid) = process(env, node).await else {
        return false;
    };
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok()
}
