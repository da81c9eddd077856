//! What a cluster should be, as kept in its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::addresses::MOST_NODES;
use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::layout::Layout;
use crate::cluster::name::ClusterName;
use crate::cluster::options::Options;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// Everything that must survive the command: written before it is acted upon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterState {
    /// Version of this format.
    pub format: u32,
    /// The cluster's name.
    pub name: ClusterName,
    /// The minor version of Kubernetes, such as `1.36`.
    pub kubernetes: String,
    /// The folder of programs that the cluster was last brought up with.
    #[serde(default)]
    pub binaries: PathBuf,
    /// The size of a new node's image disk, in bytes.
    pub image_disk: u64,
    /// Whether new kubelets pull one image at a time.
    pub serialize_image_pulls: bool,
    /// The user of the registry with basic auth.
    pub registry_user: String,
    /// Its password: made at random, worth nothing outside.
    pub registry_password: String,
    /// The nodes, stopped ones too.
    pub nodes: Vec<NodeState>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Its name in Kubernetes and its host name.
    pub name: String,
    /// Its number, from which its addresses follow.
    pub number: u8,
    /// Labels given at the first registration.
    pub labels: BTreeMap<String, String>,
    /// Taints given at the first registration, as `key=value:Effect`.
    pub taints: Vec<String>,
    /// The size of its image disk, in bytes.
    pub image_disk: u64,
    /// Merged over the kubelet's configuration (RFC 7396).
    pub kubelet: serde_json::Value,
    /// Stopped on purpose.
    pub stopped: bool,
}

impl ClusterState {
    /// A new cluster as the options ask for, without nodes.
    pub fn new(options: &Options) -> Self {
        Self {
            format: FORMAT,
            name: options.name.clone(),
            kubernetes: options.kubernetes.clone(),
            binaries: PathBuf::new(),
            image_disk: options.image_disk,
            serialize_image_pulls: options.serialize_image_pulls,
            registry_user: "larder".into(),
            registry_password: format!("{:016x}", rand::random::<u64>()),
            nodes: Vec::new(),
        }
    }

    /// Reads the state; none if there is no cluster, or one whose making was broken off before it was written.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read", &path),
        };
        let state: Self = serde_json::from_slice(&text).map_err(|e| Error::State {
            path: path.clone(),
            why: e.to_string(),
        })?;
        if state.format == FORMAT {
            Ok(Some(state))
        } else {
            Err(Error::State {
                path,
                why: format!(
                    "has format {}, not {FORMAT}: take the cluster down and up again",
                    state.format
                ),
            })
        }
    }

    /// Writes the state.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.state();
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::State {
            path: path.clone(),
            why: e.to_string(),
        })?;
        write_atomically(&path, &text)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&NodeState> {
        self.nodes
            .iter()
            .find(|n| n.name == name)
            .ok_or_else(|| Error::NoNode(name.to_owned()))
    }

    /// The node of this name, to be changed.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut NodeState> {
        self.nodes
            .iter_mut()
            .find(|n| n.name == name)
            .ok_or_else(|| Error::NoNode(name.to_owned()))
    }

    /// The lowest number that no node has.
    pub fn free_number(&self) -> Result<u8> {
        let taken: BTreeSet<u8> = self.nodes.iter().map(|n| n.number).collect();
        (1..=MOST_NODES)
            .find(|number| !taken.contains(number))
            .ok_or_else(|| Error::Refused(format!("the cluster has {MOST_NODES} nodes already")))
    }

    /// The lowest `node-N` that no node has.
    pub fn free_name(&self) -> String {
        (1..=u32::MAX)
            .map(|n| format!("node-{n}"))
            .find(|name| self.node(name).is_err())
            .unwrap_or_default()
    }
}

/// Replaces a file as a whole, so that a reader, or a run after a crash, sees the old text or the new.
/// Makes the folder if needed.
pub fn write_atomically(path: &Path, text: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).context("make", folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    fs::write(&new, text).context("write", &new)?;
    fs::rename(&new, path).context("write", path)
}

/// A size as people write it: bytes, or with Ki, Mi, Gi, `KiB`, `MiB`, `GiB`.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_end_matches('B') {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return Err(format!("{text:?} is not a size such as 8GiB or 512MiB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a size such as 8GiB or 512MiB"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, number: u8) -> NodeState {
        NodeState {
            name: name.into(),
            number,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            image_disk: 1,
            kubelet: serde_json::Value::Null,
            stopped: false,
        }
    }

    fn state() -> ClusterState {
        ClusterState::new(&Options::new(ClusterName::new("x").unwrap()))
    }

    #[test]
    fn numbers_and_names_of_removed_nodes_are_used_again() {
        let mut state = state();
        state.nodes = vec![node("node-1", 1), node("node-3", 3)];
        assert_eq!(state.free_number().unwrap(), 2);
        assert_eq!(state.free_name(), "node-2");
    }

    #[test]
    fn state_is_kept_and_strange_formats_refused() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path(), &ClusterName::new("x").unwrap());
        assert_eq!(ClusterState::load(&layout).unwrap(), None);
        let mut state = state();
        state.nodes.push(node("node-1", 1));
        state.save(&layout).unwrap();
        assert_eq!(ClusterState::load(&layout).unwrap(), Some(state.clone()));
        state.format = 99;
        state.save(&layout).unwrap();
        assert!(
            ClusterState::load(&layout)
                .unwrap_err()
                .to_string()
                .contains("format 99")
        );
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("8GiB"), Ok(8 << 30));
        assert_eq!(parse_size("512Mi"), Ok(512 << 20));
        assert_eq!(parse_size("1024"), Ok(1024));
        for bad in ["", "GiB", "8GB1", "8 GiB", "-1", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
