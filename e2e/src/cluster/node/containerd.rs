//! A node's containerd: its configuration, the registries it knows, its pod network.

use std::path::Path;

use serde_json::json;

use crate::cluster::addresses as ip;
use crate::cluster::control::registry::RegistryKind;

/// The name of the image behind every pod's sandbox. It is imported, never pulled.
pub const PAUSE_IMAGE: &str = "larder.local/pause:1";

/// config.toml. `binaries` holds the shim and the network plugins.
pub fn config(binaries: &Path) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri",
]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
disable_hugetlb_controller = true
netns_mounts_under_state_dir = true
# Without CAP_SYS_RESOURCE nobody may lower a score, and every sandbox would fail.
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{binaries}"]
conf_dir = "/etc/cni/net.d"
"#,
        binaries = binaries.display()
    )
}

/// The files of certs.d: folder (host, with its port) and text of its hosts.toml. They are read at every pull.
pub fn hosts() -> Vec<(String, String)> {
    let plain = |host: &str| format!("server = \"http://{host}\"\n");
    let mut hosts = vec![
        // Every registry without a folder of its own is the open one. No other host is tried, so errors are its own.
        ("_default".to_owned(), plain(&RegistryKind::Open.host())),
    ];
    for kind in [RegistryKind::Open, RegistryKind::Auth] {
        hosts.push((kind.host(), plain(&kind.host())));
    }
    let tls = RegistryKind::Tls.host();
    let text = format!(
        "server = \"https://{tls}\"
ca = \"/etc/containerd/ca.crt\"
"
    );
    hosts.push((tls, text));
    let pretended = [ip::REFUSING, ip::DROPPING].map(|address| (address, ip::REGISTRY_PORT));
    let guests = ip::GUEST_PORTS.map(|port| (ip::GUEST, port));
    for (address, port) in pretended.into_iter().chain(guests) {
        let host = format!("{address}:{port}");
        hosts.push((host.clone(), plain(&host)));
    }
    hosts
}

/// The pod network of the node with this number: a cable a pod, addresses of the node's range, host ports.
pub fn cni(number: u8) -> String {
    let network = json!({
        "cniVersion": "1.0.0",
        "name": "larder",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    // In the node's /run, so that a node that lost its power starts with all addresses free.
                    "dataDir": "/run/cni/networks",
                    "ranges": [[{"subnet": ip::pod_range(number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{network:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_must_fail_do_not_fall_back_to_the_open_registry() {
        let hosts = hosts();
        for host in [
            "10.77.0.5:5000",
            "10.77.0.6:5000",
            "10.77.0.7:5001",
            "10.77.0.3:5000",
        ] {
            let (_, text) = hosts.iter().find(|(name, _)| name == host).unwrap();
            assert_eq!(text, &format!("server = \"http://{host}\"\n"));
        }
        let (_, tls) = hosts.iter().find(|(name, _)| name == "10.77.0.4:5000").unwrap();
        assert!(tls.contains("https://") && tls.contains("ca = "), "{tls}");
        assert!(
            hosts
                .iter()
                .any(|(name, text)| name == "_default" && text.contains("10.77.0.2:5000"))
        );
    }

    #[test]
    fn each_node_hands_out_addresses_of_its_own_range() {
        assert!(cni(1).contains("10.77.101.0/24"));
        assert!(cni(2).contains("10.77.102.0/24"));
        assert!(config(Path::new("/b")).contains("bin_dirs = [\"/b\"]"));
    }
}
