//! Why a call to a runtime failed.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

/// Why a call to a runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No connection.
    #[error("cannot connect to {}: {}", path.display(), root_cause(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the transport says.
        source: tonic::transport::Error,
    },
    /// No answer in time; the runtime was told to give up.
    #[error("{call}: no answer within {after:?}")]
    Timeout {
        /// Name of the call.
        call: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// The runtime refused, or the connection broke.
    #[error("{call}: {}", words(status))]
    Refused {
        /// Name of the call.
        call: &'static str,
        /// What it answered.
        status: Box<Status>,
    },
    /// A blob that is not read because of its size.
    #[error("{digest} has {size} bytes, at most {at_most} are read")]
    TooLarge {
        /// The blob.
        digest: String,
        /// Its bytes.
        size: u64,
        /// The limit.
        at_most: u64,
    },
}

impl RuntimeError {
    /// The answer's code; none if there was no answer.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { status, .. } => Some(status.code()),
            Self::Connect { .. } | Self::Timeout { .. } | Self::TooLarge { .. } => None,
        }
    }

    /// Whether the runtime said that what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// Whether the socket's owner does not serve this call at all.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }
}

/// The transport's own words say "transport error" and no more; what went wrong is at the end of the chain.
fn words(status: &Status) -> String {
    match status.source() {
        Some(source) => format!("{} ({})", status.message(), root_cause(source)),
        None => status.message().to_owned(),
    }
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
