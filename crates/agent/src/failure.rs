//! What a runtime's refusal to pull means.

use std::time::Duration;

use larder_api::names::Reason;
use larder_core::format;
use larder_core::message::{pull_reason, redact, shorten};
use larder_runtime::RuntimeError;

/// As long as what a status may hold of it.
const MAX_CHARS: usize = 256;

/// Why a pull failed.
pub(crate) type PullError = larder_core::agent::PullFailure;

/// What the runtime's error means. Its words are those that the kubelet would have passed on.
pub(crate) fn of(error: &RuntimeError) -> PullError {
    let reason = match error {
        RuntimeError::Timeout { .. } => Reason::Timeout,
        RuntimeError::Connect { .. } | RuntimeError::TooLarge { .. } => Reason::RuntimeError,
        RuntimeError::Refused { status, .. } => {
            // The transport's own failures are Unknown or Unavailable with a source; the runtime's words have none.
            if std::error::Error::source(status.as_ref()).is_some() {
                Reason::RuntimeError
            } else {
                pull_reason("ErrImagePull", status.message()).unwrap_or(Reason::RuntimeError)
            }
        }
    };
    PullError {
        reason,
        message: shorten(&redact(&error.to_string()), MAX_CHARS),
    }
}

/// The whole attempt took too long.
pub(crate) fn too_long(after: Duration) -> PullError {
    PullError {
        reason: Reason::Timeout,
        message: format!("not pulled within {}", format::duration(after)),
    }
}

/// No byte has come for too long.
pub(crate) fn stalled(after: Duration) -> PullError {
    PullError {
        reason: Reason::Timeout,
        message: format!("no progress for {}", format::duration(after)),
    }
}
