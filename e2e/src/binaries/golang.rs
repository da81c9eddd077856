//! Runs `go build`, watches it and says how far it is.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Error;
use super::upstream::Upstream;
use crate::progress::Progress;

/// How often a build that is under way says so.
const REPORT_EVERY: Duration = Duration::from_secs(15);

/// How much of a failed build's output is shown.
const LOG_TAIL: usize = 40;

/// Says clearly that Go is missing before anything is begun.
pub(super) fn check() -> Result<(), Error> {
    Command::new("go")
        .arg("version")
        .output()
        .map(|_| ())
        .map_err(Error::NoGo)
}

/// Builds all binaries of an upstream into `out`, in a module folder `source` made for it.
pub(super) fn build(
    upstream: &Upstream,
    source: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(), Error> {
    std::fs::write(source.join("go.mod"), upstream.go_mod).map_err(Error::cache(source))?;
    std::fs::write(source.join("go.sum"), upstream.go_sum).map_err(Error::cache(source))?;
    let mut log = Log::default();
    let started = Instant::now();
    for build in &upstream.builds {
        run(
            upstream,
            &build.arguments(&out.to_string_lossy()),
            source,
            started,
            &mut log,
            progress,
        )?;
    }
    Ok(())
}

fn run(
    upstream: &Upstream,
    arguments: &[String],
    folder: &Path,
    started: Instant,
    log: &mut Log,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut child = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        // Static binaries: they run in mount namespaces that need not have the machine's libraries.
        .env("CGO_ENABLED", "0")
        // A workspace file above the cache folder must not take part.
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NoGo)?;
    let (sender, lines) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let mut next_report = Instant::now() + REPORT_EVERY;
    loop {
        match lines.recv_timeout(next_report.saturating_duration_since(Instant::now())) {
            Ok(line) => log.take(line),
            Err(RecvTimeoutError::Timeout) => {
                progress.line(&format!(
                    "    {} {}: {}, {} s",
                    upstream.name,
                    upstream.version(),
                    log.so_far(),
                    started.elapsed().as_secs()
                ));
                next_report += REPORT_EVERY;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(Error::NoGo)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Build {
        upstream: upstream.name,
        version: upstream.version(),
        status,
        log: log.tail(),
    })
}

/// The output of `go build -v`: package names as they are compiled, downloads, and errors.
#[derive(Debug, Default)]
struct Log {
    compiled: usize,
    downloaded: usize,
    messages: VecDeque<String>,
}

impl Log {
    fn take(&mut self, line: String) {
        if line.starts_with("go: downloading ") {
            self.downloaded += 1;
        } else if line.contains(char::is_whitespace) {
            self.messages.push_back(line);
            if self.messages.len() > LOG_TAIL {
                self.messages.pop_front();
            }
        } else {
            self.compiled += 1;
        }
    }

    fn so_far(&self) -> String {
        if self.compiled == 0 && self.downloaded > 0 {
            format!("{} modules downloaded", self.downloaded)
        } else {
            format!("{} packages compiled", self.compiled)
        }
    }

    fn tail(&self) -> String {
        self.messages
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> Log {
        let mut log = Log::default();
        for line in lines {
            log.take((*line).to_owned());
        }
        log
    }

    #[test]
    fn progress_counts_downloads_until_something_is_compiled() {
        assert_eq!(
            log(&["go: downloading a.b/c v1.0.0"]).so_far(),
            "1 modules downloaded"
        );
        assert_eq!(
            log(&["go: downloading a.b/c v1.0.0", "a.b/c", "a.b/d"]).so_far(),
            "2 packages compiled"
        );
    }

    #[test]
    fn tail_holds_the_errors_and_not_the_packages() {
        let log = log(&["a.b/c", "# a.b/d", "d.go:3:1: undefined: x", "a.b/e"]);
        assert_eq!(log.tail(), "# a.b/d\nd.go:3:1: undefined: x");
    }

    #[test]
    fn tail_is_bounded_and_keeps_the_end() {
        let mut log = Log::default();
        for n in 0..100 {
            log.take(format!("error {n}"));
        }
        assert_eq!(log.tail().lines().count(), LOG_TAIL);
        assert!(log.tail().ends_with("error 99"));
    }
}
