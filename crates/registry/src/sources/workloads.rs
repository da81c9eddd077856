//! The images of a cluster's own workloads.
//!
//! Taken from the pod template: containers, init containers, ephemeral containers of pods, and image volumes.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Collector, Found, SourceError};

/// An object that makes pods, or is one.
pub trait Workload {
    /// As in `kind`.
    const KIND: &'static str;

    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;

    /// What its pods are made of.
    fn pod_spec(&self) -> Option<&PodSpec>;
}

macro_rules! workload {
    ($kind:ident, |$object:ident| $spec:expr) => {
        impl Workload for $kind {
            const KIND: &'static str = stringify!($kind);

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

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

/// An image of a pod, with the container or volume that it is for. One that is empty is left out: what runs the pod fills
/// it in.
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

/// Gathers the images of workloads one after another, so that no list of them need be in memory.
#[derive(Default)]
pub struct Workloads {
    collector: Collector,
}

impl Workloads {
    /// Takes an object. Its images have the app `Kind namespace/name` and the container or volume as service.
    pub fn add<W: Workload>(&mut self, object: &W) {
        let Some(spec) = object.pod_spec() else { return };
        let meta = object.meta();
        let app = format!(
            "{} {}/{}",
            W::KIND,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        );
        for (name, image) in images_of(spec) {
            self.collector
                .add(image, Some(&app), Some(name), &format!("{name}: "));
        }
    }

    /// All images, each once. Fails when they are more than a cache may have.
    pub fn finish(self) -> Result<Found, SourceError> {
        self.collector.finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(spec: serde_json::Value) -> T {
        let metadata = json!({"name": "web", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn found(workloads: Workloads) -> Vec<(String, String, String)> {
        let found = workloads.finish().unwrap();
        assert_eq!(found.errors, []);
        let images = found.images.into_iter();
        images
            .map(|i| (i.image, i.app.unwrap(), i.service.unwrap()))
            .collect()
    }

    #[test]
    fn every_place_of_a_pod_that_names_an_image_counts() {
        let mut workloads = Workloads::default();
        workloads.add::<Pod>(&object(json!({
            "containers": [{"name": "main", "image": "nginx:1"}, {"name": "later"}, {"name": "empty", "image": ""}],
            "initContainers": [{"name": "first", "image": "busybox:1"}],
            "ephemeralContainers": [{"name": "debug", "image": "busybox:2"}],
            "volumes": [
                {"name": "model", "image": {"reference": "quay.io/a/model:1"}},
                {"name": "same", "image": {"reference": "docker.io/library/nginx:1"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        })));
        let pod = "Pod shop/web".to_owned();
        assert_eq!(
            found(workloads),
            [
                ("busybox:1", "first"),
                ("nginx:1", "main"),
                ("busybox:2", "debug"),
                ("quay.io/a/model:1", "model")
            ]
            .map(|(image, name)| (image.to_owned(), pod.clone(), name.to_owned()))
        );
    }

    #[test]
    fn every_kind_has_its_pod_template() {
        let template =
            |tag: &str| json!({"spec": {"containers": [{"name": "c", "image": format!("x:{tag}")}]}});
        let set = |tag: &str| json!({"selector": {}, "serviceName": "x", "template": template(tag)});
        let mut workloads = Workloads::default();
        workloads.add::<Deployment>(&object(set("1")));
        workloads.add::<StatefulSet>(&object(set("2")));
        workloads.add::<DaemonSet>(&object(set("3")));
        workloads.add::<Job>(&object(json!({"template": template("4")})));
        workloads.add::<CronJob>(&object(
            json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template("5")}}}),
        ));
        workloads.add(&Deployment::default());
        let expected = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"];
        let expected = expected
            .iter()
            .zip(1..)
            .map(|(kind, tag)| (format!("x:{tag}"), format!("{kind} shop/web"), "c".to_owned()));
        assert_eq!(found(workloads), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_malformed_image_fails_alone_and_too_many_fail_together() {
        let mut workloads = Workloads::default();
        workloads.add::<Pod>(&object(json!({"containers": [
            {"name": "bad", "image": "Bad Name"}, {"name": "good", "image": "nginx"}]})));
        let found = workloads.finish().unwrap();
        assert_eq!(found.images.len(), 1);
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "Pod shop/web: bad: \"Bad Name\": character ' ' at position 4 is not allowed in an image reference"
            ]
        );

        let mut workloads = Workloads::default();
        for n in 0..501 {
            let containers = json!([{"name": "c", "image": format!("x:{n}")}]);
            workloads.add::<Pod>(&object(json!({ "containers": containers })));
        }
        let error = workloads.finish().unwrap_err();
        assert_eq!(error.message, "501 images, at most 500 are allowed");
    }
}
