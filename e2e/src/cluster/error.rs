//! What can go wrong with a local cluster, in words that say what to do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a cluster could not be brought up, changed or taken down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cluster or node name that cannot be used in namespaces, cgroups and host names.
    #[error("{kind} name {name:?}: {why}")]
    Name {
        /// `cluster` or `node`.
        kind: &'static str,
        /// The name as given.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A file or folder could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program of the system failed.
    #[error("`{program}` failed: {detail}")]
    Command {
        /// The command line.
        program: String,
        /// The end of its error output, or why it did not start.
        detail: String,
    },
    /// A component ended although nobody asked it to.
    #[error("{component} died; the end of {}:\n{tail}", log.display())]
    Died {
        /// Which one, such as `kube-apiserver` or `node-1/kubelet`.
        component: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Something did not happen in time although every component lives.
    #[error("{what} did not happen within {} s{}", after.as_secs(), detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// The last answer, if there was one.
        detail: Option<String>,
    },
    /// The folder of a cluster holds something that this program did not write.
    #[error("{}: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No cluster of that name is known here.
    #[error("no cluster {0:?} here; `larder-cluster --name {0} up` starts one")]
    NoCluster(String),
    /// No node of that name is in the cluster.
    #[error("the cluster has no node {0:?}")]
    NoNode(String),
    /// The request does not fit what is there.
    #[error("{0}")]
    Refused(String),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The API server refused a request.
    #[error("API server: {0}")]
    Kube(Box<kube::Error>),
    /// The kubeconfig could not be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
    /// A worker of this program ended early.
    #[error("internal worker ended: {0}")]
    Worker(String),
    /// The programs of the cluster could not be built.
    #[error("binaries: {0}")]
    Binaries(String),
    /// An image could not be pushed.
    #[error("image: {0}")]
    Image(String),
}

/// The result of a step of the local cluster.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kube(Box::new(error))
    }
}

/// Adds what was tried and with which file to an error of the system.
pub(crate) trait IoContext<T> {
    /// Wraps the error.
    fn context(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            what,
            path: path.to_owned(),
            source,
        })
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(std::io::Error::from).context(what, path)
    }
}
