//! The search for a node's runtime.

use std::fmt;
use std::path::{Path, PathBuf};

use tracing::{debug, info};

use crate::client::{RuntimeClient, Timeouts};
use crate::error::RuntimeError;

/// Where runtimes keep their socket, below the node's `/run`: containerd, CRI-O, k3s, cri-dockerd; the last is
/// microk8s', below its own folder `/var/snap/microk8s/common/run`, which has to be mounted for it.
pub const KNOWN_SOCKETS: [&str; 5] = [
    "containerd/containerd.sock",
    "crio/crio.sock",
    "k3s/containerd/containerd.sock",
    "cri-dockerd.sock",
    "containerd.sock",
];

/// No runtime was found.
#[derive(Debug, thiserror::Error)]
#[error("no container runtime answers; tried {}", list(.0))]
pub struct NoRuntime(pub Vec<Tried>);

/// A path that was tried.
#[derive(Debug)]
pub struct Tried {
    /// Where.
    pub path: PathBuf,
    /// What was wrong; none if there is nothing at all.
    pub error: Option<RuntimeError>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            None => write!(f, "{} (absent)", self.path.display()),
            Some(error) if error.is_unimplemented() => write!(f, "{} (serves no CRI)", self.path.display()),
            Some(error) => write!(f, "{} ({error})", self.path.display()),
        }
    }
}

/// Finds the runtime that answers: the explicit path alone if one is given, else the known paths below each root (the
/// node's `/run` as it is mounted here), the first that answers CRI. A dead socket, or one whose owner serves no CRI (as
/// Docker's containerd), is passed over.
pub async fn find_runtime(
    roots: &[PathBuf],
    explicit: Option<&Path>,
    timeouts: Timeouts,
) -> Result<RuntimeClient, NoRuntime> {
    let candidates: Vec<PathBuf> = match explicit {
        Some(path) => vec![path.to_owned()],
        None => roots
            .iter()
            .flat_map(|root| KNOWN_SOCKETS.map(|known| root.join(known)))
            .collect(),
    };
    let mut tried = Vec::new();
    for path in candidates {
        if !path.exists() {
            tried.push(Tried { path, error: None });
            continue;
        }
        match RuntimeClient::connect(&path, timeouts).await {
            Ok(client) => {
                info!(path = %path.display(), "found the container runtime");
                return Ok(client);
            }
            Err(error) => {
                debug!(path = %path.display(), %error, "passed over");
                tried.push(Tried {
                    path,
                    error: Some(error),
                });
            }
        }
    }
    Err(NoRuntime(tried))
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(Tried::to_string).collect::<Vec<_>>().join(", ")
}
