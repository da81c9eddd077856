//! What a cluster takes of the machine: processes, namespaces, cgroups, mounts, loop devices.

pub mod cgroup;
pub mod command;
pub mod launch;
pub mod loops;
pub mod mounts;
pub mod netns;
pub mod process;
pub mod tail;
