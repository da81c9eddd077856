//! Pulling by the kubelet: one short pod a batch of images.

mod build;

pub(super) use build::build;

#[cfg(test)]
mod tests;
