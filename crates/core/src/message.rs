//! The words of kubelets, runtimes and registries: which of the closed set of reasons they mean, and how they are shown.

mod reason;
mod redact;
mod shorten;

pub use reason::pull_reason;
pub use redact::redact;
pub(crate) use shorten::cut;
pub use shorten::shorten;
