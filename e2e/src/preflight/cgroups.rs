//! How control groups are mounted: what a kubelet is given follows from it.

use std::path::PathBuf;

/// Version of the control group interface that carries the controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller, also when a version 2 one without controllers is beside
    /// them ("hybrid").
    V1,
    /// A single hierarchy.
    V2,
}

/// The control group hierarchies of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Which interface.
    pub version: CgroupVersion,
    /// Mount point of every hierarchy, in the order of the mount table: one for version 2, for
    /// version 1 one or more, with the named and the controller-less ones among them.
    pub mounts: Vec<PathBuf>,
}

/// Controllers without which containerd or the kubelet does not start a container.
const WANTED: [&str; 8] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
];

impl Cgroups {
    /// Reads them from a mount table in the form of `/proc/mounts`; fails with a message for the user.
    pub fn find(mounts: &str) -> Result<Self, String> {
        let mut first = Vec::new();
        let mut second = Vec::new();
        let mut options = Vec::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(folder), Some(kind), Some(flags)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup" => {
                    first.push(PathBuf::from(folder));
                    options.extend(flags.split(','));
                }
                "cgroup2" => second.push(PathBuf::from(folder)),
                _ => {}
            }
        }
        if first.is_empty() {
            if second.is_empty() {
                return Err("no control groups are mounted under /sys/fs/cgroup".to_owned());
            }
            return Ok(Self {
                version: CgroupVersion::V2,
                mounts: second,
            });
        }
        let missing: Vec<&str> = WANTED
            .into_iter()
            .filter(|name| !options.contains(name))
            .collect();
        if missing.is_empty() {
            first.extend(second);
            return Ok(Self {
                version: CgroupVersion::V1,
                mounts: first,
            });
        }
        Err(format!(
            "control groups (version 1) lack the controllers {}",
            missing.join(", ")
        ))
    }
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

    #[test]
    fn hybrid_counts_as_version_1_with_every_hierarchy() {
        let cgroups = Cgroups::find(HYBRID).unwrap();
        assert_eq!(cgroups.version, CgroupVersion::V1);
        assert_eq!(cgroups.mounts.len(), 10);
        assert_eq!(
            cgroups.mounts.last(),
            Some(&PathBuf::from("/sys/fs/cgroup/unified"))
        );
    }

    #[test]
    fn controllers_may_share_a_hierarchy() {
        let cgroups = Cgroups::find(JOINED).unwrap();
        assert_eq!(cgroups.version, CgroupVersion::V1);
        assert_eq!(cgroups.mounts[0], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
    }

    #[test]
    fn a_single_hierarchy_is_version_2() {
        let cgroups = Cgroups::find(UNIFIED).unwrap();
        let mounts = vec![PathBuf::from("/sys/fs/cgroup")];
        assert_eq!(
            cgroups,
            Cgroups {
                version: CgroupVersion::V2,
                mounts
            }
        );
    }

    #[test]
    fn missing_controllers_are_named() {
        let without_memory: Vec<&str> = HYBRID.lines().filter(|line| !line.contains("memory")).collect();
        let message = Cgroups::find(&without_memory.join("\n")).unwrap_err();
        assert!(message.ends_with("lack the controllers memory"), "{message}");
        assert!(
            Cgroups::find("proc /proc proc rw 0 0\n")
                .unwrap_err()
                .contains("no control groups")
        );
    }
}
