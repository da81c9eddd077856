//! One node: boots like a machine (namespaces, disk, containerd), then joins (kubelet, kube-proxy).

pub mod containerd;
mod files;
pub mod kubelet;
mod pause;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::pause::Waiter;
use crate::cluster::control::components::Site;
use crate::cluster::error::{Error, Result};
use crate::cluster::layout::Layout;
use crate::cluster::machine::cgroup::Cgroups;
use crate::cluster::machine::command::run;
use crate::cluster::machine::launch::Launch;
use crate::cluster::machine::loops;
use crate::cluster::machine::mounts::{NODE_FOLDER, NodeMounts};
use crate::cluster::machine::netns;
use crate::cluster::machine::process::{Components, kill_pid};
use crate::cluster::name::ClusterName;
use crate::cluster::ready;
use crate::cluster::state::{ClusterState, NodeState, write_atomically};

/// How long a step of a node's start may take on a machine that is busy with builds.
const PATIENCE: Duration = Duration::from_mins(1);

/// The components of a node, in the order in which they start. The first keeps its namespaces.
pub const COMPONENTS: [&str; 4] = ["hold", "containerd", "kubelet", "kube-proxy"];

/// Brings a node to where its containerd answers. What runs already is left alone.
pub fn boot(site: &Site, node: &NodeState) -> Result<()> {
    let components = Components::new(&site.layout);
    let hold = format!("{}/hold", node.name);
    if !components.is_alive(&hold) {
        power_off(&site.name, &site.layout, &site.cgroups, node)?;
        site.cgroups.create(&system_cgroup(&site.name, &node.name))?;
        netns::create_node(&site.name, &node.name, node.number)?;
        files::prepare(site, node)?;
        let mut launch = Launch::new("sleep", ["infinity"]);
        launch.mounts = Some(NodeMounts {
            hostname: node.name.clone(),
            machine_id: files::machine_id(&site.name, &node.name),
            folder: site.layout.node(&node.name),
        });
        components.start(&hold, &inside(site, node, launch))?;
    }
    wait(&components, &hold, "the node's namespaces", || {
        holder(&site.layout, &node.name).is_some()
    })?;

    let component = format!("{}/containerd", node.name);
    components.ensure(&component, || start_containerd(site, node))?;
    let socket = socket(&site.layout, &node.name)?;
    wait(&components, &component, "containerd's socket", || {
        UnixStream::connect(&socket).is_ok()
    })?;
    import_pause(site, node)
}

/// Starts a node's kubelet and kube-proxy, once the API server and containerd answer, and says when the kubelet was
/// started. What runs already is left alone.
pub async fn join(site: &Site, state: &ClusterState, node: &NodeState) -> Result<Option<Timestamp>> {
    ready::runtime(&site.layout, &node.name, &socket(&site.layout, &node.name)?).await?;
    let components = Components::new(&site.layout);
    let now = Timestamp::now();
    let kubelet = components.ensure(&format!("{}/kubelet", node.name), || {
        start_kubelet(site, state, node)
    })?;
    components.ensure(&format!("{}/kube-proxy", node.name), || start_proxy(site, node))?;
    Ok(kubelet.then_some(now))
}

/// Kills everything on a node at once, as a power cut does, and takes its network away. Its disk stays.
pub fn power_off(name: &ClusterName, layout: &Layout, cgroups: &Cgroups, node: &NodeState) -> Result<()> {
    let components = Components::new(layout);
    for component in COMPONENTS {
        components.forget(&format!("{}/{component}", node.name))?;
    }
    let cgroup = name.node_cgroup(&node.name);
    kill_all(&format!("the processes of {}", node.name), || {
        cgroups.processes(&cgroup)
    })?;
    netns::delete_node(name, &node.name, node.number)?;
    cgroups.remove(&cgroup, Duration::from_secs(10))?;
    loops::release(&layout.node_disk(&node.name))
}

/// Kills what `find` finds until it finds nothing.
pub fn kill_all(what: &str, find: impl Fn() -> std::collections::BTreeSet<i32>) -> Result<()> {
    let began = Instant::now();
    loop {
        let left = find();
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Timeout {
                what: format!("the end of {what}"),
                after: PATIENCE,
                detail: Some(format!("{left:?}")),
            });
        }
        for pid in left {
            kill_pid(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The process that keeps a node's namespaces, once they are complete.
pub fn holder(layout: &Layout, node: &str) -> Option<i32> {
    let process = Components::new(layout).record(&format!("{node}/hold"))?.process;
    (process.is_alive() && process.program().as_deref() == Some("sleep")).then_some(process.pid)
}

/// A node's containerd socket, as this machine reaches it while the node is on.
pub fn socket(layout: &Layout, node: &str) -> Result<PathBuf> {
    Ok(root(layout, node)?.join("run/containerd/containerd.sock"))
}

/// A node's file system as this machine sees it while the node is on.
pub fn root(layout: &Layout, node: &str) -> Result<PathBuf> {
    let pid = holder(layout, node).ok_or_else(|| Error::Refused(format!("{node} is off")))?;
    Ok(PathBuf::from(format!("/proc/{pid}/root")))
}

/// Runs a program inside a node and returns what it printed.
pub fn exec(layout: &Layout, node: &str, program: &str, args: &[&str]) -> Result<String> {
    let pid = holder(layout, node)
        .ok_or_else(|| Error::Refused(format!("{node} is off")))?
        .to_string();
    run(
        "nsenter",
        &[&["-t", &pid, "-m", "-u", "-n", "--", program], args].concat(),
    )
}

/// How to start a node's containerd.
pub fn start_containerd(site: &Site, node: &NodeState) -> Result<Launch> {
    let mut launch = Launch::new(
        site.binaries.join("containerd"),
        ["--config=/etc/containerd/config.toml"],
    );
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    launch
        .env
        .insert("PATH".into(), format!("{}:{path}", site.binaries.display()));
    beside_holder(site, node, launch)
}

/// How to start a node's kubelet; writes its configuration.
pub fn start_kubelet(site: &Site, state: &ClusterState, node: &NodeState) -> Result<Launch> {
    let cgroup = site.name.node_cgroup(&node.name);
    let config = kubelet::config(node, &cgroup, state.serialize_image_pulls, &state.kubernetes);
    let file = site.layout.node(&node.name).join("kubelet.json");
    write_atomically(&file, format!("{config:#}\n").as_bytes())?;
    beside_holder(
        site,
        node,
        Launch::new(site.binaries.join("kubelet"), kubelet::args(node)),
    )
}

/// How to start a node's kube-proxy; writes its configuration.
pub fn start_proxy(site: &Site, node: &NodeState) -> Result<Launch> {
    let file = site.layout.node(&node.name).join("kube-proxy.json");
    write_atomically(&file, format!("{:#}\n", kubelet::proxy_config(node)).as_bytes())?;
    let args = [format!("--config={NODE_FOLDER}/kube-proxy.json")];
    beside_holder(site, node, Launch::new(site.binaries.join("kube-proxy"), args))
}

/// The leaf for a node's own components; pods go beside it.
fn system_cgroup(name: &ClusterName, node: &str) -> String {
    format!("{}/system", name.node_cgroup(node))
}

fn inside(site: &Site, node: &NodeState, mut launch: Launch) -> Launch {
    launch.cgroup = site.cgroups.join_files(&system_cgroup(&site.name, &node.name));
    launch.netns = Some(netns::path(&site.name.node_netns(&node.name)));
    launch
}

fn beside_holder(site: &Site, node: &NodeState, launch: Launch) -> Result<Launch> {
    let mut launch = inside(site, node, launch);
    let pid =
        holder(&site.layout, &node.name).ok_or_else(|| Error::Refused(format!("{} is off", node.name)))?;
    launch.beside = Some(pid);
    Ok(launch)
}

/// Gives containerd the image of every sandbox, unless it has it.
fn import_pause(site: &Site, node: &NodeState) -> Result<()> {
    let ctr = site.binaries.join("ctr");
    let ctr = ctr.to_string_lossy();
    let present = exec(
        &site.layout,
        &node.name,
        &ctr,
        &["-n", "k8s.io", "images", "list", "-q"],
    )?;
    if present.lines().any(|image| image == containerd::PAUSE_IMAGE) {
        return Ok(());
    }
    let archive = site.layout.node(&node.name).join("pause.tar");
    Waiter::find()?.write_archive(&archive)?;
    let seen = format!("{NODE_FOLDER}/pause.tar");
    exec(
        &site.layout,
        &node.name,
        &ctr,
        &["-n", "k8s.io", "images", "import", &seen],
    )?;
    Ok(())
}

fn wait(components: &Components, component: &str, what: &str, done: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !done() {
        if !components.is_alive(component) {
            return Err(components.died(component));
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Timeout {
                what: format!("{component}: {what}"),
                after: PATIENCE,
                detail: None,
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_kill_is_done_at_once() {
        kill_all("nothing", std::collections::BTreeSet::new).unwrap();
    }
}
