//! The addresses inside a cluster's namespaces. They are the same in every cluster: each has a control-plane
//! namespace of its own, so they never meet.

use std::net::Ipv4Addr;

/// The bridge, where the API server listens.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The registry that anyone may read and write.
pub const REGISTRY_OPEN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The registry that asks for a user and password.
pub const REGISTRY_AUTH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The registry that speaks TLS with a certificate of the cluster's own authority.
pub const REGISTRY_TLS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
/// An address where nothing listens: connections are refused at once.
pub const REFUSING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
/// An address that drops every packet: connections hang.
pub const DROPPING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 6);
/// An address for what a test serves itself: nodes and the operator take [`GUEST_PORTS`] of it for registries over plain
/// HTTP.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 7);
/// One for each test that wants to be a registry, since tests run side by side.
pub const GUEST_PORTS: [u16; 3] = [5000, 5001, 5002];
/// The port of all registries, and of the two addresses that only pretend to be one.
pub const REGISTRY_PORT: u16 = 5000;
/// The API server's port.
pub const API_PORT: u16 = 6443;
/// The first address of the service range: the API server as pods see it.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The address in the service range where pods look for a name server. There is none.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Every address that a node, a pod or a component of the control plane can have.
pub const CLUSTER_RANGE: &str = "10.77.0.0/16";
/// Length of the prefix of the nodes' network and of each node's pod range.
pub const PREFIX: u8 = 24;
/// A node's number is 1 to this.
pub const MOST_NODES: u8 = 150;

/// The address of the node with this number (1 to [`MOST_NODES`]).
pub fn node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number.min(MOST_NODES))
}

/// The hardware address of the node with this number: always the same, so that nobody remembers a wrong one when a node
/// comes back.
pub fn node_mac(number: u8) -> String {
    format!("02:00:00:00:01:{number:02x}")
}

/// The range of the pods on the node with this number, as `a.b.c.0/24`.
pub fn pod_range(number: u8) -> String {
    format!("10.77.{}.0/{PREFIX}", 100 + number.min(MOST_NODES))
}

/// The name of the control plane's end of the cable to the node with this number (at most 15 characters).
pub fn cable(number: u8) -> String {
    format!("node{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_pods_never_overlap() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..=MOST_NODES {
            assert!(node(number).octets()[3] > 10, "clear of the registries");
            assert!(seen.insert(node(number).to_string()));
            assert!(seen.insert(pod_range(number)));
            assert!(cable(number).len() <= 15);
        }
        assert_eq!(node(1).to_string(), "10.77.0.11");
        assert_eq!(pod_range(MOST_NODES), "10.77.250.0/24");
    }
}
