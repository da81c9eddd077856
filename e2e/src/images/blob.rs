//! Bytes known by their digest.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Error;

/// One blob: made here, or lying in a layout folder.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Memory(Bytes),
    /// A file of a layout.
    File(PathBuf),
}

impl Blob {
    /// All bytes of the blob.
    pub fn read(&self) -> Result<Bytes, Error> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(path) => fs::read(path).map(Bytes::from).map_err(Error::file(path)),
        }
    }
}

/// `sha256:` and the digest of `bytes` in hexadecimal.
pub fn sha256_digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_written_as_registries_do() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_digest(b""), empty);
    }
}
