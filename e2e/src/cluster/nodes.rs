//! The nodes of a running cluster, and what tests do to them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::Api;
use kube::api::DeleteParams;

use crate::cluster::Cluster;
use crate::cluster::addresses as ip;
use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::lock::Lock;
use crate::cluster::machine::netns;
use crate::cluster::machine::process::Components;
use crate::cluster::node;
use crate::cluster::options::NodeOptions;
use crate::cluster::ready::{self, Awaited};
use crate::cluster::state::NodeState;
use crate::cluster::up::Clock;
use crate::progress::Progress;

/// A node of a running cluster.
#[derive(Debug, Clone)]
pub struct Node {
    cluster: Cluster,
    state: NodeState,
}

impl Cluster {
    /// All nodes, stopped ones too, in the order in which they were added.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self
            .state()?
            .nodes
            .into_iter()
            .map(|state| Node {
                cluster: self.clone(),
                state,
            })
            .collect())
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<Node> {
        Ok(Node {
            cluster: self.clone(),
            state: self.state()?.node(name)?.clone(),
        })
    }

    /// Adds a node and returns when it is Ready.
    pub async fn node_add(&self, options: NodeOptions, progress: &dyn Progress) -> Result<Node> {
        let name = {
            let _lock = Lock::take(self.layout())?;
            let mut state = self.state()?;
            let node = options.check(&state)?;
            let name = node.name.clone();
            state.nodes.push(node);
            state.save(self.layout())?;
            name
        };
        self.node_start(&name, progress).await
    }

    /// Starts a node that was stopped, and returns when it is Ready. One that runs is repaired.
    pub async fn node_start(&self, name: &str, progress: &dyn Progress) -> Result<Node> {
        let clock = Clock::new(progress);
        let (node, since) = {
            let _lock = Lock::take(self.layout())?;
            let mut state = self.state()?;
            state.node_mut(name)?.stopped = false;
            state.save(self.layout())?;
            let node = state.node(name)?.clone();
            let (site, copy) = (self.site.clone(), node.clone());
            let booted = tokio::task::spawn_blocking(move || node::boot(&site, &copy)).await;
            booted.map_err(|e| Error::Worker(e.to_string()))??;
            let since = node::join(&self.site, &state, &node).await?;
            (node, since)
        };
        let client = self.client().await?;
        self.finish(&client, &[(node.clone(), since)], &clock).await?;
        Ok(Node {
            cluster: self.clone(),
            state: node,
        })
    }

    /// Stops a node as a power cut does: kubelet, containerd and all containers are killed. Its disk stays. The cluster
    /// notices about 10 s later.
    pub async fn node_stop(&self, name: &str) -> Result<()> {
        let _lock = Lock::take(self.layout())?;
        let mut state = self.state()?;
        state.node_mut(name)?.stopped = true;
        state.save(self.layout())?;
        self.power_off(state.node(name)?.clone()).await
    }

    /// Removes a node: deletes its Node object and everything of it on the machine.
    pub async fn node_remove(&self, name: &str) -> Result<()> {
        let _lock = Lock::take(self.layout())?;
        let mut state = self.state()?;
        let node = state.node(name)?.clone();
        self.power_off(node.clone()).await?;
        let api: Api<KubeNode> = Api::all(self.client().await?);
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let folder = self.layout().node(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("remove", &folder);
            }
            _ => {}
        }
        state.nodes.retain(|other| other.name != name);
        state.save(self.layout())
    }

    async fn power_off(&self, node: NodeState) -> Result<()> {
        let site = self.site.clone();
        let off = move || node::power_off(&site.name, &site.layout, &site.cgroups, &node);
        tokio::task::spawn_blocking(off)
            .await
            .map_err(|e| Error::Worker(e.to_string()))?
    }

    /// Waits until these nodes are Ready.
    pub async fn wait_for_nodes(&self, names: &[&str]) -> Result<()> {
        let names: Vec<Awaited> = names
            .iter()
            .map(|name| Awaited {
                name: (*name).to_owned(),
                since: None,
            })
            .collect();
        ready::nodes(self.layout(), &self.client().await?, &names).await
    }
}

impl Node {
    /// Its name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// What was asked for when it was added.
    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// Its address.
    pub fn address(&self) -> std::net::Ipv4Addr {
        ip::node(self.state.number)
    }

    /// Runs a program inside the node, in its mount, host name and network namespaces, and returns what it printed.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<String> {
        node::exec(self.cluster.layout(), self.name(), program, args)
    }

    /// Runs `ctr -n k8s.io` with these arguments and returns what it printed, such as `["images", "list", "-q"]`.
    pub fn ctr(&self, args: &[&str]) -> Result<String> {
        let ctr = self.cluster.binaries().join("ctr");
        self.exec(&ctr.to_string_lossy(), &[&["-n", "k8s.io"], args].concat())
    }

    /// The path at which this machine can dial the node's containerd. It changes when the node is stopped and started.
    pub fn containerd_socket(&self) -> Result<PathBuf> {
        node::socket(self.cluster.layout(), self.name())
    }

    /// The node's file system as this machine sees it. It changes when the node is stopped and started.
    pub fn root(&self) -> Result<PathBuf> {
        node::root(self.cluster.layout(), self.name())
    }

    /// The folder that the node's containerd reads as /etc/containerd/certs.d at every pull: one folder a registry host,
    /// a hosts.toml in each.
    pub fn registry_hosts(&self) -> PathBuf {
        self.cluster.layout().node_containerd(self.name()).join("certs.d")
    }

    /// The log of one of [`NODE_COMPONENTS`](super::NODE_COMPONENTS).
    pub fn log(&self, component: &str) -> PathBuf {
        self.cluster.layout().log(&self.component(component))
    }

    /// Kills one of the node's components (SIGKILL), as a crash does; containers go on.
    pub fn crash(&self, component: &str) -> Result<()> {
        self.cluster.crash(&self.component(component))
    }

    /// Kills one of the node's components and starts it again. Returns when it runs, which is before it answers.
    pub fn restart(&self, component: &str) -> Result<()> {
        let site = &self.cluster.site;
        let components = Components::new(&site.layout);
        let name = self.component(component);
        let launch = match component {
            "containerd" => node::start_containerd(site, &self.state)?,
            "kubelet" => node::start_kubelet(site, &self.cluster.state()?, &self.state)?,
            "kube-proxy" => node::start_proxy(site, &self.state)?,
            _ => {
                return Err(Error::Refused(format!(
                    "{component:?} cannot be restarted; a node has containerd, kubelet and kube-proxy"
                )));
            }
        };
        components.stop(&name)?;
        components.start(&name, &launch).map(|_| ())
    }

    /// Plugs the node's cable out, or in again. Everything on it goes on meanwhile.
    pub fn set_connected(&self, connected: bool) -> Result<()> {
        netns::set_cable(self.cluster.name(), self.state.number, connected)
    }

    /// Limits what the node receives, or lifts the limit (bytes per second).
    pub fn limit_bandwidth(&self, bytes_per_second: Option<u64>) -> Result<()> {
        netns::limit(self.cluster.name(), self.state.number, bytes_per_second)
    }

    fn component(&self, component: &str) -> String {
        format!("{}/{component}", self.name())
    }
}
