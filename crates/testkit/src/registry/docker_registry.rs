//! The real registry of Debian's package `docker-registry`, as a process with a folder of its own.

use std::{fmt::Write, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::push::RegistryUnderTest;

/// How it is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Asks for user and password.
    pub password: bool,
    /// Serves HTTPS, with a certificate made for it.
    pub tls: bool,
}

/// A running registry on a loopback port; process and folder go when it is dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    host: String,
    credentials: Option<(String, String)>,
    ca_file: Option<PathBuf>,
    _process: Child,
    _folder: TempDir,
}

impl DockerRegistry {
    /// Starts it and waits until it listens.
    pub async fn start(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let mut config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            path("data").display()
        );
        let mut ca_file = None;
        if setup.tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
            std::fs::write(path("cert.pem"), made.cert.pem())?;
            std::fs::write(path("key.pem"), made.signing_key.serialize_pem())?;
            let (certificate, key) = (path("cert.pem"), path("key.pem"));
            write!(
                config,
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            )?;
            ca_file = Some(certificate);
        }
        let mut credentials = None;
        if setup.password {
            let (user, password) = ("larder", "s3cret");
            std::fs::write(
                path("htpasswd"),
                format!("{user}:{}\n", bcrypt::hash(password, 4)?),
            )?;
            write!(
                config,
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                path("htpasswd").display()
            )?;
            credentials = Some((user.to_owned(), password.to_owned()));
        }
        std::fs::write(path("config.yml"), config)?;
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("docker-registry, of the Debian package of that name, does not start")?;
        let host = timeout(Duration::from_secs(30), listening(&mut process))
            .await
            .context("docker-registry does not listen")??;
        Ok(Self {
            host,
            credentials,
            ca_file,
            _process: process,
            _folder: folder,
        })
    }

    /// How it is reached.
    pub fn under_test(&self) -> RegistryUnderTest {
        RegistryUnderTest {
            host: self.host.clone(),
            credentials: self.credentials.clone(),
            ca_file: self.ca_file.clone(),
        }
    }
}

/// Reads the log until it says where it listens: the port was chosen by the system. The rest of the log is read too, so
/// that the process never waits for a reader.
async fn listening(process: &mut Child) -> Result<String> {
    let stderr = process.stderr.take().context("no stderr")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut log = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let host: String = rest
                .chars()
                .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
                .collect();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(host);
        }
        log.push_str(&line);
        log.push('\n');
    }
    bail!("docker-registry ended:\n{log}")
}
