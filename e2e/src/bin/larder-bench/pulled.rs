//! The kubelet's news of single images: its events come at once, while a pod's status comes when all of its containers
//! have been started.

use k8s_openapi::api::core::v1::Event;

/// Whether a kubelet tells that an image of a pull pod has come; the node must be this one, if one is given.
pub fn is_pull(event: &Event, node: Option<&str>) -> bool {
    let reporter = event.source.as_ref().and_then(|source| source.host.as_deref());
    let container = event.involved_object.field_path.as_deref().unwrap_or_default();
    event.reason.as_deref() == Some("Pulled")
        // Not the program that the others run.
        && container.starts_with("spec.containers{i")
        && node.is_none_or(|node| reporter == Some(node))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn pulls_are_told_from_other_news_other_nodes_and_the_no_op() {
        let event = |reason: &str, path: &str| -> Event {
            from_value(json!({
                "metadata": {}, "reason": reason, "source": {"host": "n1"}, "involvedObject": {"fieldPath": path},
            }))
            .unwrap()
        };
        let pulled = event("Pulled", "spec.containers{i0}");
        assert!(is_pull(&pulled, None) && is_pull(&pulled, Some("n1")) && !is_pull(&pulled, Some("n2")));
        assert!(!is_pull(&event("Pulling", "spec.containers{i0}"), None));
        assert!(!is_pull(&event("Pulled", "spec.containers{noop}"), None));
    }
}
