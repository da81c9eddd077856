//! The commands of the agent on a node, without the operator.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use larder_e2e::cluster::registry::RegistryKind::{Auth, Open};
use serde_json::{Value, json};

use crate::support::Env;

fn program() -> PathBuf {
    let program =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/larder/bin/linux_amd64/larder-agent");
    assert!(
        program.exists(),
        "{} is missing: run `make binaries`",
        program.display()
    );
    program.canonicalize().unwrap()
}

/// Runs the agent's program against a node's runtime, as on the node itself.
pub(super) fn agent(env: &Env, node: &str, arguments: &[&str]) -> Output {
    let socket = env.cluster.node(node).unwrap().containerd_socket().unwrap();
    let mut command = Command::new(program());
    command.args(arguments).arg("--cri-socket").arg(socket);
    command.output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect()
}

#[tokio::test]
async fn a_list_is_pulled_with_docker_config_and_provider_and_partial_failure_says_so() {
    let env = Env::shared().await;
    let ns = env.namespace("oneshot").await;
    let node = env.nodes().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let open = ns.image(&env, Open, "open").await;
    let (by_config, by_plugin) = (
        ns.image(&env, Auth, "config").await,
        ns.image(&env, Auth, "plugin").await,
    );
    let registry = env.registry(Auth);
    let (user, password) = registry.credentials.clone().unwrap();

    // Private, by a docker config.
    let list = folder.path().join("list");
    std::fs::write(
        &list,
        format!("# what every node needs\n{open}\n\n{by_config} # private\n"),
    )
    .unwrap();
    let config = folder.path().join("config.json");
    let auths = json!({"auths": {registry.host.clone(): {"username": user, "password": password}}});
    std::fs::write(&config, auths.to_string()).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let pull = [
        "pull",
        "--image-list-file",
        &text(&list),
        "--docker-config",
        &text(&config),
        "--output",
        "json",
    ];
    let output = agent(&env, &node, &pull);
    assert!(output.status.success(), "{output:?}");
    assert!(env.node_has(&node, &open) && env.node_has(&node, &by_config));
    let attempts: Vec<Value> = lines(&output)
        .into_iter()
        .filter(|l| l.get("attempt_id").is_some())
        .collect();
    assert_eq!(attempts.len(), 2, "{output:?}");
    for attempt in &attempts {
        for field in ["started_at", "image", "duration_ms", "size_bytes"] {
            assert!(attempt.get(field).is_some(), "{attempt}");
        }
    }

    // Private, by a credential provider.
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let plugin = plugins.join("keyring");
    let answer = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry", "cacheDuration": "1m",
        "auth": {registry.host.clone(): {"username": user, "password": password}},
    });
    std::fs::write(
        &plugin,
        format!("#!/bin/sh\ncat > /dev/null\ncat <<'END'\n{answer}\nEND\n"),
    )
    .unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let providers = folder.path().join("providers.yaml");
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "keyring", "matchImages": [registry.host.clone()],
            "defaultCacheDuration": "1m", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        }],
    });
    std::fs::write(&providers, configuration.to_string()).unwrap();
    let output = agent(
        &env,
        &node,
        &[
            "pull",
            &by_plugin,
            "--output",
            "json",
            "--image-credential-provider-config",
            &text(&providers),
            "--image-credential-provider-bin-dir",
            &text(&plugins),
        ],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(env.node_has(&node, &by_plugin));

    // One of two does not exist: the other arrives, and the exit code tells.
    let missing = format!("{}/{}/missing:1", env.registry(Open).host, ns.name);
    let late = ns.image(&env, Open, "late").await;
    let output = agent(
        &env,
        &node,
        &[
            "pull",
            &missing,
            &late,
            "--output",
            "json",
            "--overall-timeout",
            "10s",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(env.node_has(&node, &late));
    let failed = lines(&output)
        .into_iter()
        .any(|l| l["image"] == missing.as_str() && l["error"].as_str().is_some_and(|e| !e.is_empty()));
    assert!(failed, "{output:?}");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!said.contains(&password), "the password is printed");

    let output = agent(&env, &node, &["status", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    ns.delete().await;
}
