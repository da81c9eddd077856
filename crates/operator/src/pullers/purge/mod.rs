//! Removing by the agent, once, in a short pod.

mod build;

pub(super) use build::build;

#[cfg(test)]
mod tests;
