//! What the command writes.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use larder_api::names::Reason;
use larder_core::format;
use serde::Serialize;

use crate::Attempt;

/// Where records go.
#[derive(Debug)]
pub(super) enum Output {
    /// JSON lines on standard output.
    Json,
    /// A bar on standard error; what failed goes to standard output at the end.
    Bar(ProgressBar),
}

/// The last line.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Images asked for, each counted once.
    pub(super) total: usize,
    /// Images that are there.
    pub(super) ready: usize,
    /// Images that are not.
    pub(super) failed: usize,
    /// Bytes of those that are there, as the runtime counts them.
    pub(super) size_bytes: i64,
    /// How long all of it took, in milliseconds.
    pub(super) duration_ms: i64,
    /// Every image that is not there.
    pub(super) failures: Vec<Failure>,
}

/// An image that is not there.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failure {
    /// Reference.
    pub(super) image: String,
    /// The last reason.
    pub(super) reason: Reason,
    /// The last error.
    pub(super) error: String,
    /// Attempts made.
    pub(super) attempts: u32,
}

impl Output {
    pub(super) fn new(bar: bool, total: usize) -> Self {
        if !bar {
            return Self::Json;
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} images  {elapsed}  {wide_msg}");
        let bar = ProgressBar::new(total as u64);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self::Bar(bar)
    }

    /// An attempt ended.
    pub(super) fn attempt(&self, attempt: &Attempt) {
        match self {
            Self::Json => line(attempt),
            Self::Bar(bar) if attempt.error.is_empty() => bar.set_message(attempt.image.clone()),
            Self::Bar(bar) => bar.println(format!("{}: {}", attempt.image, attempt.error)),
        }
    }

    /// An image is there, or was given up.
    pub(super) fn settled(&self) {
        if let Self::Bar(bar) = self {
            bar.inc(1);
        }
    }

    /// Everything is settled.
    pub(super) fn end(&self, summary: &Summary) {
        let bar = match self {
            Self::Json => {
                line(&serde_json::json!({ "summary": summary }));
                return;
            }
            Self::Bar(bar) => bar,
        };
        bar.finish_and_clear();
        let took = Duration::from_millis(u64::try_from(summary.duration_ms).unwrap_or(0));
        let mut text = format!(
            "{} of {} images, {}, in {}",
            summary.ready,
            summary.total,
            format::bytes(summary.size_bytes),
            format::duration(took)
        );
        for failure in &summary.failures {
            let Failure {
                image, reason, error, ..
            } = failure;
            // A String takes everything.
            let _ = write!(text, "\n{image}: {reason}: {error}");
        }
        print(&text);
    }
}

fn line(value: &impl Serialize) {
    // Plain data always has a JSON form.
    print(&serde_json::to_string(value).unwrap_or_default());
}

fn print(text: &str) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        tracing::warn!(%error, "nobody reads standard output");
    }
}
