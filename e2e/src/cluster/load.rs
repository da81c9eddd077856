//! Puts an image from disk into a cluster's registry.

use std::path::Path;

use super::Cluster;
use super::command::run;
use super::error::{Error, Result};
use super::registry::{RegistryKind, target_of};

impl Cluster {
    /// Pushes the image in `source` (an OCI layout folder, or an archive of `docker save` or OCI) so that nodes find
    /// it under `reference`, and returns the name under which the registry holds it.
    pub fn load(&self, source: &Path, reference: &str) -> Result<String> {
        let (kind, repository, tag) = target_of(reference)?;
        let registry = self.registry(kind)?;
        let from = format!("{}:{}", format_of(source)?, source.display());
        let port = self.forwards()?.registry(kind);
        let to = format!("docker://127.0.0.1:{port}/{repository}:{tag}");
        let mut args = vec![
            "copy".to_owned(),
            "--quiet".into(),
            "--all".into(),
            "--insecure-policy".into(),
        ];
        match kind {
            RegistryKind::Tls => args.push(format!("--dest-cert-dir={}", self.certificates()?)),
            _ => args.push("--dest-tls-verify=false".into()),
        }
        if let Some((user, password)) = &registry.credentials {
            args.push(format!("--dest-creds={user}:{password}"));
        }
        args.extend([from, to]);
        run("skopeo", &args)?;
        Ok(format!("{}/{repository}:{tag}", registry.host))
    }

    /// A folder with nothing but the authority of the TLS registry, as skopeo wants it.
    fn certificates(&self) -> Result<String> {
        let folder = self.layout().config().join("trust");
        let ca = std::fs::read(self.layout().ca()).map_err(|e| Error::Image(e.to_string()))?;
        super::state::write_atomically(&folder.join("ca.crt"), &ca)?;
        Ok(folder.display().to_string())
    }
}

/// The name of an image's format to skopeo.
fn format_of(source: &Path) -> Result<&'static str> {
    if source.join("oci-layout").is_file() {
        return Ok("oci");
    }
    let names = std::fs::File::open(source).and_then(|file| {
        let mut archive = tar::Archive::new(file);
        archive
            .entries()?
            .map(|entry| Ok(entry?.path()?.display().to_string()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    let names = names.map_err(|error| Error::Image(format!("{}: {error}", source.display())))?;
    let holds = |wanted: &str| names.iter().any(|name| name.trim_start_matches("./") == wanted);
    if holds("oci-layout") {
        Ok("oci-archive")
    } else if holds("manifest.json") {
        Ok("docker-archive")
    } else {
        Err(Error::Image(format!(
            "{} is neither an OCI layout nor an image archive",
            source.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        let write = |name: &str| {
            let mut archive = tar::Builder::new(std::fs::File::create(&path).unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_cksum();
            archive.append_data(&mut header, name, std::io::empty()).unwrap();
            archive.finish().unwrap();
        };
        write("oci-layout");
        assert_eq!(format_of(&path).unwrap(), "oci-archive");
        write("manifest.json");
        assert_eq!(format_of(&path).unwrap(), "docker-archive");
        write("else");
        assert!(format_of(&path).is_err());
        assert!(format_of(folder.path()).is_err());
        std::fs::write(folder.path().join("oci-layout"), "{}").unwrap();
        assert_eq!(format_of(folder.path()).unwrap(), "oci");
    }
}
