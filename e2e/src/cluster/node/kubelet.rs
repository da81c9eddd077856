//! A node's kubelet and kube-proxy: their configuration.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::addresses as ip;
use crate::cluster::machine::mounts::NODE_FOLDER;
use crate::cluster::state::NodeState;

/// The kubelet's configuration. Paths are as the node sees them.
pub fn config(node: &NodeState, cgroup: &str, serialize_image_pulls: bool, kubernetes: &str) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ip::node(node.number).to_string(),
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "30s"},
            "x509": {"clientCAFile": format!("{NODE_FOLDER}/pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{NODE_FOLDER}/pki/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{NODE_FOLDER}/pki/kubelet.key"),
        "rotateCertificates": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": ["pods"],
        "resolvConf": "/etc/resolv.conf",
        "clusterDomain": "cluster.local",
        // No name server runs there. Without an address every pod would draw an event that says so.
        "clusterDNS": [ip::DNS_SERVICE.to_string()],
        "makeIPTablesUtilChains": false,
        "maxPods": 110,
        "serializeImagePulls": serialize_image_pulls,
        // The node's disk is small and shared with other work: no eviction and no collection unless a test asks.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // Tests stop nodes and wait until the cluster notices: a lease is renewed every quarter of its duration.
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusReportFrequency": "10s",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        "shutdownGracePeriod": "0s",
        "registerWithTaints": node.taints.iter().filter_map(|t| taint(t)).collect::<Vec<_>>(),
    });
    // Alpha in those releases, on by default since.
    if matches!(kubernetes, "1.32" | "1.33" | "1.34") {
        config["featureGates"] = json!({"KubeletCrashLoopBackOffMax": true});
    }
    merge(&mut config, &node.kubelet);
    config
}

/// The kubelet's arguments beyond its configuration file.
pub fn args(node: &NodeState) -> Vec<String> {
    let mut args = vec![
        format!("--config={NODE_FOLDER}/kubelet.json"),
        format!("--kubeconfig={NODE_FOLDER}/pki/kubelet.kubeconfig"),
        format!("--cert-dir={NODE_FOLDER}/pki"),
        "--root-dir=/var/lib/kubelet".into(),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", ip::node(node.number)),
    ];
    let labels: Vec<String> = node
        .labels
        .iter()
        .filter(|(key, _)| kubelet_may_set(key))
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if !labels.is_empty() {
        args.push(format!("--node-labels={}", labels.join(",")));
    }
    args
}

/// The labels that the kubelet may not give itself; somebody else must set them once the node has registered.
pub fn labels_for_others(node: &NodeState) -> BTreeMap<&str, &str> {
    node.labels
        .iter()
        .filter(|(key, _)| !kubelet_may_set(key))
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect()
}

/// The kubelet refuses to start with labels of Kubernetes' own domains, save a few; all of them are left to others.
fn kubelet_may_set(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    !["kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain == *own || domain.ends_with(&format!(".{own}")))
}

/// A taint from `key=value:Effect` or `key:Effect`.
pub fn taint(text: &str) -> Option<Value> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    (known && !key.is_empty()).then(|| json!({"key": key, "value": value, "effect": effect}))
}

/// kube-proxy's configuration.
pub fn proxy_config(node: &NodeState) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": ip::CLUSTER_RANGE,
        "clientConnection": {"kubeconfig": format!("{NODE_FOLDER}/pki/kube-proxy.kubeconfig")},
        // These limits are the machine's, not the node's: leave them alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// Merges a patch into a document (RFC 7396): null removes, objects merge, everything else replaces.
fn merge(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return };
    for (key, change) in patch {
        match change {
            Value::Null => {
                document.as_object_mut().map(|d| d.remove(key));
            }
            Value::Object(_) => {
                if !document[key].is_object() {
                    document[key] = json!({});
                }
                merge(&mut document[key], change);
            }
            _ => document[key] = change.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeState {
        NodeState {
            name: "node-1".into(),
            number: 1,
            labels: [("pool", "web"), ("node-role.kubernetes.io/worker", "")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            taints: vec!["a=b:NoSchedule".into()],
            image_disk: 1,
            kubelet: Value::Null,
            stopped: false,
        }
    }

    #[test]
    fn only_labels_that_the_kubelet_may_set_reach_its_command_line() {
        let node = node();
        assert!(args(&node).contains(&"--node-labels=pool=web".to_owned()));
        assert_eq!(
            labels_for_others(&node),
            BTreeMap::from([("node-role.kubernetes.io/worker", "")])
        );
        assert!(
            kubelet_may_set("larder.dev/x")
                && kubelet_may_set("notkubernetes.io/x")
                && !kubelet_may_set("kubernetes.io/os")
        );
    }

    #[test]
    fn taints_are_read_as_kubectl_reads_them() {
        assert_eq!(
            taint("a=b:NoSchedule"),
            Some(json!({"key": "a", "value": "b", "effect": "NoSchedule"}))
        );
        assert_eq!(
            taint("a:NoExecute"),
            Some(json!({"key": "a", "value": "", "effect": "NoExecute"}))
        );
        for bad in ["a", "a=b", "a:Never", ":NoSchedule"] {
            assert_eq!(taint(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_node_can_change_any_setting_of_its_kubelet() {
        let mut node = node();
        node.kubelet = json!({"imageGCHighThresholdPercent": 50, "evictionHard": {"memory.available": null}, "x": {"y": 1}});
        let config = config(&node, "larder/n-node-1", true, "1.36");
        assert_eq!(config["imageGCHighThresholdPercent"], 50);
        assert!(config["evictionHard"].get("memory.available").is_none());
        assert_eq!(config["evictionHard"]["nodefs.available"], "0%");
        assert_eq!(config["x"]["y"], 1);
        assert_eq!(config["serializeImagePulls"], true);
        assert!(config.get("featureGates").is_none());
    }
}
