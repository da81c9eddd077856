//! What can go wrong on command.

use std::time::Duration;

/// A fault of the fake registry, set for a path with [`FakeRegistry::fault`](super::FakeRegistry::fault).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status, and perhaps a Retry-After header.
    Status {
        /// As in 429.
        status: u16,
        /// Value of Retry-After.
        retry_after: Option<&'static str>,
    },
    /// Answers as usual, but only after this time.
    Slow(Duration),
    /// Closes the connection without an answer.
    Drop,
    /// Names another digest in its header than that of the bytes.
    WrongDigest,
    /// Names no digest.
    NoDigest,
    /// Refuses HEAD with 405.
    NoHead,
    /// Closes the connection in the middle of the bytes.
    Truncated,
    /// Sends other bytes than it should.
    OtherBytes(Vec<u8>),
    /// 307 to this URL or path.
    Redirect(String),
    /// Answers as usual, with these headers beside.
    Headers(Vec<(&'static str, &'static str)>),
    /// Sends this piece again and again, with this time between, and never ends.
    Endless {
        /// What is sent each time.
        piece: Vec<u8>,
        /// Before each time.
        pause: Duration,
    },
}
