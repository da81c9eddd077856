//! Sockets inside the cluster's network: beside the registries, where nodes and the operator reach them.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;

use larder_e2e::cluster::machine::launch::enter;
use nix::sched::CloneFlags;
use tokio::net::TcpListener;

use super::Env;

impl Env {
    /// Listens in the namespace of the control plane; port 0 is a free one.
    pub fn listen(&self, address: SocketAddr) -> TcpListener {
        let namespace = Path::new("/run/netns").join(self.cluster.name().control_netns());
        // A socket stays in the namespace that it was made in; the thread that enters it is good for nothing else.
        let listening = std::thread::spawn(move || {
            enter(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = StdListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        TcpListener::from_std(listening.join().unwrap()).unwrap()
    }
}
