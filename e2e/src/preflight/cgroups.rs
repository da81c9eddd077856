//! Whether control groups are mounted with the controllers that containers need.

use std::path::Path;

/// Controllers without which containerd or the kubelet starts no container, where each has a
/// hierarchy ("version 1", also when a version 2 one without controllers is beside them).
const WANTED_V1: [&str; 8] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
];
/// The same where all share one hierarchy ("version 2").
const WANTED_V2: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A message if control groups will not do. `mounts` is a mount table in the form of `/proc/mounts`;
/// `controllers` reads the file of that name in a version 2 hierarchy.
pub(super) fn failure(mounts: &str, controllers: impl Fn(&Path) -> Option<String>) -> Option<String> {
    let mut first = Vec::new();
    let mut second = None;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            [_, _, "cgroup", options, ..] => first.extend(options.split(',')),
            [_, folder, "cgroup2", ..] => second = second.or(Some(Path::new(folder))),
            _ => {}
        }
    }
    let (version, missing) = match second {
        None if first.is_empty() => {
            return Some("no control groups are mounted under /sys/fs/cgroup".to_owned());
        }
        Some(folder) if first.is_empty() => {
            let there = controllers(&folder.join("cgroup.controllers")).unwrap_or_default();
            let there: Vec<&str> = there.split_whitespace().collect();
            (2, lacking(&WANTED_V2, &there))
        }
        _ => (1, lacking(&WANTED_V1, &first)),
    };
    (!missing.is_empty()).then(|| {
        format!(
            "control groups (version {version}) lack the controllers {}",
            missing.join(", ")
        )
    })
}

fn lacking<'a>(wanted: &[&'a str], there: &[&str]) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|name| !there.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HYBRID: &str = "\
proc /proc proc rw,relatime 0 0
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/cpuacct cgroup rw,relatime,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/devices cgroup rw,relatime,devices 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";
    const JOINED: &str = "\
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/rest cgroup rw,memory,devices,freezer,blkio,pids 0 0
";
    const UNIFIED: &str = "\
/dev/sda1 / ext4 rw,relatime 0 0
cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0
";

    fn nothing(_: &Path) -> Option<String> {
        None
    }

    #[test]
    fn hybrid_and_joined_hierarchies_will_do() {
        assert_eq!(failure(HYBRID, nothing), None);
        assert_eq!(failure(JOINED, nothing), None);
    }

    #[test]
    fn a_single_hierarchy_is_asked_for_its_controllers() {
        let all = |path: &Path| {
            (path == Path::new("/sys/fs/cgroup/cgroup.controllers"))
                .then(|| "cpuset cpu io memory hugetlb pids rdma misc\n".to_owned())
        };
        assert_eq!(failure(UNIFIED, all), None);
        let message = failure(UNIFIED, |_| Some("memory pids\n".to_owned())).unwrap();
        assert_eq!(
            message,
            "control groups (version 2) lack the controllers cpu, cpuset, io"
        );
    }

    #[test]
    fn missing_controllers_are_named() {
        let without: Vec<&str> = HYBRID.lines().filter(|line| !line.contains("memory")).collect();
        let message = failure(&without.join("\n"), nothing).unwrap();
        assert_eq!(message, "control groups (version 1) lack the controllers memory");
    }

    #[test]
    fn a_machine_without_any_is_told_so() {
        let message = failure("proc /proc proc rw 0 0\n", nothing).unwrap();
        assert!(message.contains("no control groups"), "{message}");
    }
}
