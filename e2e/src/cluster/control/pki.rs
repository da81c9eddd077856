//! Keys and certificates of a cluster: two authorities, and a certificate for each component.
//!
//! Elliptic-curve keys throughout, as they take no time to make. Nothing expires within a cluster's life.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::cluster::error::{IoContext, Result};
use crate::cluster::state::write_atomically;

/// Where a certificate and its key are, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// The private key (PKCS #8).
    pub key: PathBuf,
}

impl KeyFiles {
    fn named(folder: &Path, name: &str) -> Self {
        Self {
            cert: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        }
    }

    fn exist(&self) -> bool {
        self.cert.is_file() && self.key.is_file()
    }
}

/// A certificate authority whose key lies in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    files: KeyFiles,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Default)]
pub struct Subject<'a> {
    /// The user name, to the API server.
    pub common_name: &'a str,
    /// The groups, to the API server.
    pub organizations: &'a [&'a str],
    /// The addresses under which it serves.
    pub addresses: &'a [IpAddr],
    /// The names under which it serves.
    pub names: &'a [&'a str],
}

impl Authority {
    /// The authority `name` in `folder`, made if it is not there yet.
    pub fn ensure(folder: &Path, name: &str) -> Result<Self> {
        let files = KeyFiles::named(folder, name);
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("larder local cluster {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = if files.exist() {
            KeyPair::from_pem(&fs::read_to_string(&files.key).context("read", &files.key)?)?
        } else {
            let key = KeyPair::generate()?;
            write_key(&files.key, &key)?;
            write_atomically(&files.cert, params.self_signed(&key)?.pem().as_bytes())?;
            key
        };
        Ok(Self {
            folder: folder.to_owned(),
            files,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's own certificate.
    pub fn cert(&self) -> &Path {
        &self.files.cert
    }

    /// A certificate for `subject` under the file name `name`, made if it is not there yet. It serves for both ends
    /// of a connection.
    pub fn issue(&self, name: &str, subject: &Subject<'_>) -> Result<KeyFiles> {
        self.issue_in(&self.folder, name, subject)
    }

    /// As [`Authority::issue`], in a folder other than the authority's own.
    pub fn issue_in(&self, folder: &Path, name: &str, subject: &Subject<'_>) -> Result<KeyFiles> {
        let files = KeyFiles::named(folder, name);
        if files.exist() {
            return Ok(files);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params
            .distinguished_name
            .push(DnType::CommonName, subject.common_name);
        for organization in subject.organizations {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.subject_alt_names = subject
            .addresses
            .iter()
            .map(|address| SanType::IpAddress(*address))
            .collect();
        for name in subject.names {
            params
                .subject_alt_names
                .push(SanType::DnsName(Ia5String::try_from(*name)?));
        }
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        write_key(&files.key, &key)?;
        write_atomically(&files.cert, cert.pem().as_bytes())?;
        Ok(files)
    }
}

/// The key pair that signs service account tokens: `sa.key` and, for those who only verify, `sa.pub`.
pub fn service_account_keys(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (private, public) = (folder.join("sa.key"), folder.join("sa.pub"));
    if !(private.is_file() && public.is_file()) {
        let key = KeyPair::generate()?;
        write_key(&private, &key)?;
        write_atomically(&public, key.public_key_pem().as_bytes())?;
    }
    Ok((private, public))
}

/// Writes a private key that only the user may read.
fn write_key(path: &Path, key: &KeyPair) -> Result<()> {
    write_atomically(path, key.serialize_pem().as_bytes())?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).context("restrict", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_kept_and_the_authority_can_sign_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let subject = Subject {
            common_name: "system:node:node-1",
            organizations: &["system:nodes"],
            ..Subject::default()
        };
        let first = Authority::ensure(folder.path(), "ca")
            .unwrap()
            .issue("node-1", &subject)
            .unwrap();
        let before = fs::read(&first.cert).unwrap();
        let again = Authority::ensure(folder.path(), "ca").unwrap();
        again.issue("node-1", &subject).unwrap();
        assert_eq!(fs::read(&first.cert).unwrap(), before);
        let second = again.issue("node-2", &subject).unwrap();
        assert_ne!(fs::read(second.cert).unwrap(), before);
        assert_eq!(
            fs::metadata(&first.key).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_half_made_pair_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let ca = Authority::ensure(folder.path(), "ca").unwrap();
        let files = ca
            .issue(
                "x",
                &Subject {
                    common_name: "x",
                    ..Subject::default()
                },
            )
            .unwrap();
        fs::remove_file(&files.cert).unwrap();
        ca.issue(
            "x",
            &Subject {
                common_name: "x",
                ..Subject::default()
            },
        )
        .unwrap();
        assert!(files.cert.is_file());
    }
}
