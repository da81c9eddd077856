//! Programs that must be there, and kernel features, each tried for a moment.

use std::path::Path;
use std::process::{Command, Stdio};

/// Programs that a cluster calls.
const PROGRAMS: [&str; 14] = [
    "conntrack",
    "docker-registry",
    "ip",
    "iptables",
    "losetup",
    "mkfs.ext4",
    "mount",
    "nft",
    "nsenter",
    "runc",
    "skopeo",
    "tc",
    "umount",
    "unshare",
];

/// A kernel feature, what it is for, and the commands that work only with it; each list runs in a
/// namespace of its own.
struct Probe {
    feature: &'static str,
    purpose: &'static str,
    script: &'static str,
}

const PROBES: [Probe; 5] = [
    Probe {
        feature: "namespaces (mount, network, UTS, PID)",
        purpose: "one set for each node",
        script: "true",
    },
    Probe {
        feature: "veth",
        purpose: "the nodes' network cables",
        script: "ip link add larder-a type veth peer name larder-b",
    },
    Probe {
        feature: "bridge",
        purpose: "the network between nodes",
        script: "ip link add larder-a type bridge",
    },
    Probe {
        feature: "nftables",
        purpose: "services and dropped packets",
        script: "nft 'add table inet larder; add chain inet larder a { type nat hook prerouting priority 0; }'",
    },
    Probe {
        feature: "the tbf queue",
        purpose: "limited bandwidth",
        script: "ip link add larder-a type bridge && tc qdisc add dev larder-a root tbf rate 1mbit burst 32kbit latency 50ms",
    },
];

/// Messages about everything that is missing; needs root.
pub(super) fn failures() -> Vec<String> {
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| !in_path(program)).collect();
    let mut messages = Vec::new();
    if !missing.is_empty() {
        messages.push(format!(
            "these programs are missing: {}; `make setup` installs them",
            missing.join(", ")
        ));
    }
    // A probe whose program is missing would blame the kernel.
    let can_run = |probe: &&Probe| !missing.iter().any(|program| probe.script.contains(program));
    if !missing.contains(&"unshare") {
        messages.extend(PROBES.iter().filter(can_run).filter_map(try_probe));
    }
    messages.extend(file_systems_missing());
    if !Path::new("/dev/loop-control").exists() && !load("loop", || Path::new("/dev/loop-control").exists()) {
        messages.push("the kernel has no loop devices (/dev/loop-control), for the nodes' disks".to_owned());
    }
    messages
}

fn in_path(program: &str) -> bool {
    // Where administrators' programs are, also when a user's PATH leaves it out.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn try_probe(probe: &Probe) -> Option<String> {
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--uts",
            "--pid",
            "--fork",
            "sh",
            "-c",
            probe.script,
        ])
        .stdin(Stdio::null())
        .output();
    let said = match output {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "the kernel lacks {}, for {}: {said}",
        probe.feature, probe.purpose
    ))
}

fn file_systems_missing() -> Vec<String> {
    let known = |name: &str| {
        std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list_has_file_system(&list, name))
    };
    [
        ("overlay", "the containers' file systems"),
        ("ext4", "the nodes' disks"),
    ]
    .into_iter()
    .filter(|(name, _)| !known(name) && !load(name, || known(name)))
    .map(|(name, purpose)| format!("the kernel has no {name} file system, for {purpose}"))
    .collect()
}

/// Whether a list in the form of `/proc/filesystems` has this one.
fn list_has_file_system(list: &str, name: &str) -> bool {
    list.lines()
        .any(|line| line.split_whitespace().last() == Some(name))
}

/// Asks for a kernel module that may not be loaded yet, and looks again.
fn load(module: &str, there: impl Fn() -> bool) -> bool {
    let asked = Command::new("modprobe")
        .arg(module)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success()) && there()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_found_with_and_without_a_device() {
        let list = "nodev\toverlay\n\text4\nnodev\tfuse\n";
        assert!(list_has_file_system(list, "overlay"));
        assert!(list_has_file_system(list, "ext4"));
        assert!(!list_has_file_system(list, "ext"));
        assert!(!list_has_file_system(list, "nodev"));
    }

    #[test]
    fn programs_are_looked_for_in_the_path() {
        assert!(in_path("sh"));
        assert!(!in_path("larder-no-such-program"));
    }
}
