use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use larder_api::image_cache::NodesSpec;
use proptest::prelude::*;

use super::{ALWAYS_TOLERATED, Eligibility, eligibility, pod_tolerations, tolerated};
use crate::facts::NodeFacts;

fn node(labels: &[(&str, &str)]) -> NodeFacts {
    NodeFacts {
        name: "node-1".into(),
        uid: "u1".into(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ready: true,
        os: "linux".into(),
        architecture: "amd64".into(),
        ..NodeFacts::default()
    }
}

fn expression(key: &str, operator: &str, values: &[&str]) -> NodesSpec {
    let requirement = LabelSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
    };
    let selector = LabelSelector {
        match_expressions: Some(vec![requirement]),
        ..LabelSelector::default()
    };
    NodesSpec {
        selector: Some(selector),
        ..NodesSpec::default()
    }
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
    }
}

fn affinity(terms: Vec<NodeSelectorTerm>) -> NodesSpec {
    NodesSpec {
        affinity: Some(NodeSelector {
            node_selector_terms: terms,
        }),
        ..NodesSpec::default()
    }
}

fn labels_term(r: NodeSelectorRequirement) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: Some(vec![r]),
        match_fields: None,
    }
}

fn fields_term(r: NodeSelectorRequirement) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![r]),
    }
}

fn taint(key: &str, value: &str, effect: &str) -> Taint {
    Taint {
        key: key.into(),
        value: Some(value.to_owned()).filter(|v| !v.is_empty()),
        effect: effect.into(),
        time_added: None,
    }
}

fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
    let text = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    Toleration {
        key: text(key),
        operator: text(operator),
        value: text(value),
        effect: text(effect),
        toleration_seconds: None,
    }
}

fn selected(nodes: &NodesSpec, node: &NodeFacts) -> bool {
    eligibility(nodes, node).is_selected()
}

#[test]
fn label_expressions() {
    let pool = node(&[("pool", "web"), ("cores", "8")]);
    for (key, operator, values, expected) in [
        ("pool", "In", &["web", "db"][..], true),
        ("pool", "In", &["db"], false),
        ("absent", "In", &["web"], false),
        ("pool", "NotIn", &["web"], false),
        ("pool", "NotIn", &["db"], true),
        ("absent", "NotIn", &["web"], true),
        ("pool", "Exists", &[], true),
        ("absent", "Exists", &[], false),
        ("pool", "DoesNotExist", &[], false),
        ("absent", "DoesNotExist", &[], true),
        // What the API server would refuse matches nothing.
        ("pool", "In", &[], false),
        ("absent", "NotIn", &[], false),
        ("pool", "Exists", &["x"], false),
        ("cores", "Gt", &["4"], false),
        ("pool", "Like", &["web"], false),
    ] {
        assert_eq!(
            selected(&expression(key, operator, values), &pool),
            expected,
            "{key} {operator} {values:?}"
        );
    }
}

#[test]
fn match_labels_are_all_needed_and_an_empty_selector_takes_everything() {
    let selector = |labels: &[(&str, &str)]| {
        let map: BTreeMap<_, _> = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let selector = LabelSelector {
            match_labels: Some(map),
            ..LabelSelector::default()
        };
        NodesSpec {
            selector: Some(selector),
            ..NodesSpec::default()
        }
    };
    let n = node(&[("a", "1"), ("b", "2")]);
    assert!(selected(&selector(&[]), &n));
    assert!(selected(&selector(&[("a", "1"), ("b", "2")]), &n));
    assert!(!selected(&selector(&[("a", "1"), ("b", "3")]), &n));
    assert!(selected(&NodesSpec::default(), &n));
}

#[test]
fn node_affinity() {
    let n = node(&[("cores", "8"), ("pool", "web")]);
    for (terms, expected) in [
        (vec![labels_term(requirement("cores", "Gt", &["4"]))], true),
        (vec![labels_term(requirement("cores", "Gt", &["8"]))], false),
        (vec![labels_term(requirement("cores", "Lt", &["16"]))], true),
        (vec![labels_term(requirement("cores", "Lt", &["8"]))], false),
        (vec![labels_term(requirement("pool", "Gt", &["1"]))], false),
        (vec![labels_term(requirement("absent", "Lt", &["1"]))], false),
        (vec![labels_term(requirement("cores", "Gt", &["many"]))], false),
        (vec![labels_term(requirement("cores", "Gt", &["1", "2"]))], false),
        (
            vec![fields_term(requirement("metadata.name", "In", &["node-1"]))],
            true,
        ),
        (
            vec![fields_term(requirement("metadata.name", "In", &["node-2"]))],
            false,
        ),
        (
            vec![fields_term(requirement("metadata.name", "NotIn", &["node-2"]))],
            true,
        ),
        (
            vec![fields_term(requirement("metadata.uid", "In", &["u1"]))],
            false,
        ),
        (
            vec![fields_term(requirement("metadata.name", "Exists", &[]))],
            false,
        ),
        // Terms are alternatives.
        (
            vec![
                labels_term(requirement("pool", "In", &["db"])),
                fields_term(requirement("metadata.name", "In", &["node-1"])),
            ],
            true,
        ),
        // Expressions and fields of one term are both needed.
        (
            vec![NodeSelectorTerm {
                match_expressions: Some(vec![requirement("pool", "In", &["web"])]),
                match_fields: Some(vec![requirement("metadata.name", "In", &["node-2"])]),
            }],
            false,
        ),
        (vec![NodeSelectorTerm::default()], false),
        (vec![], false),
    ] {
        assert_eq!(selected(&affinity(terms.clone()), &n), expected, "{terms:?}");
    }
}

#[test]
fn selector_and_affinity_are_both_needed() {
    let n = node(&[("pool", "web")]);
    let mut spec = expression("pool", "In", &["web"]);
    spec.affinity = affinity(vec![labels_term(requirement("pool", "In", &["db"]))]).affinity;
    assert!(!selected(&spec, &n));
}

#[test]
fn only_linux_unless_asked() {
    let mut windows = node(&[("kubernetes.io/os", "windows")]);
    windows.os = "windows".into();
    assert_eq!(
        eligibility(&NodesSpec::default(), &windows),
        Eligibility::NotMatching
    );
    assert!(selected(&expression("kubernetes.io/os", "Exists", &[]), &windows));
    assert!(selected(
        &affinity(vec![labels_term(requirement(
            "kubernetes.io/os",
            "In",
            &["windows"]
        ))]),
        &windows
    ));
    // Not reported yet: the label decides.
    windows.os = String::new();
    assert!(!selected(&NodesSpec::default(), &windows));
    let mut fresh = node(&[]);
    fresh.os = String::new();
    assert!(selected(&NodesSpec::default(), &fresh));
}

#[test]
fn virtual_and_leaving_nodes_are_none_of_ours() {
    assert!(!selected(
        &NodesSpec::default(),
        &node(&[("type", "virtual-kubelet")])
    ));
    let leaving = NodeFacts {
        deleting: true,
        ..node(&[])
    };
    assert!(!selected(&NodesSpec::default(), &leaving));
}

#[test]
fn taints_and_tolerations() {
    let gpu = taint("gpu", "yes", "NoSchedule");
    for (tolerations, expected) in [
        (vec![], false),
        (vec![toleration("gpu", "Equal", "yes", "NoSchedule")], true),
        (vec![toleration("gpu", "", "yes", "")], true),
        (vec![toleration("gpu", "Equal", "no", "")], false),
        (vec![toleration("gpu", "Exists", "", "")], true),
        (vec![toleration("gpu", "Exists", "", "NoExecute")], false),
        (vec![toleration("", "Exists", "", "")], true),
        (vec![toleration("", "Exists", "", "NoSchedule")], true),
        (vec![toleration("", "Exists", "", "NoExecute")], false),
        (vec![toleration("", "Equal", "yes", "")], false),
        (vec![toleration("gpu", "Like", "yes", "")], false),
        (vec![toleration("other", "Exists", "", "")], false),
    ] {
        assert_eq!(tolerated(&gpu, &tolerations), expected, "{tolerations:?}");
    }
    assert!(tolerated(&taint("gpu", "", "PreferNoSchedule"), &[]));
    assert!(!tolerated(&taint("gpu", "", "NoExecute"), &[]));
    for key in ALWAYS_TOLERATED {
        assert!(tolerated(&taint(key, "", "NoSchedule"), &[]), "{key}");
        assert!(tolerated(&taint(key, "", "NoExecute"), &[]), "{key}");
    }
    assert!(tolerated(
        &taint(
            "startup-taint.cluster-autoscaler.kubernetes.io/x",
            "",
            "NoSchedule"
        ),
        &[]
    ));
}

#[test]
fn what_keeps_a_selected_node_from_work_comes_in_order() {
    let mut n = node(&[]);
    n.taints = vec![taint("gpu", "", "NoSchedule")];
    n.ready = false;
    n.unschedulable = true;
    n.disk_pressure = true;
    let mut spec = NodesSpec::default();
    assert_eq!(eligibility(&spec, &n), Eligibility::NotTolerated);
    n.taints = vec![taint("node.kubernetes.io/unschedulable", "", "NoSchedule")];
    assert_eq!(eligibility(&spec, &n), Eligibility::Unreachable);
    n.ready = true;
    assert_eq!(eligibility(&spec, &n), Eligibility::Cordoned);
    spec.include_unschedulable = true;
    assert_eq!(eligibility(&spec, &n), Eligibility::DiskPressure);
    n.disk_pressure = false;
    assert_eq!(eligibility(&spec, &n), Eligibility::Workable);
}

fn any_taint() -> impl Strategy<Value = Taint> {
    let key = prop_oneof![
        prop::sample::select(ALWAYS_TOLERATED.to_vec()).prop_map(str::to_owned),
        Just("startup-taint.cluster-autoscaler.kubernetes.io/cni".to_owned()),
        "[ab]",
    ];
    let effect = prop::sample::select(vec!["NoSchedule", "NoExecute", "PreferNoSchedule"]);
    (key, "[xy]?", effect).prop_map(|(key, value, effect)| taint(&key, &value, effect))
}

fn any_toleration() -> impl Strategy<Value = Toleration> {
    let operator = prop::sample::select(vec!["", "Equal", "Exists"]);
    let effect = prop::sample::select(vec!["", "NoSchedule", "NoExecute"]);
    ("[ab]?", operator, "[xy]?", effect)
        .prop_map(|(key, op, value, effect)| toleration(&key, op, &value, effect))
}

proptest! {
    #[test]
    fn pods_on_a_selected_node_tolerate_all_its_taints(
        taints in prop::collection::vec(any_taint(), 0..5),
        tolerations in prop::collection::vec(any_toleration(), 0..4),
    ) {
        let n = NodeFacts { taints: taints.clone(), ..node(&[]) };
        let spec = NodesSpec { tolerations, ..NodesSpec::default() };
        let carried = pod_tolerations(&spec, &n);
        let all = taints.iter().filter(|t| t.effect != "PreferNoSchedule").all(|t| carried.iter().any(|c| super::tolerates(c, t)));
        prop_assert_eq!(selected(&spec, &n), all);
    }

    #[test]
    fn one_more_toleration_never_excludes_a_node(
        taints in prop::collection::vec(any_taint(), 0..5),
        tolerations in prop::collection::vec(any_toleration(), 0..4),
        more in any_toleration(),
    ) {
        let n = NodeFacts { taints, ..node(&[]) };
        let fewer = NodesSpec { tolerations, ..NodesSpec::default() };
        let mut wider = fewer.clone();
        wider.tolerations.push(more);
        prop_assert!(!selected(&fewer, &n) || selected(&wider, &n));
    }
}
