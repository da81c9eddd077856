//! The one process that stays in the machine's own network namespace: it forwards ports of 127.0.0.1 into the cluster
//! and notes which component dies when.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::time::Duration;

use jiff::Timestamp;
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::cluster::addresses as ip;
use crate::cluster::control::registry::RegistryKind;
use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::layout::Layout;
use crate::cluster::machine::launch::enter;
use crate::cluster::machine::netns;
use crate::cluster::machine::process::Components;
use crate::cluster::name::ClusterName;
use crate::cluster::state::write_atomically;

/// The component's name.
pub const COMPONENT: &str = "supervisor";

/// The port that the default cluster's open registry has on this machine if it is free.
const PREFERRED_REGISTRY_PORT: u16 = 5000;

/// The ports of 127.0.0.1 that lead into a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwards {
    /// The supervisor that serves them; anything else was written by one before it.
    pub pid: u32,
    /// The API server.
    pub api: u16,
    /// The open registry.
    pub open: u16,
    /// The registry with basic auth.
    pub auth: u16,
    /// The registry with TLS.
    pub tls: u16,
}

impl Forwards {
    /// What the last supervisor wrote.
    pub fn load(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(layout.forwards()).ok()?).ok()
    }

    /// The port of a registry.
    pub fn registry(&self, kind: RegistryKind) -> u16 {
        match kind {
            RegistryKind::Open => self.open,
            RegistryKind::Auth => self.auth,
            RegistryKind::Tls => self.tls,
        }
    }
}

/// A component that died although nobody stopped it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which one.
    pub component: String,
    /// Its process.
    pub pid: i32,
    /// When it was noticed, at most half a second late.
    pub at: Timestamp,
}

/// The deaths noted so far. Lines that cannot be read are left out.
pub fn deaths(layout: &Layout) -> Vec<Death> {
    let text = std::fs::read_to_string(layout.deaths()).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Forwards and watches until killed.
pub fn run(name: &ClusterName, layout: &Layout) -> Result<()> {
    let before = Forwards::load(layout).unwrap_or_default();
    let preferred = |old: u16, wanted: u16| [old, wanted, 0];
    let registry = if name.as_str() == "larder" {
        PREFERRED_REGISTRY_PORT
    } else {
        0
    };
    let routes = [
        (
            preferred(before.api, 0),
            SocketAddrV4::new(ip::CONTROL_PLANE, ip::API_PORT),
        ),
        (
            preferred(before.open, registry),
            SocketAddrV4::new(ip::REGISTRY_OPEN, ip::REGISTRY_PORT),
        ),
        (
            preferred(before.auth, 0),
            SocketAddrV4::new(ip::REGISTRY_AUTH, ip::REGISTRY_PORT),
        ),
        (
            preferred(before.tls, 0),
            SocketAddrV4::new(ip::REGISTRY_TLS, ip::REGISTRY_PORT),
        ),
    ];
    // Bound here, in the machine's namespace; every worker of the runtime is inside, and so are the sockets it makes.
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    for (candidates, to) in routes {
        let listener = bind(&candidates)?;
        ports.push(listener.local_addr().map_err(socket_error)?.port());
        listeners.push((listener, to));
    }
    let [api, open, auth, tls] = ports[..] else {
        return Err(Error::Worker("ports".into()));
    };
    let namespace = netns::path(&name.control_netns());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || {
            if let Err(error) = enter(&namespace, CloneFlags::CLONE_NEWNET) {
                // Without its namespace the thread would reach for the machine's own addresses.
                eprintln!("{error}");
                std::process::exit(1);
            }
        })
        .enable_all()
        .build()
        .map_err(socket_error)?;
    for (listener, to) in listeners {
        runtime.spawn(serve(listener, SocketAddr::V4(to)));
    }
    let forwards = Forwards {
        pid: std::process::id(),
        api,
        open,
        auth,
        tls,
    };
    let text = serde_json::to_vec(&forwards).map_err(|e| Error::Worker(e.to_string()))?;
    write_atomically(&layout.forwards(), &text)?;
    watch(layout)
}

fn socket_error(source: std::io::Error) -> Error {
    Error::Io {
        what: "listen on",
        path: "127.0.0.1".into(),
        source,
    }
}

/// A listener on the first of the ports that is free; zeros before the last are skipped, the last takes any.
fn bind(candidates: &[u16]) -> Result<TcpListener> {
    let chosen = candidates.iter().filter(|port| **port != 0);
    for port in chosen {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)) {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(socket_error)
}

async fn serve(listener: TcpListener, to: SocketAddr) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
    {
        Ok(listener) => listener,
        Err(error) => return eprintln!("cannot forward to {to}: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((outside, _)) => {
                tokio::spawn(forward(outside, to));
            }
            Err(error) => {
                // Out of files, most likely: others will be closed.
                eprintln!("cannot accept for {to}: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Carries one connection; that an end breaks off is the other's to notice.
async fn forward(mut outside: TcpStream, to: SocketAddr) {
    if let Ok(mut inside) = TcpStream::connect(to).await {
        let _ = outside.set_nodelay(true);
        let _ = inside.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut outside, &mut inside, 64 << 10, 64 << 10).await;
    }
}

/// Notes every component whose record stays while its process goes.
fn watch(layout: &Layout) -> Result<()> {
    let components = Components::new(layout);
    let mut noted = BTreeSet::new();
    // The folder goes when the cluster is taken down.
    while layout.run().is_dir() {
        for record in components.records() {
            if record.process.is_alive() || !noted.insert((record.component.clone(), record.process.pid)) {
                continue;
            }
            let death = Death {
                component: record.component,
                pid: record.process.pid,
                at: Timestamp::now(),
            };
            let line = serde_json::to_string(&death).map_err(|e| Error::Worker(e.to_string()))?;
            let path = layout.deaths();
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .context("open", &path)?;
            writeln!(file, "{line}").context("write", &path)?;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = bind(&[port, 0]).unwrap().local_addr().unwrap().port();
        assert_ne!(other, port);
        drop(taken);
        assert_eq!(bind(&[0, port]).unwrap().local_addr().unwrap().port(), port);
    }

    #[test]
    fn deaths_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path(), &ClusterName::new("x").unwrap());
        assert!(deaths(&layout).is_empty());
        let death = Death {
            component: "etcd".into(),
            pid: 1,
            at: Timestamp::UNIX_EPOCH,
        };
        let text = format!("{}\nhalf a li", serde_json::to_string(&death).unwrap());
        write_atomically(&layout.deaths(), text.as_bytes()).unwrap();
        assert_eq!(deaths(&layout), [death]);
    }
}
