//! Fakes for tests. Each passes the same conformance function as the real thing.

pub mod registry;
pub mod runtime;
