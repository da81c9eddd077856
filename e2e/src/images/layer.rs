//! Layers: a tar of one file, as registries keep it (gzip) and as images name it (digest of the tar).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};

use super::sha256_digest;

/// One finished layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Digest of the uncompressed tar, for the image's `rootfs`.
    pub diff_id: String,
    /// Digest of `compressed`.
    pub digest: String,
    /// The tar under gzip.
    pub compressed: Bytes,
}

impl Layer {
    /// A layer with a single file; equal input gives equal digests.
    pub fn of_file(name: &str, mode: u32, content: &[u8]) -> io::Result<Self> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        let mut tar = tar::Builder::new(Vec::with_capacity(content.len() + 4096));
        tar.append_data(&mut header, name, content)?;
        let tar = tar.into_inner()?;
        // Stored, not deflated: random data would not shrink, and this costs no time. A layer under
        // gzip is what registries hold, and what containerd then has to unpack.
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .write(Vec::with_capacity(tar.len()), Compression::none());
        gzip.write_all(&tar)?;
        let compressed = Bytes::from(gzip.finish()?);
        Ok(Self {
            diff_id: sha256_digest(&tar),
            digest: sha256_digest(&compressed),
            compressed,
        })
    }
}

/// `length` bytes that do not compress, the same for the same seed (the splitmix64 generator).
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;

    use super::*;

    #[test]
    fn noise_follows_its_seed_and_has_its_length() {
        assert_eq!(noise(1, 1001).len(), 1001);
        assert_eq!(noise(1, 64), noise(1, 64));
        assert_ne!(noise(1, 64), noise(2, 64));
        // First output of splitmix64 for seed 0.
        assert_eq!(noise(0, 8), 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }

    #[test]
    fn layer_unpacks_to_its_file() {
        let layer = Layer::of_file("bin/noop", 0o755, b"content").unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&layer.compressed[..])
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(sha256_digest(&tar), layer.diff_id);
        let mut archive = tar::Archive::new(&tar[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("bin/noop"));
        assert_eq!(entry.header().mode().unwrap(), 0o755);
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn compression_hides_nothing_of_the_size() {
        let layer = Layer::of_file("data", 0o644, &noise(7, 100_000)).unwrap();
        assert!(layer.compressed.len() > 100_000);
        assert!(layer.compressed.len() < 105_000);
    }
}
