//! What runs once a cluster: the control plane, the registries, the supervisor; and the logs that tests read.

pub mod audit;
pub mod components;
pub mod kubeconfig;
pub mod pki;
pub mod registry;
pub mod supervise;
