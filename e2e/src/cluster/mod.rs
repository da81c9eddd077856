//! A real Kubernetes cluster on one machine: etcd, the control plane, three registries, and nodes with a kubelet and
//! a containerd of their own, in network and mount namespaces that the run itself makes.
//!
//! [`Cluster::up`] starts one, [`Cluster::attach`] finds one that runs. Everything goes on in the background when the
//! program ends; [`Cluster::down`] removes all of it. docs/local-cluster.md tells what it looks like from outside.
//!
//! The futures here block their thread for short steps (child processes, files); they are meant for tests and
//! commands, not for servers.

pub mod addresses;
pub mod control;
pub mod error;
pub mod layout;
mod load;
mod lock;
pub mod machine;
pub mod name;
mod node;
mod nodes;
mod options;
mod ready;
mod reaper;
pub mod state;
pub mod status;
mod up;

use std::path::PathBuf;
use std::sync::Arc;

use self::control::audit::Audit;
use self::control::components::Site;
use self::control::pki::Authority;
use self::control::registry::{Registry, RegistryKind};
use self::control::supervise::Forwards;
use self::error::{Error, Result};
use self::layout::Layout;
use self::lock::Lock;
use self::machine::cgroup::Cgroups;
use self::machine::process::Components;
use self::name::ClusterName;
use self::state::ClusterState;

pub use self::control::{audit, registry, supervise};
pub use self::machine::cgroup;
pub use self::node::COMPONENTS as NODE_COMPONENTS;
pub use self::nodes::Node;
pub use self::options::{DEFAULT_IMAGE_DISK, DEFAULT_KUBERNETES, NodeOptions, Options};

/// A cluster that runs on this machine.
#[derive(Debug, Clone)]
pub struct Cluster {
    site: Arc<Site>,
}

impl Cluster {
    /// The cluster of this name, which must have been brought up before. Starts nothing.
    pub fn attach(name: &ClusterName) -> Result<Self> {
        let layout = Layout::of_user(name)?;
        let state = ClusterState::load(&layout)?.ok_or_else(|| Error::NoCluster(name.to_string()))?;
        if !state.binaries.join("kubectl").is_file() {
            let why = "the cluster's programs are not there any more; `larder-cluster up` builds them again";
            return Err(Error::State {
                path: state.binaries,
                why: why.into(),
            });
        }
        Self::with_binaries(name, layout, state.binaries)
    }

    fn with_binaries(name: &ClusterName, layout: Layout, binaries: PathBuf) -> Result<Self> {
        let ca = Authority::ensure(&layout.pki(), "ca")?;
        let site = Site {
            name: name.clone(),
            layout,
            binaries,
            cgroups: Cgroups::detect()?,
            ca,
        };
        Ok(Self { site: Arc::new(site) })
    }

    /// Takes the cluster of this name down and removes everything of it from the machine. That there is none is fine.
    pub fn down(name: &ClusterName) -> Result<()> {
        let layout = Layout::of_user(name)?;
        let lock = Lock::take(&layout)?;
        reaper::reap(name, &layout, &Cgroups::detect()?)?;
        lock.remove()
    }

    /// What a cluster of this name has on the machine now (processes, network namespaces, cgroups, mounts, loop
    /// devices, its folder), one line each. Empty after [`Cluster::down`].
    pub fn leftovers(name: &ClusterName) -> Result<Vec<String>> {
        Ok(reaper::leftovers(
            name,
            &Layout::of_user(name)?,
            &Cgroups::detect()?,
        ))
    }

    /// The cluster's name.
    pub fn name(&self) -> &ClusterName {
        &self.site.name
    }

    /// Where the cluster keeps its files.
    pub fn layout(&self) -> &Layout {
        &self.site.layout
    }

    /// A kubeconfig with all rights, for the user's own kubectl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.site.layout.kubeconfig()
    }

    /// The folder of the cluster's programs, `kubectl` and `ctr` among them.
    pub fn binaries(&self) -> PathBuf {
        self.site.binaries.clone()
    }

    /// Runs our kubectl against the cluster and returns what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut kubectl = std::process::Command::new(self.site.binaries.join("kubectl"));
        machine::command::output(kubectl.args(args).env("KUBECONFIG", self.kubeconfig()))
    }

    /// A client with all rights.
    pub async fn client(&self) -> Result<kube::Client> {
        ready::client(&self.site.layout).await
    }

    /// The API server's audit log.
    pub fn audit(&self) -> Audit {
        Audit::new(self.site.layout.audit_log())
    }

    /// One of the registries.
    pub fn registry(&self, kind: RegistryKind) -> Result<Registry> {
        let state = self.state()?;
        let port = self.forwards()?.registry(kind);
        Ok(Registry {
            kind,
            host: kind.host(),
            url: format!("{}://127.0.0.1:{port}", kind.scheme()),
            credentials: (kind == RegistryKind::Auth)
                .then_some((state.registry_user, state.registry_password)),
            ca: (kind == RegistryKind::Tls).then(|| self.site.layout.ca()),
            log: self.site.layout.log(&kind.component()),
        })
    }

    /// The ports of 127.0.0.1 that lead into the cluster.
    pub fn forwards(&self) -> Result<Forwards> {
        let path = self.site.layout.forwards();
        Forwards::load(&self.site.layout).ok_or_else(|| Error::State {
            path,
            why: "is not there".into(),
        })
    }

    /// Kills a component of the control plane, a registry or the supervisor (SIGKILL), as a crash does. Its record
    /// stays: [`status`](Cluster::status) names it as dead, and [`Cluster::up`] starts it again.
    pub fn crash(&self, component: &str) -> Result<()> {
        let record = Components::new(&self.site.layout).record(component);
        let record =
            record.ok_or_else(|| Error::Refused(format!("the cluster has no component {component:?}")))?;
        record.process.kill();
        Ok(())
    }

    fn state(&self) -> Result<ClusterState> {
        ClusterState::load(&self.site.layout)?.ok_or_else(|| Error::NoCluster(self.site.name.to_string()))
    }
}
