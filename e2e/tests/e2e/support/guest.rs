//! A registry of a test's own, with faults on command, where nodes and the operator reach it.

use std::net::SocketAddr;

use larder_e2e::cluster::addresses::{GUEST, GUEST_PORTS};
use larder_e2e::images::ImageSpec;
use larder_testkit::registry::{Auth, FakeRegistry};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::Env;

/// The fake registry, by a forwarder from an address inside the cluster.
pub struct Guest {
    pub registry: FakeRegistry,
    address: SocketAddr,
    forwarder: Option<JoinHandle<()>>,
}

impl Guest {
    /// Serves at one of the addresses that are kept for it. No two tests may use the same.
    pub async fn serve(env: &Env, which: usize, auth: Auth) -> Self {
        let address = SocketAddr::from((GUEST, GUEST_PORTS[which]));
        let registry = FakeRegistry::start(auth).await.unwrap();
        registry.set_realm(format!("http://{address}/token"));
        let mut guest = Self {
            registry,
            address,
            forwarder: None,
        };
        guest.up(env);
        guest
    }

    /// As references name it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Holds an image of one manifest, as the cluster's registries would. Gives its digest.
    pub fn put(&self, repository: &str, tag: &str, image: &ImageSpec) -> String {
        let folder = tempfile::tempdir().unwrap();
        image.build().unwrap().write_layout(folder.path(), None).unwrap();
        let blob = |digest: &Value| {
            let name = digest.as_str().unwrap().trim_start_matches("sha256:");
            std::fs::read(folder.path().join("blobs/sha256").join(name)).unwrap()
        };
        let index = std::fs::read(folder.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let root = &index["manifests"][0];
        let bytes = blob(&root["digest"]);
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        for part in layers.iter().chain([&manifest["config"]]) {
            self.registry.put_blob(repository, blob(&part["digest"]).into());
        }
        let media_type = root["mediaType"].as_str().unwrap();
        self.registry
            .put_manifest(repository, tag, media_type, bytes.into())
    }

    /// Refuses connections, and ends those that there are.
    pub async fn down(&mut self) {
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.abort();
            let _ = forwarder.await;
        }
    }

    /// Takes connections again.
    pub fn up(&mut self, env: &Env) {
        let listener = env.listen(self.address);
        self.forwarder = Some(tokio::spawn(forward(listener, self.registry.host())));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(forwarder) = &self.forwarder {
            forwarder.abort();
        }
    }
}

async fn forward(listener: TcpListener, to: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        let to = to.clone();
        connections.spawn(async move {
            if let Ok(mut to) = TcpStream::connect(to).await {
                // A connection that breaks is a fault that was asked for, or the end of the test.
                let _ = copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}
