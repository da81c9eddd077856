//! The images of a cluster's own workloads.
//!
//! Taken from the pod template: containers, init containers, ephemeral containers of pods, and image volumes.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// An object that makes pods, or is one.
pub trait Workload {
    /// What its pods are made of.
    fn pod_spec(&self) -> Option<&PodSpec>;
}

macro_rules! workload {
    ($kind:ident, |$object:ident| $spec:expr) => {
        impl Workload for $kind {
            fn pod_spec(&self) -> Option<&PodSpec> {
                let $object = self;
                $spec
            }
        }
    };
}

workload!(Deployment, |object| object.spec.as_ref()?.template.spec.as_ref());
workload!(StatefulSet, |object| object.spec.as_ref()?.template.spec.as_ref());
workload!(DaemonSet, |object| object.spec.as_ref()?.template.spec.as_ref());
workload!(Job, |object| object.spec.as_ref()?.template.spec.as_ref());
workload!(CronJob, |object| object
    .spec
    .as_ref()?
    .job_template
    .spec
    .as_ref()?
    .template
    .spec
    .as_ref());
workload!(Pod, |object| object.spec.as_ref());

/// The containers and image volumes of a pod, each with its image. One that names none is left out: whoever admits the
/// pod fills it in.
pub fn images_of(spec: &PodSpec) -> impl Iterator<Item = (&str, &str)> {
    let init = spec.init_containers.iter().flatten();
    let containers = init
        .chain(&spec.containers)
        .map(|c| (c.name.as_str(), c.image.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|c| (c.name.as_str(), c.image.as_deref()));
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| {
        let image = volume.image.as_ref()?;
        Some((volume.name.as_str(), image.reference.as_deref()))
    });
    containers
        .chain(ephemeral)
        .chain(volumes)
        .filter_map(|(name, image)| image.filter(|i| !i.is_empty()).map(|image| (name, image)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(spec: serde_json::Value) -> T {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    fn found<W: Workload>(object: &W) -> Vec<(&str, &str)> {
        object.pod_spec().into_iter().flat_map(images_of).collect()
    }

    #[test]
    fn every_place_of_a_pod_that_names_an_image_counts() {
        let pod: Pod = object(json!({
            "containers": [{"name": "main", "image": "nginx:1"}, {"name": "later"}, {"name": "empty", "image": ""}],
            "initContainers": [{"name": "first", "image": "busybox:1"}],
            "ephemeralContainers": [{"name": "debug", "image": "busybox:2"}],
            "volumes": [
                {"name": "model", "image": {"reference": "quay.io/a/model:1"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }));
        let expected = [
            ("first", "busybox:1"),
            ("main", "nginx:1"),
            ("debug", "busybox:2"),
            ("model", "quay.io/a/model:1"),
        ];
        assert_eq!(found(&pod), expected);
    }

    #[test]
    fn every_kind_has_its_pod_template() {
        let template =
            |tag: &str| json!({"spec": {"containers": [{"name": "c", "image": format!("x:{tag}")}]}});
        let set = |tag: &str| json!({"selector": {}, "serviceName": "x", "template": template(tag)});
        assert_eq!(found(&object::<Deployment>(set("1"))), [("c", "x:1")]);
        assert_eq!(found(&object::<StatefulSet>(set("2"))), [("c", "x:2")]);
        assert_eq!(found(&object::<DaemonSet>(set("3"))), [("c", "x:3")]);
        assert_eq!(
            found(&object::<Job>(json!({"template": template("4")}))),
            [("c", "x:4")]
        );
        let cron = json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template("5")}}});
        assert_eq!(found(&object::<CronJob>(cron)), [("c", "x:5")]);
        assert!(Deployment::default().pod_spec().is_none());
    }
}
