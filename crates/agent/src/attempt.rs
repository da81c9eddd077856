//! The record of one attempt to pull an image, as image-prefetcher's collectors read it.

use std::time::Duration;

use jiff::Timestamp;
use larder_core::backoff;
use serde::{Deserialize, Serialize};

/// One attempt to pull one image on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Sixteen hexadecimal digits: another for every attempt, on whatever node.
    pub attempt_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Normalised reference.
    pub image: String,
    /// Why it failed, without credentials; empty if it succeeded.
    pub error: String,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// Name of the node.
    pub node: String,
    /// Bytes of the image; zero where unknown or not pulled.
    pub size_bytes: i64,
}

impl Attempt {
    /// An attempt that ended now, `took` after it began.
    pub(crate) fn new(node: &str, image: &str, started_at: Timestamp, took: Duration) -> Self {
        let id = backoff::seed(&[node, image, &started_at.to_string()]);
        Self {
            attempt_id: format!("{id:016x}"),
            started_at,
            image: image.to_owned(),
            error: String::new(),
            duration_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
            node: node.to_owned(),
            size_bytes: 0,
        }
    }
}
