//! The end of a log.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The last `lines` lines of a file; only its last 64 KiB are read.
pub fn tail_of(path: &Path, lines: usize) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = fs::File::open(path) {
        let length = file.metadata().map_or(0, |m| m.len());
        let sought = file.seek(SeekFrom::Start(length.saturating_sub(64 << 10)));
        if sought.is_err() || file.read_to_end(&mut text).is_err() {
            return String::new();
        }
    }
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "1\n2\n3\n4\n").unwrap();
        assert_eq!(tail_of(&path, 2), "3\n4");
        assert_eq!(tail_of(&path, 9), "1\n2\n3\n4");
        assert_eq!(tail_of(&folder.path().join("none"), 2), "");
    }
}
