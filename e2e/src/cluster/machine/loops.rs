//! Loop devices: a node's image disk is a file. They free themselves when the node's namespace goes, a moment later.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::error::Result;
use crate::cluster::machine::command::run;

/// Waits until no loop device has a file at or below `path` behind it; detaches those that do not go by themselves.
pub fn release(path: &Path) -> Result<()> {
    let began = Instant::now();
    loop {
        let devices = attached(path);
        if devices.is_empty() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(10) {
            let rest = devices.iter().map(String::as_str).collect::<Vec<_>>();
            run("losetup", &[&["--detach"], rest.as_slice()].concat())?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The loop devices with a file at or below `path` behind them.
pub fn attached(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let behind = |device: &str| fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")).ok();
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|device| behind(device).is_some_and(|file| Path::new(file.trim_end()).starts_with(path)))
        .map(|device| format!("/dev/{device}"))
        .collect()
}
