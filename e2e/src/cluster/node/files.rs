//! What a node finds in its folder when it boots: configuration, certificates, its image disk.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::cluster::addresses as ip;
use crate::cluster::control::components::{Site, api_url};
use crate::cluster::control::kubeconfig;
use crate::cluster::control::pki::Subject;
use crate::cluster::error::{IoContext, Result};
use crate::cluster::machine::command::run;
use crate::cluster::name::ClusterName;
use crate::cluster::node::containerd;
use crate::cluster::state::{NodeState, write_atomically};
use crate::images::sha256_digest;

/// Makes what a node finds in its folder. What is there already is kept: a test may have changed it.
pub fn prepare(site: &Site, node: &NodeState) -> Result<()> {
    let folder = site.layout.node(&node.name);
    for part in ["kubelet", "log", "containerd", "cni", "pki"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).context("make", &part)?;
    }
    let keep = |path: PathBuf, text: String| {
        if path.is_file() {
            Ok(())
        } else {
            write_atomically(&path, text.as_bytes())
        }
    };
    let runtime = site.layout.node_containerd(&node.name);
    keep(runtime.join("config.toml"), containerd::config(&site.binaries))?;
    for (host, text) in containerd::hosts() {
        keep(runtime.join("certs.d").join(host).join("hosts.toml"), text)?;
    }
    keep(
        folder.join("cni/10-larder.conflist"),
        containerd::cni(node.number),
    )?;

    let pki = folder.join("pki");
    for copy in [runtime.join("ca.crt"), pki.join("ca.crt")] {
        fs::copy(site.ca.cert(), &copy).context("write", &copy)?;
    }
    let user = format!("system:node:{}", node.name);
    let subject = Subject {
        common_name: &user,
        organizations: &["system:nodes"],
        addresses: &[IpAddr::V4(ip::node(node.number))],
        names: &[&node.name],
    };
    let server = api_url();
    let files = site.ca.issue_in(&pki, "kubelet", &subject)?;
    kubeconfig::write(
        &pki.join("kubelet.kubeconfig"),
        site.name.as_str(),
        &server,
        site.ca.cert(),
        &files,
    )?;
    let subject = Subject {
        common_name: "system:kube-proxy",
        ..Subject::default()
    };
    let files = site.ca.issue_in(&pki, "kube-proxy", &subject)?;
    kubeconfig::write(
        &pki.join("kube-proxy.kubeconfig"),
        site.name.as_str(),
        &server,
        site.ca.cert(),
        &files,
    )?;
    make_disk(&site.layout.node_disk(&node.name), node.image_disk)
}

/// A sparse file with an ext4 file system in it, unless it is there.
fn make_disk(disk: &Path, bytes: u64) -> Result<()> {
    if disk.is_file() {
        return Ok(());
    }
    let new = disk.with_extension("new");
    let file = File::create(&new).context("make", &new)?;
    file.set_len(bytes).context("make", &new)?;
    // Nothing reserved, tables written when needed: the file stays sparse and is there in milliseconds.
    let options = [
        "-q",
        "-F",
        "-m",
        "0",
        "-J",
        "size=8",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
    ];
    run(
        "mkfs.ext4",
        &[options.as_slice(), &[&new.to_string_lossy()]].concat(),
    )?;
    fs::rename(&new, disk).context("make", disk)
}

/// The same for a node of the same name in a cluster of the same name, as when a machine is installed anew.
pub fn machine_id(name: &ClusterName, node: &str) -> String {
    let digest = sha256_digest(format!("{name}/{node}").as_bytes());
    digest.trim_start_matches("sha256:").chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_differ_between_nodes_and_clusters() {
        let (a, b) = (ClusterName::new("a").unwrap(), ClusterName::new("b").unwrap());
        let ids = [
            machine_id(&a, "node-1"),
            machine_id(&a, "node-2"),
            machine_id(&b, "node-1"),
        ];
        assert!(ids.iter().all(|id| id.len() == 32));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
    }

    #[test]
    fn a_disk_is_sparse_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk.img");
        make_disk(&disk, 256 << 20).unwrap();
        let metadata = fs::metadata(&disk).unwrap();
        assert_eq!(metadata.len(), 256 << 20);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
        assert!(blocks * 512 < 32 << 20, "{blocks} blocks are written");
        let made = metadata.modified().unwrap();
        make_disk(&disk, 1 << 30).unwrap();
        assert_eq!(fs::metadata(&disk).unwrap().modified().unwrap(), made);
    }
}
