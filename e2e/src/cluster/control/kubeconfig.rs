//! Kubeconfig files: JSON, which every reader of YAML reads too.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::control::pki::KeyFiles;
use crate::cluster::error::{IoContext, Result};
use crate::cluster::state::write_atomically;

/// Writes a kubeconfig that reaches `server` as the owner of a certificate. Everything is inside the file, so it can
/// be moved.
pub fn write(path: &Path, cluster: &str, server: &str, ca: &Path, identity: &KeyFiles) -> Result<()> {
    let embed =
        |file: &Path| -> Result<String> { Ok(STANDARD.encode(fs::read(file).context("read", file)?)) };
    let config = kubeconfig(
        cluster,
        server,
        &embed(ca)?,
        &embed(&identity.cert)?,
        &embed(&identity.key)?,
    );
    let text = format!("{config:#}\n");
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write_atomically(path, text.as_bytes())
}

fn kubeconfig(cluster: &str, server: &str, ca: &str, cert: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": cluster, "user": {"client-certificate-data": cert, "client-key-data": key}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "current-context": cluster,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_library_reads_it() {
        let text = kubeconfig("larder", "https://127.0.0.1:6443", "Y2E=", "Y2VydA==", "a2V5").to_string();
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("larder"));
        assert_eq!(
            read.clusters[0].cluster.as_ref().unwrap().server.as_deref(),
            Some("https://127.0.0.1:6443")
        );
    }
}
