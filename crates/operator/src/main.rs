//! The operator of Larder.
fn main() {}
