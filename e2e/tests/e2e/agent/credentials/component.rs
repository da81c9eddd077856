//! The component `deploy/credential-provider`, on the agents of nodes that join from now on.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::Env;

/// Where a node sees the folder that the test fills for it.
const SEEN: &str = "/run/node/credential-provider";

/// Taken away again when dropped.
pub struct Component<'a> {
    env: &'a Env,
}

impl<'a> Component<'a> {
    /// Makes the plugin and its configuration for a node that is to be added, and lets agents that start from now on use
    /// them. Those that run go on as they are.
    pub fn install(env: &'a Env, node: &str, host: &str, user: &str, password: &str) -> Self {
        let folder = env.cluster.layout().node(node).join("credential-provider");
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        compile(&folder.join("bin/keyring"));
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
            "providers": [{
                "name": "keyring", "matchImages": [host], "defaultCacheDuration": "1m",
                "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
                "env": [
                    {"name": "REGISTRY", "value": host},
                    {"name": "USER", "value": user},
                    {"name": "PASSWORD", "value": password},
                ],
            }],
        });
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();

        let shipped = root().join("deploy/credential-provider/agent.yaml");
        let mut patch = std::fs::read_to_string(shipped).unwrap();
        let rendered = rendered(env);
        for part in ["hostNetwork: true", "--image-credential-provider-bin-dir="] {
            assert!(
                patch.contains(part) && rendered.contains(part),
                "{part}: {rendered}"
            );
        }
        for (path, here) in [
            ("/etc/kubernetes/credential-provider.yaml", "config.json"),
            ("/usr/libexec/kubernetes/credential-provider", "bin"),
        ] {
            assert!(patch.contains(path), "{patch}");
            patch = patch.replace(path, &format!("{SEEN}/{here}"));
        }
        let component = Self { env };
        component.update_strategy("OnDelete").unwrap();
        component.patch(&patch).unwrap();
        component
    }

    fn update_strategy(&self, strategy: &str) -> Result<String, String> {
        // A rolling update's own settings go with it.
        let rolling = if strategy == "RollingUpdate" {
            json!({"maxUnavailable": "10%"})
        } else {
            json!(null)
        };
        let patch = json!({"spec": {"updateStrategy": {"type": strategy, "rollingUpdate": rolling}}});
        self.patch(&patch.to_string())
    }

    fn patch(&self, patch: &str) -> Result<String, String> {
        let object = [
            "-n",
            "larder-agents",
            "patch",
            "daemonset",
            "larder-agent",
            "--patch",
        ];
        self.env.kubectl(&[&object[..], &[patch]].concat())
    }
}

impl Drop for Component<'_> {
    fn drop(&mut self) {
        let undo = ["-n", "larder-agents", "rollout", "undo", "daemonset/larder-agent"];
        let undone = self.env.kubectl(&undo);
        let undone = undone.and_then(|_| self.update_strategy("RollingUpdate"));
        assert!(undone.is_ok() || std::thread::panicking(), "{undone:?}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What would be installed with the component.
fn rendered(env: &Env) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new(root().join("hack/manifests"))
        .arg(folder.path())
        .args(["ghcr.io/larder-dev", "any"])
        .status()
        .unwrap();
    assert!(copied.success());
    let deploy = folder.path().join("deploy");
    let file = deploy.join("kustomization.yaml");
    let kustomization = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("{kustomization}components: [credential-provider]\n"),
    )
    .unwrap();
    env.kubectl(&["kustomize", deploy.to_str().unwrap()]).unwrap()
}

/// The plugin as a static program.
fn compile(to: &Path) {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition=2024", "-C", "target-feature=+crt-static", "-o"])
        .arg(to)
        .arg(root().join("e2e/tests/plugin/keyring.rs"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
