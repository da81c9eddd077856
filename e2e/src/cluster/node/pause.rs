//! The image behind every pod's sandbox: one static binary that waits, as an archive that containerd imports.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cluster::error::{Error, IoContext, Result};
use crate::cluster::machine::process::helper;
use crate::cluster::node::containerd::PAUSE_IMAGE;
use crate::images::sha256_digest;

/// A static program and the arguments with which it waits for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: &'static [&'static str],
}

impl Waiter {
    /// `larder-noop` where it is built, else Debian's static busybox.
    pub fn find() -> Result<Self> {
        let helper = helper()?;
        let beside = format!("larder/bin/linux_{}/larder-noop", architecture());
        let built = helper
            .parent()
            .and_then(Path::parent)
            .map(|target| target.join(beside));
        let noop = [std::env::var_os("LARDER_NOOP").map(PathBuf::from), built];
        let noop = noop.into_iter().flatten().map(|program| Self {
            program,
            args: &["hold"],
        });
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(|program| Self {
            program: program.into(),
            args: &["sleep", "2147483647"],
        });
        noop.chain(busybox)
            .find(|waiter| is_static(&waiter.program))
            .ok_or_else(|| {
                Error::Refused("no static program for the pods' sandbox; install busybox-static".into())
            })
    }

    /// Writes the image as an archive in the format of `docker save`.
    pub fn write_archive(&self, path: &Path) -> Result<()> {
        let program = std::fs::read(&self.program).context("read", &self.program)?;
        // busybox goes by the name under which it is called.
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        let text = archive(&name, &program, self.args).context("pack", &self.program)?;
        crate::cluster::state::write_atomically(path, &text)
    }
}

/// This machine's architecture, as images name it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

/// Whether a file is an ELF program that asks for no interpreter.
fn is_static(path: &Path) -> bool {
    const INTERPRETER: u32 = 3;
    let Ok(bytes) = std::fs::read(path) else {
        return false;
    };
    let number = |at: usize, length: usize| -> Option<u64> {
        Some(
            bytes
                .get(at..at + length)?
                .iter()
                .rev()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        )
    };
    let read = || -> Option<bool> {
        if bytes.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let (at, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for i in 0..count {
            let header = usize::try_from(at + i * size).ok()?;
            if number(header, 4)? == u64::from(INTERPRETER) {
                return Some(false);
            }
        }
        Some(true)
    };
    read().unwrap_or(false)
}

fn archive(name: &str, program: &[u8], args: &[&str]) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, name, program, 0o755)?;
    let layer = layer.into_inner()?;
    let digest = sha256_digest(&layer);
    let path = format!("/{name}");
    let entrypoint: Vec<&str> = std::iter::once(path.as_str())
        .chain(args.iter().copied())
        .collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": entrypoint},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "layer.tar", &layer, 0o644)?;
    append(&mut archive, "config.json", config.to_string().as_bytes(), 0o644)?;
    append(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
        0o644,
    )?;
    archive.into_inner()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8], mode: u32) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    header.set_cksum();
    archive.append_data(&mut header, name, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_lists_its_one_image() {
        let bytes = archive("waiter", b"program", &["hold"]).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["layer.tar", "config.json", "manifest.json"]);
    }

    #[test]
    fn programs_that_need_an_interpreter_or_are_none_are_not_taken() {
        // The test program itself is linked dynamically.
        assert!(!is_static(&std::env::current_exe().unwrap()));
        assert!(!is_static(Path::new("/etc/passwd")));
        assert!(!is_static(Path::new("/nonexistent")));
    }
}
