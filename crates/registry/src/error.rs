//! Why a registry gave no answer that can be used.

use std::time::Duration;

use jiff::Timestamp;
use larder_api::names::Reason;

/// A failed question to a registry. The texts hold the registry's own words, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// 404: no such repository, tag or digest.
    #[error("{message}")]
    NotFound {
        /// Status and the registry's words.
        message: String,
    },
    /// 401, 403 or a refused token, with every credential that fits and without any.
    #[error("{message}")]
    Unauthorized {
        /// Status and the registry's words.
        message: String,
    },
    /// The registry asks for a user and password, and no pull secret fits it.
    #[error("no credentials for {host}: {message}")]
    CredentialsMissing {
        /// The registry.
        host: String,
        /// Status and the registry's words.
        message: String,
    },
    /// 429.
    #[error("{message}")]
    RateLimited {
        /// Status and the registry's words.
        message: String,
        /// From Retry-After.
        retry_after: Option<Duration>,
    },
    /// No connection, no answer in time, or a server error.
    #[error("{message}")]
    Unreachable {
        /// What failed.
        message: String,
        /// From Retry-After.
        retry_after: Option<Duration>,
    },
    /// The registry does not take the reference for one.
    #[error("{message}")]
    InvalidReference {
        /// Status and the registry's words.
        message: String,
    },
    /// The bytes are not those of the digest, or the registry names another digest than was asked for.
    #[error("asked for {wanted}, {host} has {got}")]
    DigestMismatch {
        /// The registry.
        host: String,
        /// The digest asked for.
        wanted: String,
        /// The digest found.
        got: String,
    },
    /// The answer is not a registry's.
    #[error("{host} does not answer as a registry: {message}")]
    Malformed {
        /// The registry.
        host: String,
        /// What is wrong with it.
        message: String,
    },
}

impl RegistryError {
    /// The reason for status, events and metric labels.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::NotFound,
            Self::Unauthorized { .. } => Reason::Unauthorized,
            Self::CredentialsMissing { .. } => Reason::CredentialsMissing,
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::Unreachable { .. } | Self::Malformed { .. } => Reason::RegistryUnreachable,
            Self::InvalidReference { .. } => Reason::InvalidReference,
            Self::DigestMismatch { .. } => Reason::DigestMismatch,
        }
    }

    /// Whether time alone may heal it. The others wait for somebody to push an image or mend a secret.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Unreachable { .. } | Self::Malformed { .. }
        )
    }

    /// How long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unreachable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same, with this wait.
    #[must_use]
    pub(crate) fn waiting(mut self, left: Duration) -> Self {
        if let Self::RateLimited { retry_after, .. } | Self::Unreachable { retry_after, .. } = &mut self {
            *retry_after = Some(left);
        }
        self
    }

    /// The same, saying when the registry is asked again: a moment, and in all that ask meanwhile the same.
    #[must_use]
    pub(crate) fn not_before(mut self, now: Timestamp, wait: Duration) -> Self {
        let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        // Whole seconds, and not too early.
        let until = Timestamp::from_second(until.as_second().saturating_add(1)).unwrap_or(Timestamp::MAX);
        if let Self::RateLimited { message, .. } | Self::Unreachable { message, .. } = &mut self {
            *message = format!("{message}; not asked again before {until}");
        }
        self.waiting(wait)
    }
}
