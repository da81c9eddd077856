//! The network of a cluster: one namespace for the control plane with a bridge, one a node, a cable between.
//! Nothing in the machine's own network namespace changes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::cluster::addresses as ip;
use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::machine::command::run;
use crate::cluster::machine::launch::enter;
use crate::cluster::name::ClusterName;

/// Where `ip netns` keeps the names of network namespaces.
const FOLDER: &str = "/run/netns";

/// The rules of the control plane's namespace, replaced as a whole.
fn rules() -> String {
    let dropping = ip::DROPPING;
    format!(
        "add table ip larder; flush table ip larder; \
         add chain ip larder input {{ type filter hook input priority 0 ; }}; \
         add rule ip larder input ip daddr {dropping} drop"
    )
}

/// The file behind the name of a namespace.
pub fn path(netns: &str) -> PathBuf {
    Path::new(FOLDER).join(netns)
}

/// The named namespaces of a cluster.
pub fn of_cluster(name: &ClusterName) -> Vec<String> {
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|netns| netns.starts_with(&name.netns_prefix()))
        .collect()
}

/// Deletes a name; the namespace goes with its last process. No child process does it, nor makes it: one could go on
/// after the run that started it was killed.
pub fn delete(netns: &str) -> Result<()> {
    let file = path(netns);
    if !file.exists() {
        return Ok(());
    }
    match umount2(&file, MntFlags::MNT_DETACH) {
        // Not a mount point: the run that made the file was killed before the next line.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(error) => return Err(error).context("unmount", &file),
    }
    fs::remove_file(&file).context("remove", &file)
}

/// Makes a namespace and gives it a name as `ip netns` does, so that `ip -n` and `nsenter` find it.
fn create(netns: &str) -> Result<()> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder).context("make", folder)?;
    let file = path(netns);
    File::create(&file).context("make", &file)?;
    on_a_thread(netns, || {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace for", &file)?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("name a network namespace", &file)
    })
}

/// Makes the control plane's namespace with its bridge, addresses and rules, or repairs it.
pub fn ensure_control(name: &ClusterName) -> Result<()> {
    let netns = name.control_netns();
    ensure(&netns)?;
    if !has_link(&netns, "br0") {
        // With an address of its own: otherwise the bridge takes one of its ports', another one whenever a node comes or
        // goes, and every other node talks to nobody until its neighbour table catches up.
        let bridge = ["address", "02:00:00:00:00:01", "type", "bridge"];
        run(
            "ip",
            &[&["-n", netns.as_str(), "link", "add", "br0"], bridge.as_slice()].concat(),
        )?;
    }
    for address in [
        ip::CONTROL_PLANE,
        ip::REGISTRY_OPEN,
        ip::REGISTRY_AUTH,
        ip::REGISTRY_TLS,
        ip::REFUSING,
        ip::DROPPING,
        ip::GUEST,
    ] {
        let address = format!("{address}/{}", ip::PREFIX);
        run(
            "ip",
            &["-n", &netns, "address", "replace", &address, "dev", "br0"],
        )?;
    }
    run("ip", &["-n", &netns, "link", "set", "br0", "up"])?;
    let file = format!("--net={}", path(&netns).display());
    run("nsenter", &[file.as_str(), "nft", &rules()])?;
    Ok(())
}

/// Makes a node's namespace and its cable to the bridge anew: what was there before is deleted, as at a power cut.
pub fn create_node(name: &ClusterName, node: &str, number: u8) -> Result<()> {
    let (control, netns, cable) = (name.control_netns(), name.node_netns(node), ip::cable(number));
    delete(&netns)?;
    // The far end goes with the old namespace a moment later; do not wait for it.
    unplug(&control, &cable)?;
    ensure(&netns)?;
    let (address, gateway) = (ip::node(number).to_string(), ip::CONTROL_PLANE.to_string());
    let own = format!("{address}/{}", ip::PREFIX);
    let on = |netns: &str, args: &[&str]| run("ip", &[&["-n", netns], args].concat());
    on(
        &control,
        &[
            "link",
            "add",
            &cable,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            &ip::node_mac(number),
            "netns",
            &netns,
        ],
    )?;
    on(&control, &["link", "set", &cable, "master", "br0", "up"])?;
    on(&netns, &["address", "add", &own, "dev", "eth0"])?;
    on(&netns, &["link", "set", "eth0", "up"])?;
    on(&netns, &["route", "add", "default", "via", &gateway])?;
    on(
        &control,
        &["route", "replace", &ip::pod_range(number), "via", &address],
    )?;
    Ok(())
}

/// Deletes a node's namespace, cable and route.
pub fn delete_node(name: &ClusterName, node: &str, number: u8) -> Result<()> {
    let (control, cable) = (name.control_netns(), ip::cable(number));
    delete(&name.node_netns(node))?;
    unplug(&control, &cable)?;
    let route = run("ip", &["-n", &control, "route", "show", &ip::pod_range(number)])?;
    if !route.trim().is_empty() {
        run("ip", &["-n", &control, "route", "delete", &ip::pod_range(number)])?;
    }
    Ok(())
}

/// Plugs a node's cable in or out.
pub fn set_cable(name: &ClusterName, number: u8, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    run(
        "ip",
        &[
            "-n",
            &name.control_netns(),
            "link",
            "set",
            &ip::cable(number),
            state,
        ],
    )?;
    Ok(())
}

/// Limits what a node receives over its cable to `bytes_per_second`, or lifts the limit.
pub fn limit(name: &ClusterName, number: u8, bytes_per_second: Option<u64>) -> Result<()> {
    let (control, cable) = (name.control_netns(), ip::cable(number));
    match bytes_per_second {
        Some(rate) => {
            // tc reads `bps` as bytes per second. The burst must hold some packets, and a tick's worth of the rate.
            let (rate, burst) = (format!("{rate}bps"), format!("{}b", (rate / 100).max(64 << 10)));
            let limit = ["rate", &rate, "burst", &burst, "latency", "100ms"];
            run(
                "tc",
                &[
                    &[
                        "-n",
                        control.as_str(),
                        "qdisc",
                        "replace",
                        "dev",
                        &cable,
                        "root",
                        "tbf",
                    ],
                    limit.as_slice(),
                ]
                .concat(),
            )?;
        }
        None if run("tc", &["-n", &control, "qdisc", "show", "dev", &cable])?.contains("tbf") => {
            run("tc", &["-n", &control, "qdisc", "delete", "dev", &cable, "root"])?;
        }
        None => {}
    }
    Ok(())
}

/// Runs `work` on a thread inside a namespace.
fn within<T: Send>(netns: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(netns, || {
        enter(&path(netns), CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Runs `work` on a thread of its own, whose namespaces it may change.
fn on_a_thread<T: Send>(netns: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let joined = std::thread::scope(|scope| scope.spawn(work).join());
    joined.unwrap_or_else(|_| Err(Error::Worker(format!("a thread for {netns}"))))
}

/// Makes a namespace that forwards packets and has a loopback, if it is not there yet.
fn ensure(netns: &str) -> Result<()> {
    // A name without a namespace behind is what a run that was killed in between leaves.
    if path(netns).exists() && run("ip", &["-n", netns, "link", "show", "lo"]).is_err() {
        delete(netns)?;
    }
    if !path(netns).exists() {
        create(netns)?;
    }
    run("ip", &["-n", netns, "link", "set", "lo", "up"])?;
    within(netns, || {
        let file = Path::new("/proc/sys/net/ipv4/ip_forward");
        fs::write(file, "1").context("write", file)
    })
}

/// Removes a node's cable. That it is gone already is fine: it goes by itself a moment after the node's namespace.
fn unplug(control: &str, cable: &str) -> Result<()> {
    match run("ip", &["-n", control, "link", "delete", cable]) {
        Err(error) if has_link(control, cable) => Err(error),
        _ => Ok(()),
    }
}

fn has_link(netns: &str, link: &str) -> bool {
    run("ip", &["-n", netns, "link", "show", link]).is_ok()
}

/// The inode that tells whether a process is in this namespace.
pub fn inode(netns: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path(netns)).ok().map(|m| m.ino())
}

/// The inode of the network namespace of a process.
pub fn inode_of_process(pid: i32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|m| m.ino())
}
