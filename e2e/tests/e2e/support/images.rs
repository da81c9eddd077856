//! Small images of one test alone.

use larder_e2e::cluster::registry::RegistryKind;
use larder_e2e::images::ImageSpec;

use super::{Env, Namespace};

impl Namespace {
    /// Pushes a small image that no other test or run has, so that no node holds it yet and nothing else keeps it
    /// there. Returns its reference.
    pub async fn image(&self, env: &Env, kind: RegistryKind, name: &str) -> String {
        let repository = format!("{}/{name}", self.name);
        let spec = ImageSpec::new(rand::random()).layers(1, 10_000);
        env.push(kind, &spec, &repository, "1").await;
        format!("{}/{repository}:1", env.registry(kind).host)
    }
}
