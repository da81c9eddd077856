//! The kubelet's news of single images: its events come at once, while a pod's status comes when all of its containers
//! have been started.

use k8s_openapi::api::core::v1::Event;

/// Whether a kubelet tells that an image of a pull pod has come; the node must be this one, if one is given.
pub fn is_pull(event: &Event, node: Option<&str>) -> bool {
    let reporter = event.source.as_ref().and_then(|source| source.host.as_deref());
    is_of_image(event, "Pulled") && node.is_none_or(|node| reporter == Some(node))
}

/// Whether a kubelet tells that an image of a pull pod could not be had.
pub fn is_failure(event: &Event) -> bool {
    is_of_image(event, "Failed")
}

/// Whether the event tells this of one of the containers that are there for their images, not of the first, which brings
/// the program that the others run.
fn is_of_image(event: &Event, reason: &str) -> bool {
    let container = event.involved_object.field_path.as_deref().unwrap_or_default();
    event.reason.as_deref() == Some(reason) && container.starts_with("spec.containers{i")
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
        let failed = event("Failed", "spec.containers{i0}");
        assert!(is_failure(&failed) && !is_failure(&pulled));
        assert!(!is_failure(&event("Failed", "spec.containers{noop}")));
    }
}
