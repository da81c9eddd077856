//! Why an image could not be made, read or moved.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be made, read or moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// What was given as an image is none.
    #[error("{} is not an image: {what}", path.display())]
    NotAnImage {
        /// The folder or archive.
        path: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
    /// A reference that an image cannot be pushed under.
    #[error("cannot push under {reference:?}: {what}")]
    Reference {
        /// The text as given.
        reference: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A registry's address, certificate or credentials cannot be used.
    #[error("cannot use the registry at {base}: {what}")]
    Target {
        /// The address as given.
        base: String,
        /// What is wrong.
        what: String,
    },
    /// A request got no answer.
    #[error("no answer to {method} {url}")]
    Request {
        /// HTTP method.
        method: String,
        /// Full URL.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// A request was answered with something else than it needed.
    #[error("{method} {url} was answered {status}: {body}")]
    Refused {
        /// HTTP method.
        method: String,
        /// Full URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// A tool that is called for an image failed or is missing.
    #[error("{tool} failed: {what}")]
    Tool {
        /// Name of the program.
        tool: &'static str,
        /// The end of its output, or why it could not be started.
        what: String,
    },
    /// The work was cancelled or panicked on its thread.
    #[error("making the image was cut short")]
    Stopped(#[source] tokio::task::JoinError),
}

impl Error {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(super) fn not_an_image(path: &Path, what: impl Into<String>) -> Self {
        Self::NotAnImage {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}
