//! What a runtime's refusal to pull means.

use std::error::Error as _;
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
    let (reason, words) = match error {
        // The transport's own failures have a source, the runtime's words have none.
        RuntimeError::Refused { status, .. } if status.source().is_none() => {
            let words = status.message().to_owned();
            (pull_reason("ErrImagePull", &words), words)
        }
        RuntimeError::Timeout { .. } => (Some(Reason::Timeout), error.to_string()),
        RuntimeError::Refused { .. } | RuntimeError::Connect { .. } | RuntimeError::TooLarge { .. } => {
            (None, error.to_string())
        }
    };
    PullError {
        reason: reason.unwrap_or(Reason::RuntimeError),
        message: shorten(&redact(&words), MAX_CHARS),
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

#[cfg(test)]
mod tests {
    use larder_runtime::{RuntimeClient, Timeouts};
    use larder_testkit::runtime::{Call, FakeRuntime, Fault, Serves};
    use tonic::Code;

    use super::*;

    /// What comes of a refusal with these words, and of a runtime that goes.
    async fn told(words: &str) -> (PullError, PullError) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let mut fake = FakeRuntime::start(&socket, Serves::Containerd).await.unwrap();
        let runtime = RuntimeClient::connect(&socket, Timeouts::default())
            .await
            .unwrap();
        fake.fault(Call::PullImage, Fault::Fail(Code::Unknown, words.to_owned()));
        let pull = async || {
            let runtime: &dyn larder_runtime::Runtime = &runtime;
            of(&runtime
                .pull("a:1", None, Duration::from_secs(5))
                .await
                .unwrap_err())
        };
        let refused = pull().await;
        fake.stop().await.unwrap();
        (refused, pull().await)
    }

    #[tokio::test]
    async fn the_registrys_words_are_told_from_the_runtimes_end() {
        let (refused, gone) =
            told("failed to copy: dial tcp 10.0.0.1:443: connect: connection refused").await;
        assert_eq!(refused.reason, Reason::RegistryUnreachable);
        assert!(
            refused.message.contains("connection refused"),
            "{}",
            refused.message
        );
        assert!(!refused.message.contains("PullImage"), "{}", refused.message);
        assert_eq!(gone.reason, Reason::RuntimeError);
        assert!(gone.message.starts_with("PullImage"), "{}", gone.message);
    }
}
