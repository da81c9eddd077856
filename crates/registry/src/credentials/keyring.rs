//! Which credentials fit an image, decided as the kubelet does it.
//!
//! The rules are those of `pkg/credentialprovider/keyring.go` of Kubernetes: an entry names a host, whose labels may be
//! globs, and perhaps a port and the beginning of a path; all that fit are tried, the most specific first.

use std::collections::BTreeMap;

use larder_core::image_ref::ImageRef;

use super::{Credential, Credentials, DockerConfigError, docker_config};

const DOCKER_HUB_KEY: &str = "index.docker.io";

/// The credentials of several pull secrets. Debug shows no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    /// Key is the entry without scheme and without `/v1/` or `/v2/`.
    entries: BTreeMap<String, Vec<Credential>>,
}

impl Keyring {
    /// Adds a pull secret. `data` finds a key of the secret's data, decoded from base64.
    ///
    /// Types other than `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg` are refused. On an error nothing
    /// of the secret is added.
    pub fn add_secret<'a>(
        &mut self,
        secret_type: &str,
        data: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), DockerConfigError> {
        let (key, parse): (_, fn(&[u8]) -> _) = match secret_type {
            "kubernetes.io/dockerconfigjson" => {
                (docker_config::CONFIG_JSON, docker_config::parse_config_json)
            }
            "kubernetes.io/dockercfg" => (docker_config::CFG, docker_config::parse_cfg),
            other => {
                return Err(DockerConfigError::Type {
                    secret_type: other.to_owned(),
                });
            }
        };
        for (host, credential) in parse(data(key).ok_or(DockerConfigError::NoData { key })?)? {
            self.add(&host, credential);
        }
        Ok(())
    }

    /// Adds one entry; `location` as in the files: `https://index.docker.io/v1/`, `*.example.com:5000/team`.
    pub fn add(&mut self, location: &str, credential: Credential) {
        self.entries
            .entry(entry_key(location))
            .or_default()
            .push(credential);
    }

    /// All credentials that fit the image, in the order in which they are to be tried.
    pub fn credentials(&self, image: &ImageRef) -> Credentials {
        let target = Location::parse(image.name());
        // Reverse order of the keys puts longer paths before shorter and names before globs.
        let fitting = self
            .entries
            .iter()
            .rev()
            .filter(|(key, _)| Location::parse(key).fits(&target));
        let mut found: Vec<Credential> = fitting
            .flat_map(|(_, credentials)| credentials)
            .cloned()
            .collect();
        if found.is_empty() && image.registry_host() == "docker.io" {
            found = self.entries.get(DOCKER_HUB_KEY).cloned().unwrap_or_default();
        }
        let mut unique: Vec<Credential> = Vec::new();
        for credential in found {
            if !unique.contains(&credential) {
                unique.push(credential);
            }
        }
        Credentials::new(unique)
    }
}

/// Whether an entry of this location is meant for the image, as the kubelet matches pull secrets and the `matchImages` of
/// its credential providers: `*.example.com:5000/team` fits `a.example.com:5000/team/app`.
pub fn location_fits(location: &str, image: &ImageRef) -> bool {
    Location::parse(&entry_key(location)).fits(&Location::parse(image.name()))
}

/// Without scheme, and with `/v1/` and `/v2/` taken for the host alone.
fn entry_key(location: &str) -> String {
    let bare = ["https://", "http://"]
        .iter()
        .find_map(|s| location.strip_prefix(s))
        .unwrap_or(location);
    let (host, path) = match bare.find('/') {
        Some(slash) => bare.split_at(slash),
        None => (bare, ""),
    };
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") {
        &path[3..]
    } else {
        path
    };
    if path == "/" {
        host.to_owned()
    } else {
        format!("{host}{path}")
    }
}

/// Host, port and path of an entry or an image.
struct Location<'a> {
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> Location<'a> {
    fn parse(text: &'a str) -> Self {
        let (authority, path) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of [::1] is not a port's.
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        Self { host, port, path }
    }

    /// Whether an entry of this location is meant for `image`.
    fn fits(&self, image: &Location<'_>) -> bool {
        self.port == image.port
            && image.path.starts_with(self.path)
            && self.host.split('.').count() == image.host.split('.').count()
            && self
                .host
                .split('.')
                .zip(image.host.split('.'))
                .all(|(glob, label)| label_fits(glob, label))
    }
}

/// `*` stands for any characters, `?` for one.
fn label_fits(glob: &str, label: &str) -> bool {
    let (glob, label): (Vec<char>, Vec<char>) = (glob.chars().collect(), label.chars().collect());
    // fits[i] tells whether the pattern so far matches the first i characters of the label.
    let mut fits = vec![false; label.len() + 1];
    fits[0] = true;
    for g in glob {
        let mut next = vec![false; label.len() + 1];
        next[0] = g == '*' && fits[0];
        for i in 0..label.len() {
            next[i + 1] = match g {
                '*' => fits[i + 1] || next[i],
                '?' => fits[i],
                c => fits[i] && c == label[i],
            };
        }
        fits = next;
    }
    fits[label.len()]
}

#[cfg(test)]
mod tests;
