//! The three registries of a cluster: open, with basic auth, and with TLS. Each is Debian's `docker-registry` with an
//! address of its own and an access log that tests count requests in.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::addresses as ip;
use crate::cluster::control::components::Site;
use crate::cluster::control::pki::Subject;
use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::machine::launch::Launch;
use crate::cluster::state::{ClusterState, write_atomically};

/// Which of a cluster's registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// Anyone may read and write; nodes take it for every public registry.
    Open,
    /// Asks for a user and password, over plain HTTP.
    Auth,
    /// Speaks TLS with a certificate of the cluster's own authority; anyone may read and write.
    Tls,
}

impl RegistryKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Auth, Self::Tls];

    /// The word for it in names of files and components.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Auth => "auth",
            Self::Tls => "tls",
        }
    }

    /// The component's name.
    pub fn component(self) -> String {
        format!("registry-{}", self.word())
    }

    /// Its address inside the cluster.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Open => ip::REGISTRY_OPEN,
            Self::Auth => ip::REGISTRY_AUTH,
            Self::Tls => ip::REGISTRY_TLS,
        }
    }

    /// Host and port as they appear in image references inside the cluster.
    pub fn host(self) -> String {
        format!("{}:{}", self.address(), ip::REGISTRY_PORT)
    }

    /// The registry in which nodes look for a reference: the open one for all that name no other of the cluster's.
    pub fn of(reference: &str) -> Self {
        let host = reference.split('/').next().unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|kind| kind.host() == host)
            .unwrap_or(Self::Open)
    }

    /// `https` or `http`.
    pub fn scheme(self) -> &'static str {
        if self == Self::Tls { "https" } else { "http" }
    }
}

impl fmt::Display for RegistryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A registry as a test uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Which one.
    pub kind: RegistryKind,
    /// Host and port in image references, such as `10.77.0.2:5000`.
    pub host: String,
    /// Where this machine reaches it, such as `http://127.0.0.1:5000`, without a slash at the end.
    pub url: String,
    /// User and password, where it asks for them.
    pub credentials: Option<(String, String)>,
    /// The certificate authority to trust, where it speaks TLS.
    pub ca: Option<PathBuf>,
    /// Its log, with one line in Apache's combined format a request.
    pub log: PathBuf,
}

impl Registry {
    /// The requests answered so far.
    pub fn requests(&self) -> Result<Vec<Request>> {
        Ok(self.requests_since(LogMark(0))?.0)
    }

    /// The end of the log now.
    pub fn mark(&self) -> Result<LogMark> {
        Ok(LogMark(fs::metadata(&self.log).context("read", &self.log)?.len()))
    }

    /// The requests answered since `mark`, and a mark to go on from.
    pub fn requests_since(&self, mark: LogMark) -> Result<(Vec<Request>, LogMark)> {
        let (text, end) = read_lines_from(&self.log, mark.0)?;
        Ok((
            text.lines().filter_map(|line| line.parse().ok()).collect(),
            LogMark(end),
        ))
    }
}

/// A moment in a registry's log, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogMark(u64);

/// The complete lines of a growing file from a byte on, and where the last of them ends.
pub(crate) fn read_lines_from(path: &Path, from: u64) -> Result<(String, u64)> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((String::new(), 0)),
        Err(error) => return Err(error).context("read", path),
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).context("read", path)?;
    file.read_to_end(&mut bytes).context("read", path)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(whole);
    Ok((String::from_utf8_lossy(&bytes).into_owned(), from + whole as u64))
}

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked: a node's or a pod's address, or the control plane's for what comes through a forwarder.
    pub client: String,
    /// Such as `HEAD`.
    pub method: String,
    /// Such as `/v2/library/nginx/manifests/1.27`, without the query.
    pub path: String,
    /// Such as 200.
    pub status: u16,
}

impl FromStr for Request {
    type Err = ();

    /// Reads a line such as
    /// `10.77.0.11 - - [21/Nov/2026:07:00:00 +0000] "HEAD /v2/a/manifests/b?ns=c HTTP/1.1" 200 428 "" "containerd/2"`.
    fn from_str(line: &str) -> std::result::Result<Self, ()> {
        let mut quoted = line.split('"');
        let (before, request, after) = (
            quoted.next().ok_or(())?,
            quoted.next().ok_or(())?,
            quoted.next().ok_or(())?,
        );
        if !before.contains(" - ") || !before.contains('[') {
            return Err(());
        }
        let mut words = request.split(' ');
        let (method, target) = (words.next().ok_or(())?, words.next().ok_or(())?);
        Ok(Self {
            client: before.split(' ').next().unwrap_or_default().to_owned(),
            method: method.to_owned(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            status: after
                .split_whitespace()
                .next()
                .and_then(|s| s.parse().ok())
                .ok_or(())?,
        })
    }
}

/// How to start a registry; writes its configuration.
pub fn launch(site: &Site, state: &ClusterState, kind: RegistryKind) -> Result<Launch> {
    let layout = &site.layout;
    let data = layout.registry(kind.word());
    fs::create_dir_all(&data).context("make", &data)?;
    let mut config = config(kind, &data);
    match kind {
        RegistryKind::Open => {}
        RegistryKind::Auth => {
            let users = layout.config().join("htpasswd");
            if !users.is_file() {
                // The cheapest cost there is: the password is worth nothing, and every request pays.
                let hash = bcrypt::hash(&state.registry_password, 4)
                    .map_err(|e| Error::Worker(format!("bcrypt: {e}")))?;
                write_atomically(&users, format!("{}:{hash}\n", state.registry_user).as_bytes())?;
            }
            config["auth"] = json!({"htpasswd": {"realm": "larder local cluster", "path": users}});
        }
        RegistryKind::Tls => {
            let addresses = [IpAddr::V4(kind.address()), IpAddr::V4(Ipv4Addr::LOCALHOST)];
            let subject = Subject {
                common_name: "registry",
                addresses: &addresses,
                names: &["localhost"],
                ..Subject::default()
            };
            let files = site.ca.issue("registry-tls", &subject)?;
            config["http"]["tls"] = json!({"certificate": files.cert, "key": files.key});
        }
    }
    let path = layout.config().join(format!("{}.json", kind.component()));
    write_atomically(&path, config.to_string().as_bytes())?;
    Ok(site.in_control(
        "docker-registry",
        vec!["serve".into(), path.display().to_string()],
    ))
}

fn config(kind: RegistryKind, data: &Path) -> Value {
    json!({
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": false}},
        "storage": {"filesystem": {"rootdirectory": data, "maxthreads": 100}, "delete": {"enabled": true}},
        "http": {"addr": kind.host(), "relativeurls": true, "secret": "of no use outside of this cluster"},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_from_the_access_log_and_other_lines_are_not() {
        let line = r#"10.77.0.11 - - [21/Nov/2026:07:00:00 +0000] "HEAD /v2/a/manifests/b?ns=docker.io HTTP/1.1" 404 96 "" "containerd/2.3.7""#;
        let request: Request = line.parse().unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.status),
            ("HEAD", "/v2/a/manifests/b", 404)
        );
        assert_eq!(request.client, "10.77.0.11");
        assert!(
            r#"time="2026-11-21T07:00:00Z" level=warning msg="No HTTP secret provided""#
                .parse::<Request>()
                .is_err()
        );
        assert!("".parse::<Request>().is_err());
    }

    #[test]
    fn a_line_still_being_written_is_left_for_the_next_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert_eq!(read_lines_from(&path, 0).unwrap(), (String::new(), 0));
        fs::write(&path, "one\ntw").unwrap();
        let (text, end) = read_lines_from(&path, 0).unwrap();
        assert_eq!((text.as_str(), end), ("one\n", 4));
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(read_lines_from(&path, end).unwrap(), ("two\n".to_owned(), 8));
    }

    #[test]
    fn references_to_no_registry_of_the_cluster_belong_to_the_open_one() {
        assert_eq!(RegistryKind::of("nginx:1.27"), RegistryKind::Open);
        assert_eq!(RegistryKind::of("ghcr.io/acme/x:v1"), RegistryKind::Open);
        assert_eq!(RegistryKind::of("10.77.0.2:5000/x"), RegistryKind::Open);
        assert_eq!(RegistryKind::of("10.77.0.3:5000/team/x:1"), RegistryKind::Auth);
        assert_eq!(RegistryKind::of("10.77.0.4:5000/x:1"), RegistryKind::Tls);
        assert_eq!(RegistryKind::of("10.77.0.4:50001/x:1"), RegistryKind::Open);
    }
}
