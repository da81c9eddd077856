//! `CredentialProviderConfig`: which plugins there are and for which images.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::duration;

const CONFIG_KIND: &str = "CredentialProviderConfig";
const CONFIG_VERSIONS: [&str; 3] = [
    "kubelet.config.k8s.io/v1",
    "kubelet.config.k8s.io/v1beta1",
    "kubelet.config.k8s.io/v1alpha1",
];
const PLUGIN_VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// One plugin.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// Globs of what the kubelet would ask it for.
    pub(super) match_images: Vec<String>,
    /// For answers that name none.
    pub(super) default_cache_duration: Duration,
    /// Version of what it is sent and answers.
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    api_version: String,
    #[serde(default)]
    providers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: String,
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<EnvVar>>,
    /// Credentials for the service account of the pod that pulls: outside of a pod there is none.
    #[serde(default)]
    token_attributes: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct EnvVar {
    name: String,
    value: String,
}

/// Reads and checks the file as the kubelet does at its start.
pub(super) fn load(path: &Path, folder: &Path) -> Result<Vec<Provider>> {
    let name = || format!("--image-credential-provider-config {}", path.display());
    let text = std::fs::read_to_string(path).with_context(name)?;
    parse(&text, folder).with_context(name)
}

fn parse(text: &str, folder: &Path) -> Result<Vec<Provider>> {
    // The lines around a mistake, which could be shown with it, may hold secrets for plugins.
    let file: File = serde_saphyr::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.without_snippet()))?;
    ensure!(
        file.kind == CONFIG_KIND,
        "kind is {:?}, not {CONFIG_KIND}",
        file.kind
    );
    ensure!(
        CONFIG_VERSIONS.contains(&file.api_version.as_str()),
        "apiVersion {:?} is unknown",
        file.api_version
    );
    ensure!(!file.providers.is_empty(), "there are no providers");
    let mut names = BTreeSet::new();
    let mut providers = Vec::new();
    for entry in file.providers {
        ensure!(
            names.insert(entry.name.clone()),
            "provider {:?} is there twice",
            entry.name
        );
        let name = entry.name.clone();
        providers.push(check(entry, folder).with_context(|| format!("provider {name:?}"))?);
    }
    Ok(providers)
}

fn check(entry: Entry, folder: &Path) -> Result<Provider> {
    // The name is that of a program in the folder, and must not lead out of it.
    if entry.name.is_empty()
        || entry.name == "."
        || entry.name == ".."
        || entry.name.contains(['/', '\\', ' '])
    {
        bail!("the name is not that of a file");
    }
    ensure!(!entry.match_images.is_empty(), "matchImages is empty");
    ensure!(
        PLUGIN_VERSIONS.contains(&entry.api_version.as_str()),
        "apiVersion {:?} is unknown",
        entry.api_version
    );
    ensure!(
        entry.token_attributes.is_none(),
        "tokenAttributes needs a pod's service account, and there is no pod here"
    );
    let default_cache_duration = duration::parse(&entry.default_cache_duration)
        .map_err(anyhow::Error::msg)
        .context("defaultCacheDuration")?;
    let program = folder.join(&entry.name);
    ensure!(program.is_file(), "{} is not there", program.display());
    let env = entry.env.unwrap_or_default();
    Ok(Provider {
        name: entry.name,
        program,
        match_images: entry.match_images,
        default_cache_duration,
        api_version: entry.api_version,
        args: entry.args.unwrap_or_default(),
        env: env.into_iter().map(|v| (v.name, v.value)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(provider: &str) -> String {
        format!(
            "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n{provider}"
        )
    }

    #[test]
    fn a_kubelets_file_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ecr"), "").unwrap();
        let text = config(
            "- name: ecr\n  matchImages: ['*.dkr.ecr.*.amazonaws.com']\n  defaultCacheDuration: 12h\n  \
             apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get-credentials]\n  \
             env: [{name: AWS_PROFILE, value: x}]\n",
        );
        let providers = parse(&text, folder.path()).unwrap();
        let provider = &providers[0];
        assert_eq!(provider.program, folder.path().join("ecr"));
        assert_eq!(provider.default_cache_duration, Duration::from_hours(12));
        assert_eq!(provider.args, ["get-credentials"]);
        assert_eq!(provider.env, [("AWS_PROFILE".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn what_the_kubelet_refuses_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p"), "").unwrap();
        let rest = "matchImages: [quay.io], defaultCacheDuration: 1m, apiVersion: credentialprovider.kubelet.k8s.io/v1";
        let table = [
            (
                format!("- {{name: ../p, {rest}}}"),
                "the name is not that of a file",
            ),
            (format!("- {{name: absent, {rest}}}"), "is not there"),
            (
                format!("- {{name: p, {rest}}}\n- {{name: p, {rest}}}"),
                "is there twice",
            ),
            (
                format!("- {{name: p, {rest}, tokenAttributes: {{}}}}"),
                "service account",
            ),
            (
                format!("- {{name: p, {}}}", rest.replace("[quay.io]", "[]")),
                "matchImages is empty",
            ),
            (
                format!("- {{name: p, {}}}", rest.replace("1m", "-1m")),
                "defaultCacheDuration",
            ),
            (
                format!("- {{name: p, {}}}", rest.replace("/v1", "/v9")),
                "is unknown",
            ),
        ];
        for (provider, words) in table {
            let error = parse(&config(&provider), folder.path()).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{provider}: {error:#}");
        }
        assert!(parse("kind: Pod\napiVersion: v1", folder.path()).is_err());
    }
}
