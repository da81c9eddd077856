//! The command lines of etcd and the control plane.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cluster::addresses as ip;
use crate::cluster::control::kubeconfig;
use crate::cluster::control::pki::{Authority, KeyFiles, Subject, service_account_keys};
use crate::cluster::error::{IoContext, Result};
use crate::cluster::layout::Layout;
use crate::cluster::machine::cgroup::Cgroups;
use crate::cluster::machine::launch::Launch;
use crate::cluster::machine::netns;
use crate::cluster::name::ClusterName;
use crate::cluster::state::write_atomically;

/// The components in the control plane's namespace that are not registries, in the order in which they are needed.
pub const COMPONENTS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// What every component of one cluster is started with.
#[derive(Debug)]
pub struct Site {
    /// The cluster.
    pub name: ClusterName,
    /// Its folder.
    pub layout: Layout,
    /// The folder of binaries.
    pub binaries: PathBuf,
    /// The machine's cgroups.
    pub cgroups: Cgroups,
    /// The authority of the API server, the kubelets and the TLS registry.
    pub ca: Authority,
}

impl Site {
    /// A component in the control plane's network namespace.
    pub fn in_control(&self, program: impl Into<PathBuf>, args: Vec<String>) -> Launch {
        let mut launch = Launch::new(program, args);
        launch.cgroup = self.cgroups.join_files(&self.name.control_cgroup());
        launch.netns = Some(netns::path(&self.name.control_netns()));
        launch
    }

    /// Writes a kubeconfig for a component and returns its path.
    pub fn kubeconfig_of(&self, file: &str, subject: &Subject<'_>) -> Result<PathBuf> {
        let identity = self.ca.issue(file, subject)?;
        let path = self.layout.config().join(format!("{file}.kubeconfig"));
        kubeconfig::write(&path, self.name.as_str(), &api_url(), self.ca.cert(), &identity)?;
        Ok(path)
    }
}

/// The API server as everything inside the cluster's namespaces reaches it.
pub fn api_url() -> String {
    format!("https://{}:{}", ip::CONTROL_PLANE, ip::API_PORT)
}

/// How to start one of [`COMPONENTS`].
pub fn launch(site: &Site, component: &str) -> Result<Launch> {
    let args = match component {
        "etcd" => etcd(&site.layout.etcd()),
        "kube-apiserver" => api_server(site)?,
        "kube-controller-manager" => controller_manager(site)?,
        _ => scheduler(site)?,
    };
    Ok(site.in_control(site.binaries.join(component), args))
}

fn etcd(data: &Path) -> Vec<String> {
    vec![
        "--name=default".into(),
        format!("--data-dir={}", data.display()),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-cluster=default=http://127.0.0.1:2380".into(),
        // A test cluster need not survive a power cut, and the disk is shared with the builds.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(site: &Site) -> Result<Vec<String>> {
    let pki = site.layout.pki();
    let addresses = [ip::CONTROL_PLANE, ip::API_SERVICE, Ipv4Addr::LOCALHOST].map(IpAddr::V4);
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let serving = site.ca.issue(
        "kube-apiserver",
        &Subject {
            common_name: "kube-apiserver",
            addresses: &addresses,
            names: &names,
            ..Subject::default()
        },
    )?;
    // The group spares a role binding that would have to be written before the first `kubectl logs`.
    let kubelet_client = site.ca.issue(
        "kube-apiserver-kubelet-client",
        &Subject {
            common_name: "kube-apiserver-kubelet-client",
            organizations: &["system:masters"],
            ..Subject::default()
        },
    )?;
    let front = Authority::ensure(&pki, "front-proxy-ca")?;
    let front_client = front.issue(
        "front-proxy-client",
        &Subject {
            common_name: "front-proxy-client",
            ..Subject::default()
        },
    )?;
    let (sa_key, sa_pub) = service_account_keys(&pki)?;
    let policy = site.layout.config().join("audit-policy.json");
    write_atomically(&policy, audit_policy().as_bytes())?;
    let ca = site.ca.cert().display();
    Ok(vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--bind-address={}", Ipv4Addr::UNSPECIFIED),
        format!("--advertise-address={}", ip::CONTROL_PLANE),
        format!("--secure-port={}", ip::API_PORT),
        format!("--service-cluster-ip-range={}", ip::SERVICE_RANGE),
        format!("--tls-cert-file={}", serving.cert.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        format!("--client-ca-file={ca}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--kubelet-certificate-authority={ca}"),
        format!("--kubelet-client-certificate={}", kubelet_client.cert.display()),
        format!("--kubelet-client-key={}", kubelet_client.key.display()),
        // Names of nodes do not resolve here.
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-signing-key-file={}", sa_key.display()),
        format!("--service-account-key-file={}", sa_pub.display()),
        format!("--requestheader-client-ca-file={}", front.cert().display()),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--proxy-client-cert-file={}", front_client.cert.display()),
        format!("--proxy-client-key-file={}", front_client.key.display()),
        // No kube-proxy runs in the control plane's namespace: reach webhooks at their endpoints.
        "--enable-aggregator-routing=true".into(),
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", site.layout.audit_log().display()),
        // Tests read this file while it grows: no rotation within a cluster's life (MB).
        "--audit-log-maxsize=100000".into(),
        "--profiling=false".into(),
    ])
}

/// Who did what to which object, once a request; not what was in it.
fn audit_policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": true,
        "rules": [{"level": "Metadata"}],
    })
    .to_string()
}

fn controller_manager(site: &Site) -> Result<Vec<String>> {
    let (sa_key, _) = service_account_keys(&site.layout.pki())?;
    let mut args = common(site, "kube-controller-manager")?;
    args.extend([
        "--use-service-account-credentials=true".into(),
        format!("--root-ca-file={}", site.ca.cert().display()),
        format!("--service-account-private-key-file={}", sa_key.display()),
        "--controllers=*,-nodeipam,-node-route-controller,-cloud-node-lifecycle".into(),
        // Tests stop nodes and wait until the cluster notices.
        "--node-monitor-grace-period=10s".into(),
        "--node-monitor-period=1s".into(),
    ]);
    Ok(args)
}

fn scheduler(site: &Site) -> Result<Vec<String>> {
    common(site, "kube-scheduler")
}

/// What a client of the API server with a port of its own needs. The port's certificate is ours: making one of the usual
/// kind takes a second.
fn common(site: &Site, component: &str) -> Result<Vec<String>> {
    let user = format!("system:{component}");
    let client = Subject {
        common_name: &user,
        ..Subject::default()
    };
    let kubeconfig = site.kubeconfig_of(component, &client)?;
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(ip::CONTROL_PLANE)];
    let server = Subject {
        common_name: component,
        addresses: &addresses,
        ..Subject::default()
    };
    let KeyFiles { cert, key } = site.ca.issue(&format!("{component}-serving"), &server)?;
    let kubeconfig = kubeconfig.display();
    Ok(vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--tls-cert-file={}", cert.display()),
        format!("--tls-private-key-file={}", key.display()),
        "--leader-elect=false".into(),
        "--profiling=false".into(),
    ])
}

/// Makes the folders of the control plane.
pub fn prepare(layout: &Layout) -> Result<()> {
    for folder in [layout.pki(), layout.config(), layout.run(), layout.etcd()] {
        fs::create_dir_all(&folder).context("make", &folder)?;
    }
    // etcd refuses a data folder that others may read.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(layout.etcd(), mode).context("restrict", &layout.etcd())
}
