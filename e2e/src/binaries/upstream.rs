//! What is built from where: one entry for each upstream, with its pinned module embedded.

use sha2::{Digest, Sha256};

use super::Error;

/// One upstream project and how its binaries are built.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    /// Short name, shown in progress and used in folder names.
    pub name: &'static str,
    /// Import path whose `require` line in `go_mod` holds the version.
    module: &'static str,
    /// The pinned module, embedded so that the source tree is neither needed nor written to.
    pub go_mod: &'static str,
    /// The checksums of everything that the module may download.
    pub go_sum: &'static str,
    /// `go build` calls, one after another.
    pub builds: Vec<Build>,
}

/// One call of `go build`.
#[derive(Debug, Clone)]
pub(super) struct Build {
    /// Build tags, separated by commas.
    tags: &'static str,
    /// Linker flags beyond the ones that every build has.
    ldflags: String,
    /// Import path of each main package and the file name that its binary gets.
    targets: &'static [(&'static str, &'static str)],
}

const KUBERNETES: &[(&str, &str)] = &[
    ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    (
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-controller-manager",
    ),
    ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
    ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
    ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
];

const CNI: &[(&str, &str)] = &[
    (
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "host-local",
    ),
    (
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "loopback",
    ),
    ("github.com/containernetworking/plugins/plugins/main/ptp", "ptp"),
    (
        "github.com/containernetworking/plugins/plugins/meta/portmap",
        "portmap",
    ),
];

const ETCD: &[(&str, &str)] = &[("go.etcd.io/etcd/server/v3", "etcd")];

const CONTAINERD: &[(&str, &str)] = &[
    ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
    ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
];

const CONTAINERD_SHIM: &[(&str, &str)] = &[(
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "containerd-shim-runc-v2",
)];

/// `go.mod` and `go.sum` of one folder under `e2e/binaries`.
macro_rules! pinned {
    ($folder:literal) => {
        (
            include_str!(concat!("../../binaries/", $folder, "/go.mod")),
            include_str!(concat!("../../binaries/", $folder, "/go.sum")),
        )
    };
}

/// The Kubernetes minors that can be built, newest first; the newest is the default.
pub const KUBERNETES_MINORS: &[&str] = &["1.36", "1.35", "1.34"];

/// Every upstream that a cluster of this Kubernetes minor needs; quick ones first, so that a
/// machine that cannot build at all finds out soon.
pub(super) fn all(kubernetes: &str) -> Result<Vec<Upstream>, Error> {
    let pinned_kubernetes = match kubernetes {
        "1.36" => pinned!("kubernetes-1.36"),
        "1.35" => pinned!("kubernetes-1.35"),
        "1.34" => pinned!("kubernetes-1.34"),
        other => {
            return Err(Error::UnknownKubernetes {
                asked: other.to_owned(),
            });
        }
    };
    let plain = |targets| Build {
        tags: "",
        ldflags: String::new(),
        targets,
    };
    Ok(vec![
        Upstream::new(
            "cni",
            "github.com/containernetworking/plugins",
            pinned!("cni"),
            vec![plain(CNI)],
        ),
        Upstream::new(
            "etcd",
            "go.etcd.io/etcd/server/v3",
            pinned!("etcd"),
            vec![plain(ETCD)],
        ),
        Upstream::new(
            "containerd",
            "github.com/containerd/containerd/v2",
            pinned!("containerd"),
            vec![
                // Snapshotters that the cluster does not use and that want C libraries.
                Build {
                    tags: "no_btrfs,no_devmapper,no_zfs",
                    ..plain(CONTAINERD)
                },
                // As upstream builds its shim: one per pod, so its size is worth these tags.
                Build {
                    tags: "no_grpc,static",
                    ..plain(CONTAINERD_SHIM)
                },
            ],
        ),
        Upstream::kubernetes(pinned_kubernetes),
    ])
}

impl Upstream {
    fn new(
        name: &'static str,
        module: &'static str,
        (go_mod, go_sum): (&'static str, &'static str),
        builds: Vec<Build>,
    ) -> Self {
        Self {
            name,
            module,
            go_mod,
            go_sum,
            builds,
        }
    }

    fn kubernetes(pinned: (&'static str, &'static str)) -> Self {
        let mut upstream = Self::new("kubernetes", "k8s.io/kubernetes", pinned, Vec::new());
        let ldflags = kubernetes_version_flags(upstream.version());
        upstream.builds.push(Build {
            tags: "providerless",
            ldflags,
            targets: KUBERNETES,
        });
        upstream
    }

    /// The version that the module pins, with its leading `v`.
    pub fn version(&self) -> &'static str {
        required_version(self.go_mod, self.module).unwrap_or("of unknown version")
    }

    /// File names of the binaries.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.builds
            .iter()
            .flat_map(|build| build.targets.iter().map(|(_, name)| *name))
    }

    /// Changes with everything that can change the binaries, but for the Go release.
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        for text in [self.name, std::env::consts::ARCH, self.go_mod, self.go_sum] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        for build in &self.builds {
            for argument in build.arguments("") {
                hash.update(argument.as_bytes());
                hash.update([0]);
            }
        }
        short_hex(&hash.finalize())
    }
}

impl Build {
    /// Arguments of `go` for this build; `out` is the folder for the binaries.
    pub fn arguments(&self, out: &str) -> Vec<String> {
        // One package may be renamed; several keep the last part of their import path.
        let output = match self.targets {
            [(_, name)] => format!("{out}/{name}"),
            _ => format!("{out}/"),
        };
        let mut arguments: Vec<String> = [
            "build",
            "-v",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-tags",
            self.tags,
        ]
        .map(String::from)
        .to_vec();
        arguments.extend([
            "-ldflags".to_owned(),
            format!("-s -w {}", self.ldflags).trim_end().to_owned(),
        ]);
        arguments.extend(["-o".to_owned(), output]);
        arguments.extend(self.targets.iter().map(|(package, _)| (*package).to_owned()));
        arguments
    }
}

/// The first eight bytes in hexadecimal: enough to tell a handful of builds apart.
pub(super) fn short_hex(digest: &[u8]) -> String {
    let first = digest
        .iter()
        .take(8)
        .fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    format!("{first:016x}")
}

/// The version that a `go.mod` requires of `module`, from a line of its own or from a block.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module))
            .then(|| words.next())
            .flatten()
            .filter(|word| word.starts_with('v'))
    })
}

/// Linker flags that make Kubernetes know its version; without them the server says
/// `v0.0.0-master` and kubectl's version skew checks are lost.
fn kubernetes_version_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let facts = [
        ("gitVersion", version),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
        ("gitCommit", "unknown"),
        // Fixed, so that equal sources give equal binaries.
        ("buildDate", "1970-01-01T00:00:00Z"),
    ];
    let mut flags = Vec::new();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        flags.extend(
            facts
                .iter()
                .map(|(name, value)| format!("-X {package}.{name}={value}")),
        );
    }
    flags.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn version_is_found_in_a_line_and_in_a_block_but_not_in_replacements() {
        let go_mod =
            "require a.b/c v1.2.3\nrequire (\n\ta.b/d v2.0.0 // indirect\n)\nreplace a.b/e => a.b/e v9.9.9\n";
        assert_eq!(required_version(go_mod, "a.b/c"), Some("v1.2.3"));
        assert_eq!(required_version(go_mod, "a.b/d"), Some("v2.0.0"));
        assert_eq!(required_version(go_mod, "a.b/e"), None);
    }

    #[test]
    fn every_upstream_pins_a_version_and_lists_its_packages_as_tools() {
        for minor in KUBERNETES_MINORS {
            for upstream in all(minor).unwrap() {
                assert!(
                    upstream.version().starts_with('v'),
                    "{} {}",
                    upstream.name,
                    upstream.version()
                );
                for (package, _) in upstream.builds.iter().flat_map(|build| build.targets) {
                    let listed = upstream
                        .go_mod
                        .lines()
                        .any(|line| line.trim_start_matches("tool ").trim() == *package);
                    assert!(
                        listed,
                        "{package} is not a tool in the go.mod of {}",
                        upstream.name
                    );
                }
            }
        }
    }

    #[test]
    fn each_kubernetes_folder_holds_its_own_minor() {
        for minor in KUBERNETES_MINORS {
            let upstreams = all(minor).unwrap();
            let kubernetes = upstreams
                .iter()
                .find(|upstream| upstream.name == "kubernetes")
                .unwrap();
            assert!(
                kubernetes.version().starts_with(&format!("v{minor}.")),
                "{}",
                kubernetes.version()
            );
        }
        assert!(matches!(all("1.2"), Err(Error::UnknownKubernetes { .. })));
    }

    #[test]
    fn binaries_that_are_not_renamed_are_called_as_go_calls_them() {
        for upstream in all("1.36").unwrap() {
            for build in upstream.builds.iter().filter(|build| build.targets.len() > 1) {
                for (package, name) in build.targets {
                    assert_eq!(package.rsplit('/').next(), Some(*name));
                }
            }
        }
    }

    #[test]
    fn key_follows_flags_and_modules() {
        let upstream = all("1.36").unwrap().remove(0);
        assert_eq!(upstream.key(), all("1.36").unwrap().remove(0).key());
        let mut tagged = upstream.clone();
        tagged.builds[0].tags = "other";
        assert_ne!(tagged.key(), upstream.key());
        let edited = Upstream {
            go_sum: "",
            ..upstream.clone()
        };
        assert_ne!(edited.key(), upstream.key());
    }

    #[test]
    fn kubernetes_is_told_its_version_in_both_packages() {
        let flags = kubernetes_version_flags("v1.36.3");
        assert!(flags.contains("-X k8s.io/component-base/version.gitVersion=v1.36.3"));
        assert!(flags.contains("-X k8s.io/client-go/pkg/version.gitMinor=36"));
    }
}
