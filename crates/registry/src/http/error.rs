//! Why an address that a tenant chose gave no answer that can be used.

use std::{error::Error, time::Duration};

use reqwest::StatusCode;

use crate::address::Refused;

/// A failed request. The text names a class and nothing of what the other side said; see [`FetchError::cause`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL's scheme is neither http nor https.
    #[error("only http and https are spoken")]
    Scheme,
    /// The name leads to an address that the operator leaves alone.
    #[error("leads to {0}")]
    Refused(#[from] Refused),
    /// The name has no address.
    #[error("the name cannot be resolved")]
    Name {
        /// The resolver's words.
        cause: String,
    },
    /// Nobody took the connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The connection, or TLS over it, was refused.
    #[error("no connection")]
    Connect {
        /// The innermost error.
        cause: String,
    },
    /// The answer, or the end of its body, did not come in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, or what came over it is not HTTP.
    #[error("the connection broke")]
    Broken {
        /// The innermost error.
        cause: String,
    },
    /// More redirects than are followed.
    #[error("more than {limit} redirects")]
    Redirects {
        /// How many are followed.
        limit: usize,
    },
    /// A redirect to what cannot be parsed.
    #[error("redirects to something that is no URL")]
    NotAUrl,
    /// A redirect from HTTPS to HTTP, or to another protocol.
    #[error("redirects to {0}, which is not followed")]
    Downgrade(&'static str),
    /// The body is larger than is read.
    #[error("answers with more than {}", size(*limit))]
    TooLarge {
        /// Bytes that are read at most.
        limit: usize,
    },
    /// An answer other than success.
    #[error("{status}")]
    Status {
        /// What it says.
        status: StatusCode,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl FetchError {
    /// The innermost error's own words, for those who may see what the operator sees. They may name addresses and what
    /// a certificate holds, but never hold a part of a body.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Name { cause } | Self::Connect { cause } | Self::Broken { cause } => Some(cause),
            _ => None,
        }
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What an error of reqwest stands for.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let mut source: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(at) = source {
            if let Some(refused) = at.downcast_ref::<Refused>() {
                return Self::Refused(*refused);
            }
            if let Some(Unresolved(cause)) = at.downcast_ref() {
                return Self::Name { cause: cause.clone() };
            }
            source = at.source();
        }
        let cause = root_cause(error);
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Self::ConnectTimeout,
            (false, true) => Self::Timeout,
            (true, false) => Self::Connect { cause },
            (false, false) => Self::Broken { cause },
        }
    }
}

/// The name has no address: why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unresolved(pub(super) String);

/// The innermost error: the ones around it say only that something failed.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn size(bytes: usize) -> String {
    const MIB: usize = 1 << 20;
    if bytes >= MIB && bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{bytes} bytes")
    }
}
