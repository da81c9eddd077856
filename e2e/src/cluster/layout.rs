//! Where a cluster keeps its files.

use std::path::{Path, PathBuf};

use crate::cluster::error::{Error, Result};
use crate::cluster::name::ClusterName;

/// The folder of one cluster: everything that it keeps on disk, removed by `down`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    lock: PathBuf,
}

impl Layout {
    /// The folder of `name` under the user's state folder (`$XDG_STATE_HOME`, else `~/.local/state`).
    pub fn of_user(name: &ClusterName) -> Result<Self> {
        let base = state_home(
            std::env::var_os("XDG_STATE_HOME").map(PathBuf::from),
            std::env::var_os("HOME").map(PathBuf::from),
        );
        match base {
            Some(base) => Ok(Self::under(&base.join("larder"), name)),
            None => Err(Error::Refused(
                "neither XDG_STATE_HOME nor HOME is set to an absolute path".into(),
            )),
        }
    }

    /// The folder of `name` under `base`.
    pub fn under(base: &Path, name: &ClusterName) -> Self {
        Self {
            root: base.join(name.as_str()),
            lock: base.join(format!("{name}.lock")),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Held while a command changes the cluster. Outside of the folder, as `down` removes that.
    pub fn lock(&self) -> &Path {
        &self.lock
    }

    /// What the cluster should be: options, nodes, ports, passwords.
    pub fn state(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// For a user's own kubectl: the API server at a port of 127.0.0.1.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The certificate authority of the API server and of the TLS registry.
    pub fn ca(&self) -> PathBuf {
        self.pki().join("ca.crt")
    }

    /// Configuration files of the control plane and the registries.
    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// etcd's data.
    pub fn etcd(&self) -> PathBuf {
        self.root.join("etcd")
    }

    /// One record a running component.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Where the supervisor says which ports it forwards.
    pub fn forwards(&self) -> PathBuf {
        self.run().join("forwards.json")
    }

    /// Where the supervisor notes which component died when: one JSON object a line.
    pub fn deaths(&self) -> PathBuf {
        self.root.join("logs").join("deaths.jsonl")
    }

    /// The log of a component such as `etcd` or `node-1/kubelet`.
    pub fn log(&self, component: &str) -> PathBuf {
        self.root.join("logs").join(format!("{component}.log"))
    }

    /// The API server's audit log, one JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.root.join("logs").join("audit.jsonl")
    }

    /// Blobs and manifests of a registry.
    pub fn registry(&self, registry: &str) -> PathBuf {
        self.root.join("registries").join(registry)
    }

    /// Everything of one node: its disk, its configuration, the folder of its kubelet.
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }

    /// The file behind a node's /var/lib/containerd.
    pub fn node_disk(&self, node: &str) -> PathBuf {
        self.node(node).join("disk.img")
    }

    /// What a node has as /etc/containerd; certs.d in it is read at every pull.
    pub fn node_containerd(&self, node: &str) -> PathBuf {
        self.node(node).join("containerd")
    }
}

/// The user's state folder by the XDG rules: relative values are ignored.
fn state_home(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |p: &PathBuf| p.is_absolute();
    xdg.filter(absolute)
        .or_else(|| home.filter(absolute).map(|h| h.join(".local/state")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_follows_the_xdg_rules() {
        let path = |s: &str| Some(PathBuf::from(s));
        assert_eq!(state_home(path("/x"), path("/home/u")), path("/x"));
        assert_eq!(
            state_home(path("relative"), path("/home/u")),
            path("/home/u/.local/state")
        );
        assert_eq!(state_home(None, path("/home/u")), path("/home/u/.local/state"));
        assert_eq!(state_home(None, None), None);
    }

    #[test]
    fn the_lock_outlives_the_folder() {
        let layout = Layout::under(Path::new("/s/larder"), &ClusterName::new("x").unwrap());
        assert!(!layout.lock().starts_with(layout.root()));
        assert!(layout.node_disk("node-1").starts_with(layout.root()));
    }
}
